"""Which layers of a model can be adapted, found by structure.

There is no table of model names. A layer is adaptable when it multiplies by a weight
matrix (`torch.nn.Linear`, transformers' ``Conv1D``, `torch.nn.Embedding`). Its role
follows from where it stands: the longest list of like modules is the stack of blocks,
and inside a block the layers that share an attention parent are attention, the others
feed-forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["linear", "conv1d", "embedding"]
Role = Literal["attention", "mlp", "embedding", "head", "other"]


@dataclass(frozen=True)
class Site:
    """One adaptable place in a model.

    Attributes:
        path: Dotted module path, as in ``model.named_modules()``.
        kind: What the layer is.
        d_in: Input width (vocabulary size for embeddings).
        d_out: Output width.
        role: Where the layer stands.
        block: Index of the transformer block, ``None`` outside the blocks.
    """

    path: str
    kind: Kind
    d_in: int
    d_out: int
    role: Role
    block: int | None

    @property
    def name(self) -> str:
        """Last part of the path: what ``target_modules`` usually names."""
        return self.path.rpartition(".")[2]

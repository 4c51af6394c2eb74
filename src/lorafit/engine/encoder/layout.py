"""What the fast encoder needs to know of a model: its modules by the part they play."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from lorafit.engine.support import Unsupported


@dataclass(frozen=True)
class BlockLayout:
    """One block with the normalizations after its halves ("post-norm").

    Attributes:
        query, key, value, output, up, down: The linear layers, adapted or not.
        attention_norm: Follows the attention half.
        output_norm: Follows the feed-forward half.
        probability_dropout: Of the attention probabilities.
        attention_dropout: Of ``output``'s result, ``None``: there is none.
        hidden_dropout: Of ``down``'s result.
        heads: Attention heads.
        scale: What scores are multiplied by.
        activation: One of `lorafit.engine.kernels.ACTIVATIONS`.
    """

    query: nn.Module
    key: nn.Module
    value: nn.Module
    output: nn.Module
    up: nn.Module
    down: nn.Module
    attention_norm: nn.Module
    output_norm: nn.Module
    probability_dropout: nn.Module
    attention_dropout: nn.Module | None
    hidden_dropout: nn.Module
    heads: int
    scale: float
    activation: str

    def linear(self) -> list[nn.Module]:
        """The layers that may be adapted."""
        return [self.query, self.key, self.value, self.output, self.up, self.down]


@dataclass(frozen=True)
class EncoderLayout:
    """A whole model.

    Attributes:
        embeddings: With ``word_embeddings``, ``position_embeddings``, ``LayerNorm``,
            ``dropout`` and perhaps ``token_type_embeddings``.
        projection: Between embeddings and blocks (ELECTRA), or ``None``.
        blocks: From the input up.
        position_offset: Position of the first token; ``None``: positions count from 0.
            RoBERTa's start after its padding index.
        head: Last hidden states to logits, through autograd: ``(n, 1, width)`` (the first
            token of each example) when ``pools_first``, else ``(tokens, width)``.
        pools_first: Whether the head looks at the first token only.
    """

    embeddings: nn.Module
    projection: nn.Module | None
    blocks: tuple[BlockLayout, ...]
    position_offset: int
    head: Callable[[Tensor], Tensor]
    pools_first: bool

    def by_hand(self) -> Iterator[nn.Module]:
        """The modules whose forward pass this engine replaces."""
        yield self.embeddings
        if self.projection is not None:
            yield self.projection
        for block in self.blocks:
            yield from (*block.linear(), block.attention_norm, block.output_norm)


ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Transformers' names of activations to those of the kernels."""


def activation_kernel(name: object) -> str:
    """The kernel of a configured activation.

    Raises:
        Unsupported: There is none.
    """
    if not isinstance(name, str) or name not in ACTIVATION_NAMES:
        known = ", ".join(ACTIVATION_NAMES)
        raise Unsupported(f"its activation is {name!r}; there are kernels for {known}")
    return ACTIVATION_NAMES[name]

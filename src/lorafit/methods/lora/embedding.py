r"""LoRA of embeddings: a low-rank update of the table.

.. math:: h = E_x + s\, (B A)^T_x

``E (vocab, d)`` is frozen; column ``x`` of ``A (r, vocab)`` is looked up and not multiplied.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lorafit.errors import TargetError
from lorafit.methods.lora.config import LoraConfig
from lorafit.methods.lora.layer import LoraLayer
from lorafit.model.sites import Site


class LoraEmbedding(LoraLayer):
    """LoRA around ``nn.Embedding``: a low-rank update of the table ``(vocab, dim)``.

    ``lora_embedding_A[name] (r, vocab)`` starts at zero, ``lora_embedding_B[name] (dim, r)``
    normal. Gemma multiplies its embeddings by ``embed_scale``; so is the update.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Token ids ``(...)`` to ``(..., dim)``."""
        table: Any = self.base_layer
        base: torch.Tensor = table(x, *args, **kwargs)
        result = base
        for name in self._running():
            A, B = self.lora_embedding_A[name], self.lora_embedding_B[name]
            looked_up = F.embedding(x, A.T, padding_idx=table.padding_idx)
            update = (looked_up @ B.T) * self.scaling[name]
            embed_scale = getattr(table, "embed_scale", None)
            if embed_scale is not None:
                update = update * embed_scale
            result = result + update
        return result.to(base.dtype)

    @torch.no_grad()
    def delta_weight(self, name: str) -> torch.Tensor:
        """The change of the table, ``(vocab, dim)``."""
        A, B = self.factors(name)
        table: torch.Tensor = self.scaling[name] * (B @ A).T
        return table

    def factors(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """``A (r, vocab)`` and ``B (dim, r)``; the change of the table is ``s (B A)^T``."""
        return self.lora_embedding_A[name].float(), self.lora_embedding_B[name].float()

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """``lora_embedding_A`` and ``lora_embedding_B``, without ``.weight`` as PEFT has it."""
        return {
            "lora_embedding_A": self.lora_embedding_A[name].detach(),
            "lora_embedding_B": self.lora_embedding_B[name].detach(),
        }

    def _initialise(self, name: str, config: LoraConfig, site: Site) -> None:
        if config.has_origin or config.init_lora_weights == "orthogonal":
            raise TargetError(
                f'init_lora_weights="{config.init_lora_weights}" is for weight matrices; '
                f"{site.path} is an embedding."
            )
        r, device = self.r[name], self.weight.device
        A, B = torch.zeros(r, site.d_in), torch.randn(site.d_out, r)
        if config.init_lora_weights is False:
            nn.init.normal_(A)
        self.lora_embedding_A[name] = nn.Parameter(A.to(device))
        self.lora_embedding_B[name] = nn.Parameter(B.to(device))

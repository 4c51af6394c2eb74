r"""LoRA of a linear layer.

.. math:: h = W_0 x + b + s\, B A\, \mathrm{dropout}(x)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lorafit.methods.lora.config import LoraConfig
from lorafit.methods.lora.init import Origin, olora, orthogonal, pissa
from lorafit.methods.lora.layer import LoraLayer
from lorafit.methods.parts.entries import ModuleDict
from lorafit.model.sites import Site


class LoraLinear(LoraLayer):
    """LoRA around ``nn.Linear`` or ``Conv1D`` (whose weight is ``(d_in, d_out)``).

    ``lora_A[name].weight (r, d_in)``, ``lora_B[name].weight (d_out, r)``, float32.
    """

    def __init__(self, base_layer: nn.Module, site: Site) -> None:
        super().__init__(base_layer)
        self.in_features, self.out_features = site.d_in, site.d_out
        self.fan_in_fan_out = site.kind == "conv1d"
        self.lora_origin: ModuleDict[Origin] = ModuleDict()

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``x (..., d_in)`` to ``(..., d_out)`` in the base layer's dtype."""
        base: torch.Tensor = self.base_layer(x, *args, **kwargs)
        h = base
        for name in self._running():
            h = h + self.update(name, x, base)
        return h.to(base.dtype)

    def update(self, name: str, x: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """What one adapter adds: ``s B A dropout(x)``, less the product it started from.

        Args:
            name: The adapter.
            x: The layer's input ``(..., d_in)``.
            base: What the base layer computes of it ``(..., d_out)``; plain LoRA does not look.
        """
        A, B, dropout = self.lora_A[name], self.lora_B[name], self.lora_dropout[name]
        x = dropout(x.to(A.weight.dtype))
        product: torch.Tensor = B(A(x))
        if name in self.lora_origin:
            product = product - self.lora_origin[name](x)
        return self.scaling[name] * product

    def factors(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """``A (r, d_in)`` and ``B (d_out, r)`` of the whole update, ``2r`` with an origin."""
        A, B = self.lora_A[name].weight, self.lora_B[name].weight
        if name in self.lora_origin:
            origin = self.lora_origin[name]
            return torch.cat([A, origin.A]).float(), torch.cat([B, -origin.B], dim=1).float()
        return A.float(), B.float()

    def low_rank(self, name: str) -> torch.Tensor:
        """``s B A``, less the product it started from: ``(d_out, d_in)`` float32."""
        A, B = self.factors(name)
        return self.scaling[name] * (B @ A)

    def change(self, name: str) -> torch.Tensor:
        """How one adapter changes the weight: ``(d_out, d_in)`` float32."""
        return self.low_rank(name)

    @torch.no_grad()
    def delta_weight(self, name: str) -> torch.Tensor:
        """The change of the base weight, in its orientation."""
        change = self.change(name)
        return change.T if self.fan_in_fan_out else change

    def matrix(self) -> torch.Tensor:
        """The pristine base weight as ``(d_out, d_in)``."""
        weight = self.pristine_weight
        return weight.T if self.fan_in_fan_out else weight

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """The whole update as one ordinary LoRA; with an origin its rank is ``2r``."""
        A, B = self.lora_A[name].weight, self.lora_B[name].weight
        if name in self.lora_origin:
            return dict(zip(_KEYS, (t.detach() for t in self.factors(name)), strict=True))
        return dict(zip(_KEYS, (A.detach(), B.detach()), strict=True))

    def load_adapter_state(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        """Copies tensors; with an origin the second halves have to be this origin."""
        if name not in self.lora_origin:
            return super().load_adapter_state(name, tensors)
        r, origin = self.r[name], self.lora_origin[name]
        A, B = (tensors[key].float() for key in _KEYS)
        with torch.no_grad():
            origin.A.copy_(A[r:])
            origin.B.copy_(-B[:, r:])
            self.lora_A[name].weight.copy_(A[:r])
            self.lora_B[name].weight.copy_(B[:, :r])
        return None

    def _initialise(self, name: str, config: LoraConfig, site: Site) -> None:
        r, device = self.r[name], self.weight.device
        A = nn.Linear(self.in_features, r, bias=False)
        B = nn.Linear(r, self.out_features, bias=False)
        init = config.init_lora_weights
        if init is True:
            # nn.Linear's own initialisation of A, as in the paper's reference code.
            nn.init.zeros_(B.weight)
        elif init == "gaussian":
            nn.init.normal_(A.weight, std=1 / r)
            nn.init.zeros_(B.weight)
        elif init == "orthogonal":
            A.weight.data, B.weight.data = orthogonal(self.in_features, self.out_features, r)
        elif config.has_origin:
            factors = olora if init == "olora" else pissa
            start_A, start_B = factors(self.matrix(), r, self.scaling[name], str(init))
            A.weight.data, B.weight.data = start_A.clone(), start_B.clone()
            self.lora_origin[name] = Origin(start_A, start_B).to(device)
        self.lora_A[name] = A.to(device)
        self.lora_B[name] = B.to(device)


_KEYS = ("lora_A.weight", "lora_B.weight")

r"""DoRA: train the length of each row of the weight apart from its direction.

.. math:: W' = m \frac{W + s B A}{\lVert W + s B A \rVert_{row}}

``m (d_out,)`` starts at the row norms of ``W + s B A``, so training starts at the base
model. Liu et al. 2024, arXiv 2402.09353, equation 5. As in section 4.3 of the paper the
norm is a constant in the backward pass.

Where we differ from PEFT: with dropout on, PEFT applies the dropped-out input to the
frozen weight as well; here only the low-rank part sees dropout, as in plain LoRA.
"""

from __future__ import annotations

import torch

from lorafit.methods.lora.config import LoraConfig
from lorafit.methods.lora.linear import LoraLinear
from lorafit.methods.lora.magnitude import DoraMagnitude, row_norm
from lorafit.model.sites import Site


class DoraLinear(LoraLinear):
    """A linear layer with at least one DoRA adapter; the others are plain LoRA.

    ``lora_magnitude_vector[name].weight (d_out,)`` is ``m``, float32.
    """

    def update(self, name: str, x: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """``(c - 1) W x + c s B A dropout(x)`` with ``c = m / |W + s B A|``."""
        update = super().update(name, x, base)
        if name not in self.lora_magnitude_vector:
            return update
        scale = self._scale(name)
        plain = base if self.bias is None else base - self.bias
        return (scale - 1.0) * plain + scale * update

    def change(self, name: str) -> torch.Tensor:
        """``c (W + s B A) - W``."""
        change = super().change(name)
        if name not in self.lora_magnitude_vector:
            return change
        scale = self._scale(name).unsqueeze(1)
        return (scale - 1.0) * self.matrix().float() + scale * change

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """The update as an ordinary LoRA, and ``m`` beside it."""
        state = super().adapter_state(name)
        if name in self.lora_magnitude_vector:
            state["lora_magnitude_vector"] = self.lora_magnitude_vector[name].weight.detach()
        return state

    def load_adapter_state(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        """Copies tensors, ``m`` among them."""
        super().load_adapter_state(name, tensors)
        if name in self.lora_magnitude_vector:
            with torch.no_grad():
                magnitude = self.lora_magnitude_vector[name].weight
                magnitude.copy_(tensors["lora_magnitude_vector"])

    def _scale(self, name: str) -> torch.Tensor:
        """``c (d_out,)``; the norm receives no gradient."""
        norm = row_norm(self.matrix(), self.low_rank(name))
        return self.lora_magnitude_vector[name].weight / norm

    def _initialise(self, name: str, config: LoraConfig, site: Site) -> None:
        super()._initialise(name, config, site)
        if config.use_dora:
            norm = row_norm(self.matrix(), self.low_rank(name))
            self.lora_magnitude_vector[name] = DoraMagnitude(norm)

r"""Sparse fine-tuning: a small, fixed share of the weights is trained.

.. math:: W = W_0 + \mathrm{scatter}(I, v)

``v`` are the trained values, ``I`` the flat positions in ``W``. The positions are those with
the largest gradient magnitude of the loss at the pretrained weights, summed over a few
batches, over all adapted layers together: Song et al. 2024 (SIFT), arXiv 2312.11875; with
squared gradients of single examples it is the FISH mask of Sung et al. 2021, arXiv
2111.09839. Every layer keeps at least one position. Without gradients (an adapter added by
hand) the positions are random, the same share in each layer.

``v = 0`` at the start, so training starts at the base model. The head is still random when
the gradients are taken, as in SIFT. The backward pass forms one dense gradient of each
weight for a moment, so the memory saved is that of the optimizer, not of the gradient.
PEFT has no such method; on disk a layer has ``sparse_indices (k,) int32`` and
``sparse_values (k,)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, Family, Method, MethodConfig
from lorafit.methods.parts.entries import ModuleDict
from lorafit.model.sites import Site
from lorafit.model.targets import ALL_LINEAR, select


class SparseConfig(MethodConfig):
    """Settings of sparse fine-tuning."""

    peft_type: str = "LORAFIT_SPARSE"
    density: float = Field(default=0.005, gt=0.0, le=1.0)
    """Share of the weights of the adapted layers that is trained."""
    target_modules: set[str] | str | None = None
    """Layers to choose from: names, a regular expression that matches whole paths, or
    ``"all-linear"`` (also ``None``)."""
    calibration_batches: int = Field(default=8, gt=0)
    """Training batches whose gradients choose the positions."""
    nonzero: dict[str, int] = Field(default_factory=dict)
    """Number of trained weights in each layer; filled in once they are chosen."""


@methods.register("sparse")
class Sparse(Method[SparseConfig]):
    """The weights with the largest gradients."""

    family: ClassVar[Family] = "selective"
    config_class = SparseConfig
    learning_rate = 1e-3

    def select(self, model: nn.Module, sites: Sequence[Site], config: SparseConfig) -> list[Site]:
        """The matrices of ``target_modules``."""
        targets = config.target_modules
        matrices = [site for site in sites if site.kind != "embedding"]
        return select(
            model,
            matrices,
            target_modules=ALL_LINEAR if targets is None else targets,
            modules_to_save=config.modules_to_save,
        )

    def wrap(self, layer: nn.Module, site: Site) -> AdapterLayer:
        """Wraps a linear layer or a ``Conv1D``."""
        return SparseLayer(layer)

    def resolved(
        self, model: nn.Module, sites: Sequence[Site], names: Sequence[str], config: SparseConfig
    ) -> SparseConfig:
        """Notes how many weights of each layer are trained."""
        counts = {s.path: max(1, round(config.density * s.d_in * s.d_out)) for s in sites}
        counts |= {path: k for path, k in config.nonzero.items() if path in counts}
        return config.model_copy(update={"nonzero": counts})

    def calibration_batches(self, config: SparseConfig) -> int:
        """As many as are set."""
        return config.calibration_batches

    def calibrate(
        self,
        layers: Mapping[str, AdapterLayer],
        gradients: Mapping[str, torch.Tensor],
        name: str,
        config: SparseConfig,
    ) -> SparseConfig:
        """Takes the positions with the largest gradients over all layers."""
        total = sum(gradient.numel() for gradient in gradients.values())
        budget = max(1, round(config.density * total))
        flat = torch.cat([g.abs().flatten().float() for g in gradients.values()])
        chosen = torch.zeros(total, dtype=torch.bool, device=flat.device)
        chosen[torch.topk(flat, budget).indices] = True
        counts, start = {}, 0
        for path, gradient in gradients.items():
            mine = chosen[start : start + gradient.numel()]
            start += gradient.numel()
            indices = mine.nonzero().flatten()
            if len(indices) == 0:  # a parameter without entries could not be trained
                indices = gradient.abs().flatten().argmax().reshape(1)
            layer = layers[path]
            assert isinstance(layer, SparseLayer)
            layer.choose(name, indices)
            counts[path] = len(indices)
        return config.model_copy(update={"nonzero": counts})


class SparseLayer(AdapterLayer[SparseConfig]):
    """A linear layer some of whose weights have a trained change."""

    adapter_layer_names: ClassVar[tuple[str, ...]] = ("sparse_values",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.sparse_values = nn.ParameterDict()
        self.sparse_indices: ModuleDict[_Indices] = ModuleDict()

    def add_adapter(self, name: str, config: SparseConfig, site: Site) -> None:
        """Adds an adapter at random positions."""
        k = config.nonzero[site.path]
        self.choose(name, torch.randperm(self.weight.numel())[:k])

    def choose(self, name: str, indices: torch.Tensor) -> None:
        """Places an adapter at flat positions of the weight, with no change there yet."""
        device = self.weight.device
        self.sparse_indices[name] = _Indices(indices.sort().values.to(device, torch.int32))
        self.sparse_values[name] = nn.Parameter(torch.zeros(len(indices), device=device))

    def delete_adapter(self, name: str) -> None:
        """Forgets one adapter."""
        super().delete_adapter(name)
        if name in self.sparse_indices:
            del self.sparse_indices[name]

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``x (..., d_in)`` to ``(..., d_out)`` with the changed weight."""
        names = self._running()
        if not names:
            base: torch.Tensor = self.base_layer(x, *args, **kwargs)
            return base
        weight = self.weight.flatten()
        for name in names:
            indices, values = self._sparse(name)
            weight = weight.index_add(0, indices, values.to(weight.dtype))
        changed: torch.Tensor = torch.func.functional_call(
            self.base_layer, {"weight": weight.view_as(self.weight)}, (x, *args), kwargs
        )
        return changed

    @torch.no_grad()
    def delta_weight(self, name: str) -> torch.Tensor:
        """The change of the weight, zero but at the positions."""
        indices, values = self._sparse(name)
        delta = torch.zeros(self.weight.numel(), device=values.device)
        return delta.index_add(0, indices, values.float()).view_as(self.weight)

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """Positions and values."""
        indices, values = self._sparse(name)
        return {"sparse_indices": indices, "sparse_values": values.detach()}

    def _sparse(self, name: str) -> tuple[torch.Tensor, nn.Parameter]:
        return self.sparse_indices[name].flat, self.sparse_values[name]


class _Indices(nn.Module):
    """Flat positions in a weight, which move between devices with the model."""

    flat: torch.Tensor

    def __init__(self, flat: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("flat", flat)

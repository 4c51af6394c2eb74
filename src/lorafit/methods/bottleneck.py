r"""Bottleneck adapters: a small two-layer network after the sublayers of each block.

.. math:: h \leftarrow h + U\, \sigma(D h + b_D) + b_U

``h`` is what a sublayer returns before it is added to the residual stream, ``D (m, d)`` and
``U (d, m)`` are trained, ``m = d / reduction_factor``. Houlsby et al. 2019, arXiv 1902.00751,
place one after the attention and one after the MLP of each block; Pfeiffer et al. 2020,
arXiv 2005.00247, only the latter. The place is the layer that leads back to the model's
width, found by structure.

Where we differ: ``U`` and ``b_U`` start at zero instead of near it, so training starts
exactly at the base model; layer norms are not trained along (Houlsby's code does); the
dropout that some models have at this place comes after the adapter. The non-linearity
keeps it from being merged. PEFT has no such method; on disk a layer has
``adapter_down.weight (m, d)``, ``adapter_down.bias``, ``adapter_up.weight (d, m)``,
``adapter_up.bias``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from lorafit.errors import ConfigError
from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, Family, Method, MethodConfig
from lorafit.model.sites import Site, output_site, sublayers

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


class BottleneckConfig(MethodConfig):
    """Settings of bottleneck adapters."""

    peft_type: str = "LORAFIT_BOTTLENECK"
    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
    """After attention and MLP, or after the MLP only."""
    reduction_factor: int = Field(default=16, gt=0)
    """The adapter's inner width is the model's divided by this, at least 1."""
    non_linearity: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    """Function between the two layers."""

    def width(self, site: Site) -> int:
        """The inner width ``m`` at a site."""
        return max(1, site.d_out // self.reduction_factor)


@methods.register("bottleneck")
class Bottleneck(Method[BottleneckConfig]):
    """Adapters after the sublayers."""

    family: ClassVar[Family] = "additive"
    config_class = BottleneckConfig
    learning_rate = 3e-3

    def select(
        self, model: nn.Module, sites: Sequence[Site], config: BottleneckConfig
    ) -> list[Site]:
        """The last layer of each attention and MLP, or of each MLP."""
        after_attention = config.placement == "houlsby"
        roles = {"attention", "mlp"} if after_attention else {"mlp"}
        sites = [site for site in sites if site.kind != "embedding"]
        groups = [g for g in sublayers(model, sites) if g[0].role in roles]
        chosen = {site.path for group in groups if (site := output_site(group)) is not None}
        if not chosen:
            raise ConfigError(
                f"bottleneck finds no blocks with attention and MLP in {type(model).__name__}."
            )
        return [site for site in sites if site.path in chosen]

    def wrap(self, layer: nn.Module, site: Site) -> AdapterLayer:
        """Wraps a linear layer or a ``Conv1D``."""
        return BottleneckLayer(layer)


class BottleneckLayer(AdapterLayer[BottleneckConfig]):
    """A linear layer followed by a small residual network."""

    adapter_layer_names: ClassVar[tuple[str, ...]] = ("adapter_down", "adapter_up")
    unmergeable: ClassVar[str] = (
        "a bottleneck adapter has a non-linearity, which no weight matrix computes"
    )

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.adapter_down = nn.ModuleDict()
        self.adapter_up = nn.ModuleDict()
        self.non_linearity: dict[str, str] = {}

    def add_adapter(self, name: str, config: BottleneckConfig, site: Site) -> None:
        """Adds an adapter that returns zero."""
        down = nn.Linear(site.d_out, config.width(site))
        up = nn.Linear(config.width(site), site.d_out)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        device = self.weight.device
        self.adapter_down[name], self.adapter_up[name] = down.to(device), up.to(device)
        self.non_linearity[name] = config.non_linearity

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``x (..., d_in)`` to ``(..., d_out)`` in the base layer's dtype."""
        base: torch.Tensor = self.base_layer(x, *args, **kwargs)
        names = self._running()
        if not names:
            return base
        h = base.to(torch.float32)
        result = h
        for name in names:
            act = _ACTIVATIONS[self.non_linearity[name]]
            result = result + self.adapter_up[name](act(self.adapter_down[name](h)))
        return result.to(base.dtype)

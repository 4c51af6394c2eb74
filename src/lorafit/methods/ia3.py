r"""(IA)3: trained vectors that amplify or inhibit activations.

.. math:: h = l \odot (W_0 x + b) \qquad\text{or, in an MLP,}\qquad h = W_0 (l \odot x) + b

Liu et al. 2022, arXiv 2205.05638, section 3.3: keys, values and the inner activations of each
MLP are rescaled. ``l`` is one at the start, so training starts exactly at the base model.
The keys and values are the layers of an attention whose names begin so (``k_proj``,
``value``, ...); where one layer computes queries, keys and values together, it is rescaled
as a whole, which for the queries is the same as more freedom for the keys. The inner
activations are the input of the layer that leads back to the model's width. All this is read
off the model's structure; there is no table of model names as in PEFT.

On disk this is PEFT's ``IA3``, with the layers listed: ``ia3_l (d_out, 1)``, or ``(1, d_in)``
where the input is rescaled. Merging multiplies the rows or columns of the weight (and the
bias with the rows).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from lorafit.errors import ConfigError
from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, Family, Method, MethodConfig
from lorafit.model.sites import Site, output_site, sublayers
from lorafit.model.targets import matches, select


class IA3Config(MethodConfig):
    """Settings of (IA)3, with PEFT's names."""

    peft_type: str = "IA3"
    target_modules: set[str] | str | None = None
    """Names, a regular expression that matches whole paths, or ``"all-linear"``; ``None``:
    keys, values and the last layer of each MLP."""
    exclude_modules: set[str] | str | None = None
    """Names, or a regular expression that matches whole paths, left out of the targets."""
    feedforward_modules: set[str] | str | None = None
    """The targets whose input is rescaled instead of their output; ``None``: those that stand
    in an MLP."""
    fan_in_fan_out: bool = False
    """Kept for PEFT's files; the orientation of a weight is read off its layer."""
    init_ia3_weights: bool = True
    """Start from ones; ``False``: from random numbers (does not start at the base)."""


@methods.register("ia3")
class IA3(Method[IA3Config]):
    """Rescaled keys, values and inner activations."""

    family: ClassVar[Family] = "additive"
    config_class = IA3Config
    learning_rate = 1e-2

    def select(self, model: nn.Module, sites: Sequence[Site], config: IA3Config) -> list[Site]:
        """Resolves the patterns, or reads keys, values and MLP outputs off the structure."""
        sites = [site for site in sites if site.kind != "embedding"]
        targets = config.target_modules
        if targets is None:
            targets = {site.path for site in _usual(model, sites)}
            if not targets:
                raise ConfigError(
                    f"ia3 finds no blocks with attention or MLP in {type(model).__name__}; list "
                    "its layers in target_modules."
                )
        return select(
            model,
            sites,
            target_modules=targets,
            exclude_modules=config.exclude_modules,
            modules_to_save=config.modules_to_save,
        )

    def resolved(
        self, model: nn.Module, sites: Sequence[Site], names: Sequence[str], config: IA3Config
    ) -> IA3Config:
        """Lists the layers: PEFT finds them by name only."""
        asked = config.feedforward_modules
        if asked is None:
            inputs = {site.path for site in sites if site.role == "mlp"}
        else:
            inputs = {site.path for site in sites if matches(site.path, asked)}
            if asked and not inputs:
                raise ConfigError(f"feedforward_modules: {asked} is none of the targets.")
        found = {
            "target_modules": {site.path for site in sites},
            "exclude_modules": None,
            "feedforward_modules": inputs,
            "fan_in_fan_out": any(site.kind == "conv1d" for site in sites),
        }
        return config.model_copy(update=found)

    def wrap(self, layer: nn.Module, site: Site) -> AdapterLayer:
        """Wraps a linear layer or a ``Conv1D``."""
        return IA3Layer(layer, site)


def _usual(model: nn.Module, sites: Sequence[Site]) -> list[Site]:
    chosen = []
    for group in sublayers(model, sites):
        output = output_site(group)
        if group[0].role == "attention":
            inputs = [site for site in group if site is not output]
            named = [site for site in inputs if re.match(r"(k|v|key|value)(_|$)", site.name)]
            chosen += named or inputs
        elif output is not None:
            chosen.append(output)
    return chosen


class IA3Layer(AdapterLayer[IA3Config]):
    """A linear layer whose output, or input, is multiplied by a trained vector."""

    adapter_layer_names: ClassVar[tuple[str, ...]] = ("ia3_l",)

    def __init__(self, base_layer: nn.Module, site: Site) -> None:
        super().__init__(base_layer)
        self.in_features, self.out_features = site.d_in, site.d_out
        self.fan_in_fan_out = site.kind == "conv1d"
        self.ia3_l = nn.ParameterDict()

    def add_adapter(self, name: str, config: IA3Config, site: Site) -> None:
        """Adds a vector for the output, or for the input of a feed-forward target."""
        feedforward = site.path in (config.feedforward_modules or ())
        shape = (1, site.d_in) if feedforward else (site.d_out, 1)
        start = torch.ones(shape) if config.init_ia3_weights else torch.randn(shape)
        self.ia3_l[name] = nn.Parameter(start.to(self.weight.device))

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``x (..., d_in)`` to ``(..., d_out)`` in the base layer's dtype."""
        on_input, on_output = None, None
        for name in self._running():
            vector = self.ia3_l[name]
            if self._scales_input(name):
                on_input = vector if on_input is None else on_input * vector
            else:
                on_output = vector if on_output is None else on_output * vector
        if on_input is not None:
            x = (x * on_input.flatten()).to(x.dtype)
        base: torch.Tensor = self.base_layer(x, *args, **kwargs)
        if on_output is None:
            return base
        result: torch.Tensor = (base * on_output.flatten()).to(base.dtype)
        return result

    def _scales_input(self, name: str) -> bool:
        return tuple(self.ia3_l[name].shape) == (1, self.in_features)

    def _rescaled(self, weight: torch.Tensor, name: str) -> torch.Tensor:
        vector: torch.Tensor = self.ia3_l[name].float()
        factor: torch.Tensor = vector.T if self.fan_in_fan_out else vector
        return weight * factor

    @torch.no_grad()
    def delta_weight(self, name: str) -> torch.Tensor:
        """The change of the weight; that of the bias is left out."""
        weight = self.pristine_weight.float()
        return self._rescaled(weight, name) - weight

    def merged_values(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Weight and, where outputs are rescaled, bias."""
        weight, bias = self.pristine_weight.float(), self.pristine("bias")
        merged = None if bias is None else bias.float()
        for name in names:
            weight = self._rescaled(weight, name)
            if merged is not None and not self._scales_input(name):
                merged = merged * self.ia3_l[name].float().flatten()
        return {"weight": weight} if merged is None else {"weight": weight, "bias": merged}

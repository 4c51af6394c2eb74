r"""LoRA: a low-rank update beside each frozen weight.

.. math:: h = W_0 x + b + s B A x, \qquad s = \alpha / r

``W_0 (d_out, d_in)`` is frozen, ``A (r, d_in)`` and ``B (d_out, r)`` are trained. ``B = 0``
at the start, so training starts exactly at the base model. Hu et al. 2021, arXiv
2106.09685, equation 3. With ``use_rslora`` the scale is ``alpha / sqrt(r)`` (Kalajdzievski
2023, arXiv 2312.03732). ``use_dora`` adds a trained length to each row (``dora.py``).

Some initialisations start from a non-zero product: ``pissa`` (Meng et al. 2024, arXiv
2404.02948), ``olora`` (Buyukakyuz 2024, arXiv 2406.01775). PEFT subtracts the product
``s B_0 A_0`` from the base weight in place. Here the base is never edited: the start is
kept as a frozen *origin* and subtracted in the forward pass,
``h = W_0 x + b + s (B A - B_0 A_0) x``. That is the same function; it is exact in every
dtype, several such adapters can share one base, and what is saved is an ordinary LoRA of
rank ``2r``, ``[B, -B_0] [A; A_0]``, which fits the unmodified base everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import nn

from lorafit.errors import ConfigError, TargetError
from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, Family, Method, MethodConfig
from lorafit.methods.dora import DoraMagnitude, row_norm
from lorafit.methods.lora_config import LoraConfig
from lorafit.methods.lora_embedding import LoraEmbedding
from lorafit.methods.lora_init import olora, orthogonal, pissa
from lorafit.methods.lora_layer import LoraLayer
from lorafit.methods.lora_parameter import LoraParameters, parameter_sites
from lorafit.methods.lora_tokens import TokenRows, token_sites
from lorafit.model.sites import Site
from lorafit.model.targets import ALL_LINEAR, inside_modules, select

__all__ = ["Lora", "LoraConfig", "LoraEmbedding", "LoraLayer", "LoraLinear", "Origin"]


@methods.register("lora")
class Lora(Method):
    """Low-rank adaptation of linear layers, ``Conv1D`` and embeddings."""

    family: ClassVar[Family] = "reparametrization"
    config_class = LoraConfig
    recommended: ClassVar[dict[str, Any]] = {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ALL_LINEAR,
        "lora_dropout": 0.05,
    }

    def select(self, model: nn.Module, sites: Sequence[Site], config: MethodConfig) -> list[Site]:
        """Resolves the patterns; every pattern has to match something."""
        config = cast(LoraConfig, config)
        targets: Collection[str] | str = config.target_modules or ALL_LINEAR
        if config.target_modules is not None and not config.target_parameters:
            targets = config.target_modules
        chosen: list[Site] = []
        if config.target_modules or not config.target_parameters:
            chosen = select(
                model,
                sites,
                target_modules=targets,
                exclude_modules=config.exclude_modules,
                layers_to_transform=config.layers_to_transform,
                layers_pattern=config.layers_pattern,
                modules_to_save=config.modules_to_save,
            )
        if config.use_dora and any(s.kind == "embedding" for s in chosen):
            raise TargetError(
                "use_dora is for weight matrices; take the embeddings off the targets."
            )
        beside = self._beside_layers(model, sites, chosen, config)
        own = {name.rpartition(".")[2] for name in config.target_parameters or []}
        weights = [f"{s.path}.{name}" for s in beside if s.kind == "parameter" for name in own]
        for setting in ("rank_pattern", "alpha_pattern"):
            for pattern in getattr(config, setting):
                paths = [s.path for s in chosen] + weights
                if not any(re.match(rf"(.*\.)?({pattern})$", path) for path in paths):
                    names = sorted({s.name for s in chosen})
                    raise TargetError(
                        f'{setting}: "{pattern}" matches none of the targets: {", ".join(names)}.'
                    )
        return chosen + beside

    def _beside_layers(
        self, model: nn.Module, sites: Sequence[Site], chosen: Sequence[Site], config: LoraConfig
    ) -> list[Site]:
        """Weights that are no layers, and rows of embeddings, that a configuration names."""
        beside: list[Site] = []
        if config.target_parameters:
            beside += parameter_sites(model, config.target_parameters)
        if config.trainable_token_indices:
            beside += token_sites(model, sites, config.trainable_token_indices)
        taken = {site.path for site in chosen}
        for site in beside:
            if site.path in taken:
                raise TargetError(f"{site.path} is named twice: in target_modules as well.")
            if config.modules_to_save and inside_modules(site.path, config.modules_to_save):
                raise TargetError(f"{site.path} is named twice: in modules_to_save as well.")
        self._model = model
        return beside

    def parameters(
        self, model: nn.Module, names: Sequence[str], sites: Sequence[Site], config: MethodConfig
    ) -> list[str]:
        """The biases that ``bias`` asks for."""
        which = cast(LoraConfig, config).bias
        if which == "none":
            return []
        biases = [name for name in names if name.split(".")[-1] == "bias"]
        if which == "lora_only":
            own = {f"{site.path}.bias" for site in sites}
            biases = [name for name in biases if name in own]
        if not biases:
            raise ConfigError(f'bias="{which}": the model has no such biases.')
        return biases

    def saved_name(self, name: str, sites: Sequence[Site]) -> str:
        """As PEFT does: below ``base_layer`` where the layer is adapted."""
        path, _, key = name.rpartition(".")
        return f"{path}.base_layer.{key}" if any(s.path == path for s in sites) else name

    def wrap(self, layer: nn.Module, site: Site) -> AdapterLayer:
        """Wraps a linear layer, a ``Conv1D``, an embedding, or what `_beside_layers` found."""
        if site.kind == "parameter":
            return LoraParameters(layer)
        if site.kind == "tokens":
            words = self._model.get_input_embeddings()  # type: ignore[operator]
            tied = not isinstance(layer, nn.Embedding)
            return TokenRows(layer, main=words if tied else None)
        return LoraEmbedding(layer) if site.kind == "embedding" else LoraLinear(layer, site)


class LoraLinear(LoraLayer):
    """LoRA around ``nn.Linear`` or ``Conv1D`` (whose weight is ``(d_in, d_out)``).

    ``lora_A[name].weight (r, d_in)``, ``lora_B[name].weight (d_out, r)``, float32.
    """

    def __init__(self, base_layer: nn.Module, site: Site) -> None:
        super().__init__(base_layer)
        self.in_features, self.out_features = site.d_in, site.d_out
        self.fan_in_fan_out = site.kind == "conv1d"
        self.lora_origin = nn.ModuleDict()

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``x (..., d_in)`` to ``(..., d_out)`` in the base layer's dtype."""
        base: torch.Tensor = self.base_layer(x, *args, **kwargs)
        names = self._running()
        if not names:
            return base
        result = base
        for name in names:
            update = self._update(name, x)
            if name in self.lora_magnitude_vector:
                magnitude = cast(DoraMagnitude, self.lora_magnitude_vector[name])
                scale = magnitude.scale(row_norm(self._weight(), self._low_rank(name)))
                plain = base if self.bias is None else base - self.bias
                update = (scale - 1.0) * plain + scale * update
            result = result + update
        return result.to(base.dtype)

    def _update(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """``s B A dropout(x)``, with the origin's product subtracted."""
        lora_A, lora_B = self.lora_A[name], self.lora_B[name]
        x = self.lora_dropout[name](x.to(cast(nn.Linear, lora_A).weight.dtype))
        update: torch.Tensor = lora_B(lora_A(x))
        if name in self.lora_origin:
            update = update - self.lora_origin[name](x)
        return update * self.scaling[name]

    def _weight(self) -> torch.Tensor:
        """The pristine base weight as ``(d_out, d_in)``."""
        weight = self.pristine_weight
        return weight.T if self.fan_in_fan_out else weight

    def _low_rank(self, name: str) -> torch.Tensor:
        """``s (B A - B_0 A_0)`` as ``(d_out, d_in)`` float32."""
        A, B = self.factors(name)
        return self.scaling[name] * (B @ A)

    def factors(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """``A (r, d_in)`` and ``B (d_out, r)`` of the whole update, ``2r`` with an origin."""
        A, B = self._pair(name)
        if name in self.lora_origin:
            origin = cast(Origin, self.lora_origin[name])
            A, B = torch.cat([A, origin.A]), torch.cat([B, -origin.B], dim=1)
        return A.float(), B.float()

    def _pair(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            cast(nn.Linear, self.lora_A[name]).weight,
            cast(nn.Linear, self.lora_B[name]).weight,
        )

    @torch.no_grad()
    def delta_weight(self, name: str) -> torch.Tensor:
        """The change of the base weight, in its orientation."""
        delta = self._low_rank(name)
        if name in self.lora_magnitude_vector:
            magnitude = cast(DoraMagnitude, self.lora_magnitude_vector[name])
            weight = self._weight().float()
            scale = magnitude.scale(row_norm(weight, delta)).unsqueeze(1)
            delta = (scale - 1.0) * weight + scale * delta
        return delta.T if self.fan_in_fan_out else delta

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """The whole update as one ordinary LoRA; with an origin its rank is ``2r``."""
        A, B = (t.detach() for t in self._pair(name))
        if name in self.lora_origin:
            A, B = (t.detach() for t in self.factors(name))
        state = {"lora_A.weight": A, "lora_B.weight": B}
        if name in self.lora_magnitude_vector:
            magnitude = cast(DoraMagnitude, self.lora_magnitude_vector[name])
            state["lora_magnitude_vector"] = magnitude.weight.detach()
        return state

    def load_adapter_state(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        """Copies tensors; with an origin the second halves have to be this origin."""
        if name not in self.lora_origin:
            return super().load_adapter_state(name, tensors)
        r, origin = self.r[name], cast(Origin, self.lora_origin[name])
        A, B = tensors["lora_A.weight"].float(), tensors["lora_B.weight"].float()
        with torch.no_grad():
            origin.A.copy_(A[r:])
            origin.B.copy_(-B[:, r:])
            own_A, own_B = self._pair(name)
            own_A.copy_(A[:r])
            own_B.copy_(B[:, :r])
            if name in self.lora_magnitude_vector:
                magnitude = cast(DoraMagnitude, self.lora_magnitude_vector[name])
                magnitude.weight.copy_(tensors["lora_magnitude_vector"])
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
            start_A, start_B = factors(self._weight(), r, self.scaling[name], str(init))
            A.weight.data, B.weight.data = start_A.clone(), start_B.clone()
            self.lora_origin[name] = Origin(start_A, start_B).to(device)
        self.lora_A[name] = A.to(device)
        self.lora_B[name] = B.to(device)
        if config.use_dora:
            norm = row_norm(self._weight(), self._low_rank(name))
            self.lora_magnitude_vector[name] = DoraMagnitude(norm)


class Origin(nn.Module):
    """The frozen start ``B_0 A_0`` of an adapter: ``A (r, d_in)``, ``B (d_out, r)``."""

    A: torch.Tensor
    B: torch.Tensor

    def __init__(self, A: torch.Tensor, B: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("A", A)
        self.register_buffer("B", B)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``B_0 A_0 x``, by the same two products as the trained pair: the start is exact."""
        product: torch.Tensor = F.linear(F.linear(x, self.A), self.B)
        return product

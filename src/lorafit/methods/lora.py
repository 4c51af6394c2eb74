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

import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import nn

from lorafit.errors import ConfigError, TargetError
from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, Family, Method, MethodConfig
from lorafit.methods.dora import DoraMagnitude, row_norm
from lorafit.methods.lora_init import olora, orthogonal, pissa
from lorafit.model.sites import Site
from lorafit.model.targets import ALL_LINEAR, select

_INITS = ("gaussian", "orthogonal", "olora", "pissa")


class LoraConfig(MethodConfig):
    """Settings of LoRA, with PEFT's names, meanings and defaults."""

    peft_type: str = "LORA"
    r: int = Field(default=8, gt=0)
    """Rank."""
    lora_alpha: int | float = Field(default=8, gt=0)
    """The update is multiplied by ``lora_alpha / r`` (``/ sqrt(r)`` with ``use_rslora``)."""
    target_modules: set[str] | str | None = None
    """Names, a regular expression that matches whole paths, or ``"all-linear"`` (also ``None``)."""
    exclude_modules: set[str] | str | None = None
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the input of ``A`` only."""
    fan_in_fan_out: bool = False
    """Kept for PEFT's files; the orientation of a weight is read off its layer."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained: none, all of the model's, or the adapted layers'."""
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | str = True
    """``True`` (Kaiming A, zero B), ``"gaussian"``, ``"orthogonal"``, ``"olora"``, ``"pissa"``
    (``"pissa_niter_16"``: fast SVD), or ``False`` (both random: does not start at the base)."""
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Module name or expression to rank, where it differs from ``r``."""
    alpha_pattern: dict[str, float] = Field(default_factory=dict)

    @field_validator("init_lora_weights")
    @classmethod
    def _known_init(cls, value: bool | str) -> bool | str:
        if isinstance(value, str) and value not in _INITS:
            if re.fullmatch(r"pissa_niter_\d+", value):
                return value
            raise ValueError(
                f'"{value}" is not an initialisation; there is True, False, {", ".join(_INITS)}'
            )
        return value

    @field_validator("rank_pattern")
    @classmethod
    def _positive_ranks(cls, value: dict[str, int]) -> dict[str, int]:
        if any(r <= 0 for r in value.values()):
            raise ValueError(f"ranks have to be positive, got {value}")
        return value

    @model_validator(mode="after")
    def _orthogonal_rank(self) -> Self:
        if self.init_lora_weights == "orthogonal" and any(
            r % 2 for r in (self.r, *self.rank_pattern.values())
        ):
            raise ValueError("orthogonal initialisation takes an even r")
        return self

    def rank(self, path: str) -> int:
        """The rank at a module path."""
        return int(_by_pattern(self.rank_pattern, path, self.r))

    def alpha(self, path: str) -> float:
        """``lora_alpha`` at a module path."""
        return _by_pattern(self.alpha_pattern, path, self.lora_alpha)

    def scaling(self, path: str) -> float:
        """The factor ``s`` of the update at a module path."""
        r = self.rank(path)
        return self.alpha(path) / (math.sqrt(r) if self.use_rslora else r)

    @property
    def has_origin(self) -> bool:
        """Whether the start is a non-zero product that is subtracted (``olora``, ``pissa``)."""
        init = self.init_lora_weights
        return isinstance(init, str) and (init == "olora" or init.startswith("pissa"))


def _by_pattern(patterns: dict[str, Any], path: str, default: float) -> float:
    """PEFT's rule: the first pattern that matches the last parts of the path."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return float(value)
    return default


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
        chosen = select(
            model,
            sites,
            target_modules=ALL_LINEAR if config.target_modules is None else config.target_modules,
            exclude_modules=config.exclude_modules,
            layers_to_transform=config.layers_to_transform,
            layers_pattern=config.layers_pattern,
            modules_to_save=config.modules_to_save,
        )
        if config.use_dora and any(s.kind == "embedding" for s in chosen):
            raise TargetError(
                "use_dora is for weight matrices; take the embeddings off the targets."
            )
        for setting in ("rank_pattern", "alpha_pattern"):
            for pattern in getattr(config, setting):
                if not any(re.match(rf"(.*\.)?({pattern})$", s.path) for s in chosen):
                    names = sorted({s.name for s in chosen})
                    raise TargetError(
                        f'{setting}: "{pattern}" matches none of the targets: {", ".join(names)}.'
                    )
        return chosen

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

    def wrap(self, layer: nn.Module, site: Site) -> LoraLayer:
        """Wraps a linear layer, a ``Conv1D`` or an embedding."""
        return LoraEmbedding(layer) if site.kind == "embedding" else LoraLinear(layer, site)


class LoraLayer(AdapterLayer):
    """What LoRA of linear layers and of embeddings have in common."""

    adapter_layer_names: ClassVar[tuple[str, ...]] = (
        "lora_A",
        "lora_B",
        "lora_embedding_A",
        "lora_embedding_B",
        "lora_magnitude_vector",
    )

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.r: dict[str, int] = {}
        self.lora_alpha: dict[str, float] = {}
        self.scaling: dict[str, float] = {}
        self.use_rslora: dict[str, bool] = {}
        self.use_dora: dict[str, bool] = {}
        self.lora_dropout = nn.ModuleDict()
        self.lora_A = nn.ModuleDict()
        self.lora_B = nn.ModuleDict()
        self.lora_embedding_A = nn.ParameterDict()
        self.lora_embedding_B = nn.ParameterDict()
        self.lora_magnitude_vector = nn.ModuleDict()

    def add_adapter(self, name: str, config: MethodConfig, site: Site) -> None:
        """Adds an adapter of the rank and scale the configuration has for this site."""
        config = cast(LoraConfig, config)
        self.r[name] = config.rank(site.path)
        self.lora_alpha[name] = config.alpha(site.path)
        self.scaling[name] = config.scaling(site.path)
        self.use_rslora[name] = config.use_rslora
        self.use_dora[name] = config.use_dora
        p = config.lora_dropout
        self.lora_dropout[name] = nn.Dropout(p) if p > 0.0 else nn.Identity()
        self._initialise(name, config, site)

    @abstractmethod
    def _initialise(self, name: str, config: LoraConfig, site: Site) -> None:
        """Makes the parameters of a new adapter whose settings are already noted."""

    def has_adapter(self, name: str) -> bool:
        """Whether an adapter of this name is here."""
        return name in self.scaling

    def delete_adapter(self, name: str) -> None:
        """Forgets one adapter."""
        for entries in (self.r, self.lora_alpha, self.scaling, self.use_rslora, self.use_dora):
            entries.pop(name, None)
        for attribute in (*self.adapter_layer_names, "lora_dropout", "lora_origin"):
            entries = getattr(self, attribute, {})
            if name in entries:
                del entries[name]

    def set_scale(self, adapter: str, scale: float) -> None:
        """PEFT: ``scale`` times the configured factor."""
        if adapter in self.scaling:
            self.scaling[adapter] = scale * self._configured_scaling(adapter)

    def scale_layer(self, scale: float) -> None:
        """PEFT: multiplies the factor of the active adapters."""
        for name in self.active_adapters:
            if name in self.scaling:
                self.scaling[name] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """PEFT: divides the factor of the active adapters; ``None``: back to the configured one."""
        for name in self.active_adapters:
            if name in self.scaling:
                self.scaling[name] = (
                    self._configured_scaling(name) if scale is None else self.scaling[name] / scale
                )

    def _configured_scaling(self, name: str) -> float:
        r = self.r[name]
        return self.lora_alpha[name] / (math.sqrt(r) if self.use_rslora[name] else r)

    @abstractmethod
    def factors(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """``A (r, d_in)`` and ``B (d_out, r)`` of the update ``s B A``, float32."""


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


class LoraEmbedding(LoraLayer):
    """LoRA around ``nn.Embedding``: a low-rank update of the table ``(vocab, dim)``.

    ``lora_embedding_A[name] (r, vocab)`` starts at zero, ``lora_embedding_B[name] (dim, r)``
    normal. Gemma multiplies its embeddings by ``embed_scale``; so is the update.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Token ids ``(...)`` to ``(..., dim)``."""
        base: torch.Tensor = self.base_layer(x, *args, **kwargs)
        result = base
        for name in self._running():
            A, B = self.lora_embedding_A[name], self.lora_embedding_B[name]
            looked_up = F.embedding(
                x, A.T, padding_idx=cast(nn.Embedding, self.base_layer).padding_idx
            )
            update = (looked_up @ B.T) * self.scaling[name]
            embed_scale = getattr(self.base_layer, "embed_scale", None)
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

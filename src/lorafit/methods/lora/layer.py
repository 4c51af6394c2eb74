"""What LoRA of linear layers and of embeddings have in common: ranks, scales, dropout."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import nn

from lorafit.methods.base import AdapterLayer
from lorafit.methods.lora.config import LoraConfig
from lorafit.methods.lora.magnitude import DoraMagnitude
from lorafit.methods.parts.entries import ModuleDict
from lorafit.model.sites import Site


class LoraLayer(AdapterLayer[LoraConfig]):
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
        self.lora_A: ModuleDict[nn.Linear] = ModuleDict()
        self.lora_B: ModuleDict[nn.Linear] = ModuleDict()
        self.lora_embedding_A = nn.ParameterDict()
        self.lora_embedding_B = nn.ParameterDict()
        self.lora_magnitude_vector: ModuleDict[DoraMagnitude] = ModuleDict()

    def add_adapter(self, name: str, config: LoraConfig, site: Site) -> None:
        """Adds an adapter of the rank and scale the configuration has for this site."""
        self.r[name] = config.rank(site.path)
        self.lora_alpha[name] = config.alpha(site.path)
        self.scaling[name] = config.scaling(site.path)
        self.use_rslora[name] = config.use_rslora
        self.use_dora[name] = config.use_dora
        p = config.lora_dropout
        self.lora_dropout[name] = nn.Dropout(p) if p > 0.0 else nn.Identity()
        self._initialise(name, config, site)

    def saved_names(self, name: str) -> dict[str, str]:
        """As PEFT has them: DoRA's lengths without ``.weight``."""
        vector = "lora_magnitude_vector"
        return {
            path: vector if saved == f"{vector}.weight" else saved
            for path, saved in super().saved_names(name).items()
        }

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

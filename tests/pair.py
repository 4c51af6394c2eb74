"""A tiny model with two adapters that are not zero."""

from __future__ import annotations

from typing import Any

import torch

from lorafit.adapt import Adapters
from lorafit.methods.lora import LoraConfig
from tests import tiny


def two_adapters(family: str = "distilbert", **settings: Any) -> Adapters:
    model = tiny.classifier(family)
    torch.manual_seed(0)
    adapters = Adapters(model)
    for name, seed in (("a", 1), ("b", 2)):
        values: dict[str, Any] = {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": "all-linear",
        } | settings
        adapters.add(LoraConfig(**values), name)
        g = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in adapters.parameters_of(name).values():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return adapters


def logits(adapters: Adapters) -> torch.Tensor:
    return tiny.logits(adapters.model, "distilbert")

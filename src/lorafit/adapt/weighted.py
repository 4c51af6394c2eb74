"""An adapter that is a weighted sum of others (PEFT's ``add_weighted_adapter``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lorafit.adapt import Adapters
from lorafit.adapt.combine import LowRank, SignMethod, combine, new_rank
from lorafit.errors import AdapterError, ConfigError
from lorafit.methods.lora import LoraConfig, LoraLayer


@dataclass(frozen=True)
class WeightedSum:
    """Which adapters are added up, and how.

    Attributes:
        names: LoRA adapters of one model.
        weights: One factor for each; negative ones subtract.
        combination_type: One of `lorafit.adapt.combine.COMBINATION_TYPES`.
        svd_rank: Rank for the svd types; ``None``: the largest of the parts.
        density: Share of the values that the pruning types keep.
        majority_sign_method: Whether values or only their signs vote (ties).
    """

    names: Sequence[str]
    weights: Sequence[float]
    combination_type: str = "svd"
    svd_rank: int | None = None
    density: float | None = None
    majority_sign_method: SignMethod = "total"


@torch.no_grad()
def add_weighted(adapters: Adapters, new: str, wanted: WeightedSum) -> None:
    """Adds a LoRA adapter that is a weighted sum of others; it is not made active.

    Args:
        adapters: Of the model.
        new: Name of the new adapter.
        wanted: The sum.

    Raises:
        AdapterError: The new name is taken; an adapter is unknown, is not plain LoRA, or two of
            them have modules or parameters of their own.
        ConfigError: The type does not exist or does not fit.
    """
    names, weights = wanted.names, wanted.weights
    owners = adapters.owners(names)
    if not names or len(names) != len(weights):
        raise ConfigError(f"{len(names)} adapters need as many weights, got {len(weights)}.")
    configs = {name: _plain_lora(adapters, name) for name in names}
    if len(owners) > 1:
        raise AdapterError(f"{' and '.join(owners)} both have modules or biases of their own.")
    combination_type = "linear" if len(names) == 1 else wanted.combination_type
    ranks = [
        max(c.r, *c.rank_pattern.values(), 0) * (2 if c.has_origin else 1)
        for c in (configs[name] for name in names)
    ]
    rank = new_rank(combination_type, ranks, wanted.svd_rank, wanted.density)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules={site.path for name in names for site in adapters.sites[name]},
        task_type=configs[names[0]].task_type,
        modules_to_save=adapters.whole[owners[0]] or None if owners else None,
        bias=configs[owners[0]].bias if owners else "none",
        inference_mode=True,
    )
    adapters.add(config, new)
    for _, layer in adapters.layers_of(new):
        assert isinstance(layer, LoraLayer)
        updates = [
            LowRank(*layer.factors(name), weight * layer.scaling[name])
            for name, weight in zip(names, weights, strict=True)
            if layer.has_adapter(name)
        ]
        A, B = combine(updates, combination_type, rank, wanted.density, wanted.majority_sign_method)
        keys = list(layer.adapter_state(new))
        layer.load_adapter_state(new, dict(zip(keys, (A, B), strict=True)))
    if owners:
        mine, theirs = adapters.parameters_of(new), adapters.parameters_of(owners[0])
        for path, parameter in theirs.items():
            twin = path.replace(f".modules_to_save.{owners[0]}.", f".modules_to_save.{new}.")
            if twin in mine and ".lora_" not in path:
                mine[twin].copy_(parameter)


def _plain_lora(adapters: Adapters, name: str) -> LoraConfig:
    config = adapters.configs[name]
    if not isinstance(config, LoraConfig) or config.use_dora:
        raise AdapterError(f'"{name}" is not plain LoRA; only plain LoRA can be combined.')
    return config

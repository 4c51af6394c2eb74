"""An adapter that is a weighted sum of others (PEFT's ``add_weighted_adapter``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lorafit.adapt import Adapters
from lorafit.adapt.combine import LowRank, SignMethod, combine, new_rank
from lorafit.errors import AdapterError, ConfigError
from lorafit.methods.lora import LoraConfig, LoraLayer


@torch.no_grad()
def add_weighted(
    adapters: Adapters,
    new: str,
    names: Sequence[str],
    weights: Sequence[float],
    combination_type: str = "svd",
    svd_rank: int | None = None,
    density: float | None = None,
    majority_sign_method: SignMethod = "total",
) -> None:
    """Adds a LoRA adapter that is a weighted sum of others; it is not made active.

    Args:
        adapters: Of the model.
        new: Name of the new adapter.
        names: LoRA adapters of this model.
        weights: One factor for each; negative ones subtract.
        combination_type: One of `lorafit.adapt.combine.COMBINATION_TYPES`.
        svd_rank: Rank for the svd types; ``None``: the largest of the parts.
        density: Share of the values that the pruning types keep.
        majority_sign_method: Whether values or only their signs vote (ties).

    Raises:
        AdapterError: The new name is taken; an adapter is unknown, is not plain LoRA, is not
            finite, or two of them have modules or parameters of their own. The model is then
            as it was.
        ConfigError: The type does not exist or does not fit.
    """
    owners = adapters.owners(names)
    if not names or len(names) != len(weights):
        raise ConfigError(f"{len(names)} adapters need as many weights, got {len(weights)}.")
    configs = {name: _plain_lora(adapters, name) for name in names}
    if len(owners) > 1:
        raise AdapterError(f"{' and '.join(owners)} both have modules or biases of their own.")
    if len(names) == 1:
        combination_type = "linear"
    # Patterns give layers ranks of their own: the new one has room for the largest everywhere,
    # and what a layer does not fill is zero. So one scale holds, which every server can compute.
    rank = max(
        new_rank(combination_type, ranks, svd_rank, density)
        for ranks in _ranks(adapters, names).values()
    )
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
    try:
        for path, layer in adapters.layers_of(new):
            assert isinstance(layer, LoraLayer)
            updates = [
                LowRank(*layer.factors(name), layer.scaling[name], weight)
                for name, weight in zip(names, weights, strict=True)
                if layer.has_adapter(name)
            ]
            if not all(torch.isfinite(part).all() for u in updates for part in (u.A, u.B)):
                raise AdapterError(  # noqa: TRY301 the new adapter goes below
                    f"{path} has values that are not finite in {', '.join(names)}."
                )
            A, B = combine(updates, combination_type, rank, density, majority_sign_method)
            keys = list(layer.adapter_state(new))
            layer.load_adapter_state(new, dict(zip(keys, (A, B), strict=True)))
        if owners:
            mine, theirs = adapters.parameters_of(new), adapters.parameters_of(owners[0])
            for path, parameter in theirs.items():
                twin = path.replace(f".modules_to_save.{owners[0]}.", f".modules_to_save.{new}.")
                if twin in mine and ".lora_" not in path:
                    mine[twin].copy_(parameter)
    except Exception:
        adapters.delete(new)
        raise


def _ranks(adapters: Adapters, names: Sequence[str]) -> dict[str, list[int]]:
    """The ranks that adapters have at each layer, an origin's included."""
    found: dict[str, list[int]] = {}
    for name in names:
        for path, layer in adapters.layers_of(name):
            assert isinstance(layer, LoraLayer)
            found.setdefault(path, []).append(layer.factors(name)[0].shape[0])
    return found


def _plain_lora(adapters: Adapters, name: str) -> LoraConfig:
    config = adapters.configs[name]
    if (
        not isinstance(config, LoraConfig)
        or config.use_dora
        or config.target_parameters
        or config.trainable_token_indices
    ):
        raise AdapterError(f'"{name}" is not plain LoRA; only plain LoRA can be combined.')
    return config

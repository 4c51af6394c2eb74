"""An adapter as a file has it, added to a model that need not have all that the file names."""

from __future__ import annotations

from typing import Any

import torch

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, ConfigError, LorafitError, TargetError
from lorafit.export.peft_config import plain
from lorafit.export.peft_tensors import PREFIX
from lorafit.export.peft_update import misfit, update
from lorafit.methods.base import MethodConfig
from lorafit.methods.lora import LoraConfig
from lorafit.model import expressions


def attach(
    adapters: Adapters,
    config: MethodConfig,
    tensors: dict[str, torch.Tensor],
    name: str,
    *,
    source: str,
) -> None:
    """Adds an adapter with these tensors, or leaves the model as it was.

    Args:
        adapters: The adapters of a model.
        config: The adapter's configuration.
        tensors: Its tensors, named as in PEFT's files.
        name: What to call it here.
        source: What to call it in messages.

    Raises:
        AdapterError: It does not fit the model.
    """
    if isinstance(config, LoraConfig) and str(config.init_lora_weights).startswith("pissa_niter"):
        raise AdapterError(
            f"{source} was saved relative to a base that a random SVD changed "
            f"(init_lora_weights={config.init_lora_weights}), which cannot be repeated; convert it "
            "with PEFT's `path_initial_model_for_weight_conversion`."
        )
    fitted = _fitted(adapters, config, tensors)
    _check_sizes(adapters, fitted, tensors, source)
    first = not adapters.configs
    # Initialisation draws random numbers, which here are only overwritten.
    with torch.random.fork_rng(devices=[]):
        try:
            _add(adapters, fitted, name, _adapted(tensors))
        except ConfigError as error:
            raise misfit(config, source, str(error)) from None
    try:
        update(adapters, tensors, name, source=source)
    except LorafitError:
        adapters.delete(name)
        if first:
            adapters.unload()
        raise


def _add(adapters: Adapters, config: MethodConfig, name: str, adapted: set[str]) -> None:
    """Adds the adapter; where a name of its selection is stale, by the layers in its file."""
    try:
        adapters.add(config, name)
    except TargetError:
        here = {plain(path): path for path in adapters.paths}
        if not adapted or not adapted <= here.keys():
            raise
        selection = {
            "target_modules": {here[path] for path in adapted},
            "exclude_modules": None,
            "layers_to_transform": None,
            "layers_pattern": None,
        }
        adapters.add(config.model_copy(update=selection), name)


_SIZES = ("encoder_hidden_size", "nonzero", "num_virtual_tokens", "r", "rank_pattern")
"""Settings of methods that say how large tensors are."""


def _check_sizes(
    adapters: Adapters, config: MethodConfig, tensors: dict[str, torch.Tensor], source: str
) -> None:
    """Refuses a configuration that asks for more than the file holds, before it is allocated.

    What asks for less is found when the tensors are compared.

    Raises:
        AdapterError: It does.
    """
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    for setting in _SIZES:
        value = getattr(config, setting, None)
        for size in value.values() if isinstance(value, dict) else [value]:
            if isinstance(size, int) and size > max(largest, _SMALL):
                problem = f"{setting} is {size:,}, and no tensor of the file is as large"
                raise misfit(config, source, problem)
    if not isinstance(config, LoraConfig) or config.target_parameters:
        return
    stored = {
        key.removeprefix(PREFIX).removesuffix(end): tensor.shape[0]
        for key, tensor in tensors.items()
        for end in (".lora_A.weight", ".lora_embedding_A")
        if key.endswith(end) and tensor.ndim
    }
    highest = max([_SMALL, *stored.values()])
    try:
        chosen = [plain(site.path) for site in adapters.selected(config)]
    except ConfigError:
        chosen = []  # stale names: then it is the file's layers that are adapted
    for path in {*chosen, *stored}:
        rank = config.rank(path)
        if rank > max(highest, stored.get(path, 0)):
            has = f"rank {stored[path]}" if path in stored else "no tensors for it"
            raise misfit(config, source, f"{path} is to have rank {rank:,}, and the file has {has}")


_SMALL = 1024
"""Sizes up to here are allocated and then compared, which says more about what is wrong."""


def _fitted(
    adapters: Adapters, config: MethodConfig, tensors: dict[str, torch.Tensor]
) -> MethodConfig:
    """The configuration without entries that mean nothing here.

    PEFT does not mind modules, patterns or biases that are not there (it lists both
    ``classifier`` and ``score`` for every classifier), so its files have them. Dropping
    them is safe: the tensors are compared strictly afterwards.
    """
    values: dict[str, Any] = {}
    if config.modules_to_save:
        names = dict.fromkeys(config.modules_to_save)
        values["modules_to_save"] = [
            n for n in names if any(p.endswith(n) for p in adapters.paths)
        ] or None
    if not isinstance(config, LoraConfig):
        return config.model_copy(update=values)
    adapted = _adapted(tensors)
    where = adapted if config.bias == "lora_only" else {plain(path) for path in adapters.paths}
    biases = {plain(name) for name in adapters.names if name.endswith(".bias")}
    if not any(f"{path}.bias" in biases for path in where):
        values["bias"] = "none"
    for setting in ("rank_pattern", "alpha_pattern"):
        values[setting] = {
            pattern: value
            for pattern, value in getattr(config, setting).items()
            if config.target_parameters or any(expressions.names(pattern, path) for path in adapted)
        }
    return config.model_copy(update=values)


def _adapted(tensors: dict[str, torch.Tensor]) -> set[str]:
    """Paths of the layers that a file has adapters for."""
    return {key.removeprefix(PREFIX).split(".lora_")[0] for key in tensors if ".lora_" in key}

"""An adapter as a file has it, added to a model that need not have all that the file names."""

from __future__ import annotations

import re
from typing import Any

import torch

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, ConfigError, LorafitError, TargetError
from lorafit.export.peft_config import plain
from lorafit.export.peft_tensors import PREFIX
from lorafit.export.peft_update import misfit, update
from lorafit.methods.base import MethodConfig
from lorafit.methods.lora import LoraConfig


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
    first = not adapters.configs
    # Initialisation draws random numbers, which here are only overwritten.
    with torch.random.fork_rng(devices=[]):
        try:
            _add(adapters, _fitted(adapters, config, tensors), name, _adapted(tensors))
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
            if config.target_parameters
            or any(re.match(rf"(.*\.)?({pattern})$", path) for path in adapted)
        }
    return config.model_copy(update=values)


def _adapted(tensors: dict[str, torch.Tensor]) -> set[str]:
    """Paths of the layers that a file has adapters for."""
    return {key.removeprefix(PREFIX).split(".lora_")[0] for key in tensors if ".lora_" in key}

"""Adapter tensors in and out of a model, under PEFT's names."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.export import peft as on_disk
from lorafit.export.peft import PREFIX, SaveEmbeddings
from lorafit.peft.tuner import LoraModel, adapters_of


class LoadResult(NamedTuple):
    """What did not match when tensors were loaded."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def get_peft_model_state_dict(
    model: nn.Module,
    state_dict: dict[str, torch.Tensor] | None = None,
    adapter_name: str = "default",
    unwrap_compiled: bool = False,
    save_embedding_layers: SaveEmbeddings = "auto",
) -> dict[str, torch.Tensor]:
    """One adapter's tensors as they are saved, the adapter's name not in the keys.

    Args:
        model: A `PeftModel`, or a model with injected adapters (keys then have no prefix).
        state_dict: Take the values from this state of the model (a trainer that shards
            the model gathers one); ``None``: from the model.
        adapter_name: Which adapter.
        unwrap_compiled: Look inside a model that ``torch.compile`` wrapped.
        save_embedding_layers: Include the embeddings' base weights; see `lorafit.export`.
    """
    if unwrap_compiled:
        model = getattr(model, "_orig_mod", model)
    adapters = adapters_of(model)
    tensors = on_disk.tensors_of(
        adapters, adapter_name, save_embedding_layers=save_embedding_layers
    )
    wrapped = _is_wrapped(model)
    if state_dict is not None:
        given = {_without_name(key, adapter_name): value for key, value in state_dict.items()}
        prefix = "" if wrapped else PREFIX
        tensors = {
            key: given.get(key.removeprefix(prefix), tensor) for key, tensor in tensors.items()
        }
    return tensors if wrapped else {k.removeprefix(PREFIX): v for k, v in tensors.items()}


def set_peft_model_state_dict(
    model: nn.Module,
    peft_model_state_dict: dict[str, torch.Tensor],
    adapter_name: str = "default",
    ignore_mismatched_sizes: bool = False,
    low_cpu_mem_usage: bool = False,
) -> LoadResult:
    """Copies tensors into an adapter. As in PEFT, some may be missing; see the result.

    (Loading an adapter from a folder is strict.)

    Raises:
        AdapterError: A shape differs, unless ``ignore_mismatched_sizes``.
    """
    adapters = adapters_of(model)
    return load_some(adapters, peft_model_state_dict, adapter_name, ignore_mismatched_sizes)


def load_some(
    adapters: Adapters,
    tensors: dict[str, torch.Tensor],
    name: str,
    ignore_mismatched_sizes: bool = False,
) -> LoadResult:
    """Copies those tensors that the adapter has."""
    own = on_disk.tensors_of(adapters, name, save_embedding_layers=False)
    given = {key if key.startswith(PREFIX) else PREFIX + key: v for key, v in tensors.items()}
    if ignore_mismatched_sizes:
        given = {k: v for k, v in given.items() if k not in own or own[k].shape == v.shape}
    missing = [key for key in own if key not in given]
    unexpected = [key for key in given if key not in own]
    fitting = {key: given.get(key, own[key]) for key in own}
    on_disk.update(adapters, fitting, name, source="the state dict")
    return LoadResult(missing, unexpected)


def _is_wrapped(model: nn.Module) -> bool:
    return isinstance(getattr(model, "base_model", None), LoraModel)


def _without_name(key: str, name: str) -> str:
    """A key of the model's state as it is saved: ``lora_A.default.weight`` is ``lora_A.weight``."""
    key = key.replace(f".modules_to_save.{name}.", ".")
    for part in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"):
        key = key.replace(f".{part}.{name}", f".{part}")
    return key.replace(f".lora_magnitude_vector.{name}.weight", ".lora_magnitude_vector")

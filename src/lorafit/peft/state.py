"""Adapter tensors in and out of a model, under PEFT's names."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError
from lorafit.export import peft as on_disk
from lorafit.export.peft import PREFIX, SaveEmbeddings
from lorafit.methods.lora import LoraConfig
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
            the model gathers one; a compiled model has one); ``None``: from the model.
        adapter_name: Which adapter.
        unwrap_compiled: Look inside a model that ``torch.compile`` wrapped.
        save_embedding_layers: Include the embeddings' base weights; see `lorafit.export`.

    Raises:
        AdapterError: There is no such adapter, or the state is of another model.
    """
    if unwrap_compiled:
        model = getattr(model, "_orig_mod", model)
    adapters = adapters_of(model)
    tensors = on_disk.tensors_of(
        adapters, adapter_name, save_embedding_layers=save_embedding_layers
    )
    wrapped = _is_wrapped(model)
    if state_dict:
        tensors = _values_of(adapters, adapter_name, tensors, state_dict, PREFIX if wrapped else "")
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


def _values_of(
    adapters: Adapters,
    name: str,
    tensors: dict[str, torch.Tensor],
    state: dict[str, torch.Tensor],
    prefix: str,
) -> dict[str, torch.Tensor]:
    """An adapter's tensors with the values of a state of the whole model.

    Raises:
        AdapterError: The state is not one of this model: a parameter of the adapter is missing.
    """
    given = {on_disk.plain(key): value for key, value in state.items()}
    found = {}
    for live, saved in adapters.saved_names(name).items():
        key = prefix + on_disk.plain(live)
        if key not in given:
            got = next(iter(state))
            raise AdapterError(
                f"state_dict has no {key}: it is not a state of this model, whose names are like "
                f'this one (the first there is "{got}"). Give what `model.state_dict()` returns, '
                "or leave state_dict out."
            )
        found[on_disk.plain(saved)] = given[key]
    config = adapters.configs[name]
    if isinstance(config, LoraConfig) and config.has_origin:
        own = {on_disk.plain(key): value for key, value in adapters.state_dict(name).items()}
        on_disk.add_origins(found, own)
    # Weights of the base that are saved along may be left out of a state, where tied.
    return {
        key: found.get(
            key.removeprefix(PREFIX), given.get(key.removeprefix(PREFIX[len(prefix) :]), t)
        )
        for key, t in tensors.items()
    }


def get_base_model_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The base model's state under its own names, without anything of the adapters.

    While adapters are merged too, these are the weights of the base.
    """
    return adapters_of(model).base_state()


def set_base_model_state_dict(
    model: nn.Module, state_dict: dict[str, torch.Tensor], strict: bool = True
) -> LoadResult:
    """Loads weights, named as in the plain model, into the base below the adapters.

    Args:
        model: A `PeftModel`, or a model with injected adapters. No adapter may be merged.
        state_dict: The plain model's state.
        strict: Refuse a state in which names are missing or unexpected.

    Raises:
        AdapterError: The state does not fit, or an adapter is merged; nothing is changed then.
    """
    adapters = adapters_of(model)
    own = adapters.base_state()
    missing = [key for key in own if key not in state_dict]
    unexpected = [key for key in state_dict if key not in own]
    if strict and (missing or unexpected):
        problems = [f"missing: {key}" for key in missing]
        problems += [f"unexpected: {key}" for key in unexpected]
        raise AdapterError(
            "the state is not one of this base model; strict=False loads what fits:\n"
            + "\n".join(problems)
        )
    adapters.load_base_state({key: value for key, value in state_dict.items() if key in own})
    return LoadResult(missing, unexpected)

"""What the adapters of a model are doing: PEFT's layer and model status."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import nn

from lorafit.errors import AdapterError
from lorafit.methods.base import AdapterLayer, ModulesToSaveWrapper
from lorafit.peft.tuner import adapters_of

T = TypeVar("T", bound=Hashable)
Irregular = Literal["irregular"]


@dataclass
class TunerLayerStatus:
    """One layer: fields as in PEFT."""

    name: str
    module_type: str
    enabled: bool
    active_adapters: list[str]
    merged_adapters: list[str]
    requires_grad: dict[str, bool | Irregular]
    available_adapters: list[str]
    devices: dict[str, list[str]]
    quantization_backend: str | None = None


@dataclass
class TunerModelStatus:
    """All layers together: fields as in PEFT; ``"irregular"`` where layers disagree."""

    base_model_type: str
    adapter_model_type: str
    peft_types: dict[str, str]
    trainable_params: int
    total_params: int
    num_adapter_layers: int
    enabled: bool | Irregular
    active_adapters: list[str] | Irregular
    merged_adapters: list[str] | Irregular
    requires_grad: dict[str, bool | Irregular]
    available_adapters: list[str]
    devices: dict[str, list[str]]
    quantization_backend: str | None = None


def get_layer_status(model: nn.Module) -> list[TunerLayerStatus]:
    """The state of each adapted layer and of each module trained whole.

    Raises:
        AdapterError: The model has no adapters.
    """
    adapters = adapters_of(model)
    found = []
    for path, module in adapters.model.named_modules():
        if not isinstance(module, AdapterLayer | ModulesToSaveWrapper):
            continue
        parameters = _by_adapter(module)
        found.append(
            TunerLayerStatus(
                name=f"model.{path}",
                module_type=type(module).__name__,
                enabled=not module.disable_adapters,
                active_adapters=list(module.active_adapters),
                merged_adapters=list(getattr(module, "merged_adapters", [])),
                requires_grad={
                    name: _common([p.requires_grad for p in own])
                    for name, own in parameters.items()
                },
                available_adapters=sorted(parameters),
                devices={
                    name: sorted({p.device.type for p in own}) for name, own in parameters.items()
                },
            )
        )
    if not found:
        raise AdapterError("no adapted layers: all adapters have been deleted or unloaded.")
    return found


def get_model_status(model: nn.Module) -> TunerModelStatus:
    """The state of the adapters as a whole.

    Raises:
        AdapterError: The model has no adapters.
    """
    layers = get_layer_status(model)
    adapters = adapters_of(model)
    parameters = list(model.parameters())
    names = sorted({name for layer in layers for name in layer.available_adapters})
    merged = sorted({name for layer in layers for name in layer.merged_adapters})
    partly = any(
        (set(layer.available_adapters) - set(layer.merged_adapters)) & set(merged)
        for layer in layers
        if layer.module_type != ModulesToSaveWrapper.__name__
    )
    active = _common([tuple(layer.active_adapters) for layer in layers])
    return TunerModelStatus(
        base_model_type=type(adapters.model).__name__,
        adapter_model_type="None" if model is adapters.model else "LoraModel",
        peft_types={name: str(config.peft_type) for name, config in adapters.configs.items()},
        trainable_params=sum(p.numel() for p in parameters if p.requires_grad),
        total_params=sum(p.numel() for p in parameters),
        num_adapter_layers=len(layers),
        enabled=_common([layer.enabled for layer in layers]),
        active_adapters="irregular" if active == "irregular" else list(active),
        merged_adapters="irregular" if partly else merged,
        requires_grad={
            name: _common([la.requires_grad[name] for la in layers if name in la.requires_grad])
            for name in names
        },
        available_adapters=names,
        devices={
            name: sorted({d for layer in layers for d in layer.devices.get(name, [])})
            for name in names
        },
    )


def _by_adapter(module: AdapterLayer | ModulesToSaveWrapper) -> dict[str, list[nn.Parameter]]:
    """The parameters of each adapter in one module."""
    attributes: Iterable[str] = (
        module.adapter_layer_names if isinstance(module, AdapterLayer) else ("modules_to_save",)
    )
    found: dict[str, list[nn.Parameter]] = {}
    for attribute in attributes:
        entries: Any = getattr(module, attribute)
        for name, entry in entries.items():
            own = [entry] if isinstance(entry, nn.Parameter) else list(entry.parameters())
            found.setdefault(name, []).extend(own)
    return found


def _common(values: list[T]) -> T | Irregular:
    """The value that all have."""
    return values[0] if len(set(values)) == 1 else "irregular"

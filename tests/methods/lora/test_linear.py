"""What a linear layer with LoRA computes, and what it costs."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lorafit.adapt import Adapters
from lorafit.methods.lora import DoraLinear, LoraConfig, LoraLinear

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def adapted(**settings: Any) -> Adapters:
    """A layer of 6 to 4 with one adapter of rank 2, moved away from its start."""
    torch.manual_seed(0)
    adapters = Adapters(nn.Sequential(nn.Linear(6, 4)))
    adapters.add(LoraConfig(r=2, lora_alpha=6, target_modules={"0"}, **settings))
    move(adapters, "default")
    return adapters


def move(adapters: Adapters, name: str) -> None:
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapters.parameters_of(name).values():
            parameter.add_(torch.randn(parameter.shape, generator=g))


def layer_of(adapters: Adapters) -> LoraLinear:
    [(_, layer)] = adapters.layers_of("default")
    assert isinstance(layer, LoraLinear)
    return layer


class Kernels(TorchDispatchMode):
    """Counts what is computed; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_the_layer_computes_the_formula() -> None:
    layer: Any = layer_of(adapted())
    W, b = layer.base_layer.weight, layer.base_layer.bias
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(layer(X), X @ W.T + b + 6 / 2 * (X @ A.T @ B.T))


def test_one_adapter_costs_two_products_a_scaling_and_a_sum() -> None:
    adapters = adapted()
    with torch.no_grad(), Kernels() as kernels:
        adapters.model(X)
    assert kernels.calls == {"addmm": 1, "mm": 2, "mul": 1, "add": 1}


def test_a_dora_adapter_joins_a_plain_one_and_leaves_what_that_computes() -> None:
    adapters = adapted()
    plain = adapters.model(X)
    adapters.add(LoraConfig(r=3, use_dora=True, target_modules={"0"}), "dora")
    move(adapters, "dora")
    layer = layer_of(adapters)
    assert type(layer) is DoraLinear
    assert torch.equal(adapters.model(X), plain)
    adapters.set(["default", "dora"])
    both = adapters.model(X)
    assert not torch.allclose(both, plain)
    assert torch.equal(copy.deepcopy(adapters).model(X), both)
    adapters.delete("dora")
    adapters.set("default")
    assert torch.equal(adapters.model(X), plain)


def test_dora_gives_each_row_its_trained_length() -> None:
    adapters = adapted(use_dora=True)
    layer = layer_of(adapters)
    m = layer.lora_magnitude_vector["default"].weight
    adapters.merge()
    torch.testing.assert_close(layer.weight.norm(dim=1), m.abs())


def test_the_lengths_of_dora_are_saved_under_the_name_that_the_state_has() -> None:
    adapters = adapted(use_dora=True)
    layer = adapters.model.get_submodule("0")
    assert isinstance(layer, DoraLinear)
    assert layer.saved_names("default") == {
        "lora_A.default.weight": "lora_A.weight",
        "lora_B.default.weight": "lora_B.weight",
        "lora_magnitude_vector.default.weight": "lora_magnitude_vector",
    }
    state, parameters = layer.adapter_state("default"), layer.parameters_of("default")
    for path, saved in layer.saved_names("default").items():
        assert torch.equal(state[saved], parameters[path])

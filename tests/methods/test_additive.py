from __future__ import annotations

import pytest
import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.errors import ConfigError, TargetError
from lorafit.methods.bottleneck import BottleneckConfig
from lorafit.methods.ia3 import IA3Config
from tests import tiny

IA3_TARGETS = {
    "bert": {"key", "value", "output.dense"},
    "distilbert": {"k_lin", "v_lin", "lin2"},
    "gpt2": {"c_attn", "c_proj"},
    "llama": {"k_proj", "v_proj", "down_proj"},
    "t5": {"k", "v", "wo"},
}


@pytest.mark.parametrize("family", IA3_TARGETS)
def test_ia3_finds_keys_values_and_mlp_outputs(family: str) -> None:
    adapters = Adapters(tiny.classifier(family))
    sites = adapters.add(IA3Config())
    names = {s.path.split(".", -1)[-1] for s in sites}
    assert names == {name.rpartition(".")[2] for name in IA3_TARGETS[family]}
    assert {s.role for s in sites} == {"attention", "mlp"}
    inputs = adapters.configs["default"].feedforward_modules
    assert inputs == {s.path for s in sites if s.role == "mlp"}
    assert not [path for path in inputs if "attn" in path or "attention" in path.lower()]


def test_several_ia3_adapters_multiply_live_and_merged() -> None:
    model = tiny.classifier("bert")
    adapters = Adapters(model)
    g = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        adapters.add(IA3Config(), name)
        with torch.no_grad():
            for parameter in adapters.parameters_of(name).values():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=g))
    adapters.set(["a", "b"])
    live = tiny.logits(model, "bert")
    adapters.merge(["a"])
    adapters.merge(["b"])
    torch.testing.assert_close(tiny.logits(model, "bert"), live, rtol=1e-5, atol=1e-5)
    adapters.unload()
    assert torch.equal(tiny.logits(model, "bert"), tiny.logits(tiny.classifier("bert"), "bert"))


def test_ia3_targets_that_are_not_there_are_an_error() -> None:
    with pytest.raises(TargetError, match=r"no layer of .* is called"):
        Adapters(tiny.classifier("bert")).add(IA3Config(target_modules={"keyy"}))
    with pytest.raises(ConfigError, match="none of the targets"):
        Adapters(tiny.classifier("bert")).add(
            IA3Config(target_modules={"key"}, feedforward_modules={"value"})
        )


PLACES = {
    "bert": ["attention.output.dense", "output.dense"],
    "distilbert": ["attention.out_lin", "ffn.lin2"],
    "gpt2": ["attn.c_proj", "mlp.c_proj"],
    "llama": ["self_attn.o_proj", "mlp.down_proj"],
}


@pytest.mark.parametrize("family", PLACES)
def test_houlsby_has_two_adapters_a_block_and_pfeiffer_one(family: str) -> None:
    for placement, places in (("houlsby", PLACES[family]), ("pfeiffer", PLACES[family][1:])):
        sites = Adapters(tiny.classifier(family)).add(BottleneckConfig(placement=placement))
        assert len(sites) == 3 * len(places)
        assert all(any(s.path.endswith(place) for place in places) for s in sites)


def test_t5_has_an_adapter_after_each_of_its_five_sublayers() -> None:
    sites = Adapters(tiny.classifier("t5")).add(BottleneckConfig())
    assert len(sites) == 2 * 2 + 2 * 3
    assert {s.name for s in sites} == {"o", "wo"}


def test_a_bottleneck_adapter_computes_its_formula() -> None:
    adapters = Adapters(tiny.classifier("bert"))
    [site, *_] = adapters.add(BottleneckConfig(non_linearity="relu"))
    layer = adapters.model.get_submodule(site.path)
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.copy_(torch.randn(parameter.shape))
        x = torch.randn(5, site.d_in)
        h = layer.base_layer(x)
        down, up = layer.adapter_down["default"], layer.adapter_up["default"]
        expected = h + torch.relu(h @ down.weight.T + down.bias) @ up.weight.T + up.bias
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("config", [IA3Config(), BottleneckConfig()])
def test_a_model_without_blocks_is_refused(config: IA3Config | BottleneckConfig) -> None:
    with pytest.raises(ConfigError, match="finds no blocks"):
        Adapters(nn.Sequential(nn.Linear(3, 3))).add(config)

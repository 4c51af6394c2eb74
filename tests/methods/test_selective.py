from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, ConfigError, TargetError
from lorafit.methods.bitfit import BitfitConfig
from lorafit.methods.full import FullConfig
from lorafit.methods.head import HeadConfig
from lorafit.methods.last_layers import LastLayersConfig
from lorafit.methods.layernorm import LayerNormConfig
from lorafit.methods.sparse import SparseConfig
from tests import tiny


def test_the_backward_pass_ends_at_the_lowest_trained_block() -> None:
    model: Any = tiny.classifier("bert")
    Adapters(model).add(LastLayersConfig(k=1, modules_to_save=["classifier"]))
    needs: dict[int, bool] = {}
    for index, block in enumerate(model.bert.encoder.layer):
        block.register_forward_hook(
            lambda _m, _a, output, index=index: needs.__setitem__(
                index, (output[0] if isinstance(output, tuple) else output).requires_grad
            )
        )
    model(**tiny.inputs("bert"))
    assert needs == {0: False, 1: False, 2: True}


def test_more_last_layers_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"k is 4, but .* has 3 blocks"):
        Adapters(tiny.classifier("bert")).add(LastLayersConfig(k=4))


def test_the_last_layers_of_a_language_model_leave_its_output_embedding_frozen() -> None:
    for family in ("llama", "gpt2"):
        adapters = Adapters(tiny.language_model(family))
        adapters.add(LastLayersConfig(k=1))
        assert not [n for n in adapters.trainable() if "lm_head" in n or "wte" in n]


def test_tied_weights_stay_tied_while_they_are_trained_and_afterwards() -> None:
    model: Any = tiny.language_model("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    original = model.lm_head.weight
    adapters = Adapters(model)
    adapters.add(FullConfig())
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.lm_head.weight is not original
    with adapters.disabled():
        assert model.lm_head.weight is original
    adapters.unload()
    assert model.lm_head.weight is original
    assert model.transformer.wte.weight is original


def test_excluded_modules_stay_frozen_and_a_misspelt_one_is_an_error() -> None:
    adapters = Adapters(tiny.classifier("bert"))
    adapters.add(FullConfig(exclude_modules={"embeddings", "pooler"}))
    names = list(adapters.trainable())
    assert names
    assert not [n for n in names if "embeddings" in n or "pooler" in n]
    with pytest.raises(TargetError, match=r'exclude_modules: .*"embedings".*mean "embeddings"'):
        Adapters(tiny.classifier("bert")).add(FullConfig(exclude_modules={"embedings"}))


def test_bitfit_of_some_modules() -> None:
    adapters = Adapters(tiny.classifier("bert"))
    adapters.add(BitfitConfig(target_modules={"query", "intermediate"}))
    assert {n.split(".")[-2] for n in adapters.trainable()} == {"query", "dense"}
    assert len(adapters.trainable()) == 6


def test_layernorm_finds_rms_norms_and_leaves_batch_norms() -> None:
    adapters = Adapters(tiny.classifier("llama"))
    adapters.add(LayerNormConfig())
    assert {n.split(".")[-2] for n in adapters.trainable()} == {
        "input_layernorm",
        "post_attention_layernorm",
        "norm",
    }
    plain = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ConfigError, match="has none"):
        Adapters(plain).add(LayerNormConfig())


def test_head_only_takes_the_models_own_head_or_says_there_is_none() -> None:
    adapters = Adapters(tiny.classifier("bert"))
    adapters.add(HeadConfig())
    assert list(adapters.trainable()) == ["classifier.weight", "classifier.bias"]
    with pytest.raises(ConfigError, match="no head of its own"):
        Adapters(tiny.language_model("gpt2")).add(HeadConfig())


def test_two_adapters_with_parameters_of_their_own_take_turns() -> None:
    model = tiny.classifier("bert")
    base = tiny.logits(model, "bert")
    adapters = Adapters(model)
    adapters.add(BitfitConfig(), "a")
    adapters.add(FullConfig(), "b")
    with pytest.raises(AdapterError, match="only one of them can be active"):
        adapters.set(["a", "b"])
    seen = {}
    for name in ("a", "b"):
        adapters.set(name)
        with torch.no_grad():
            for parameter in adapters.trainable().values():
                parameter.add_(0.05)
        seen[name] = tiny.logits(model, "bert")
    adapters.set("a")
    assert torch.equal(tiny.logits(model, "bert"), seen["a"])
    assert not torch.equal(seen["a"], seen["b"])
    assert set(adapters.trainable()) == {n for n, p in model.named_parameters() if p.requires_grad}
    adapters.unload()
    assert torch.equal(tiny.logits(model, "bert"), base)


def test_parameters_inside_a_merged_layer_are_not_swapped() -> None:
    from lorafit.methods.lora import LoraConfig

    adapters = Adapters(tiny.classifier("bert"))
    adapters.add(LoraConfig(target_modules={"query"}), "lora")
    adapters.add(FullConfig(), "full")
    adapters.set(["lora", "full"])
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.add_(0.01)
    live = tiny.logits(adapters.model, "bert")
    adapters.merge()
    torch.testing.assert_close(tiny.logits(adapters.model, "bert"), live, rtol=1e-5, atol=1e-5)
    with pytest.raises(AdapterError, match="unmerge before"):
        adapters.set("lora")
    adapters.unmerge()
    assert torch.equal(tiny.logits(adapters.model, "bert"), live)


def calibrated(density: float = 0.01) -> tuple[Adapters, dict[str, torch.Tensor]]:
    """A sparse adapter, and the gradients it was chosen by."""
    model = tiny.classifier("bert")

    def backward() -> None:
        model(**tiny.inputs("bert"), labels=torch.tensor([0, 1, 2])).loss.backward()

    backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    adapters = Adapters(model)
    adapters.add(SparseConfig(density=density, modules_to_save=["classifier"]))
    adapters.calibrate(backward)
    return adapters, gradients


def test_sparse_takes_the_largest_gradients_of_all_layers_together() -> None:
    adapters, gradients = calibrated()
    sites = adapters.sites["default"]
    sizes = [gradients[f"{s.path}.weight"].abs().flatten() for s in sites]
    budget = round(0.01 * sum(len(size) for size in sizes))
    threshold = torch.cat(sizes).topk(budget).values[-1]
    counts = adapters.configs["default"].model_dump()["nonzero"]
    assert len(set(counts.values())) > 1
    for site, size in zip(sites, sizes, strict=True):
        layer: Any = adapters.model.get_submodule(site.path)
        chosen = set(layer.adapter_state("default")["sparse_indices"].tolist())
        expected = set((size >= threshold).nonzero().flatten().tolist())
        assert chosen == expected or (not expected and len(chosen) == 1)
        assert len(chosen) == counts[site.path]


def test_calibration_leaves_no_gradients_and_nothing_of_the_base_trainable() -> None:
    adapters, _ = calibrated()
    assert all(p.grad is None for p in adapters.model.parameters())
    assert {id(p) for p in adapters.model.parameters() if p.requires_grad} == {
        id(p) for p in adapters.trainable().values()
    }
    assert torch.equal(
        tiny.logits(adapters.model, "bert"), tiny.logits(tiny.classifier("bert"), "bert")
    )


def test_the_gradient_of_the_values_is_that_of_the_weights_at_their_places() -> None:
    adapters, gradients = calibrated()
    adapters.model(**tiny.inputs("bert"), labels=torch.tensor([0, 1, 2])).loss.backward()
    for site in adapters.sites["default"]:
        layer: Any = adapters.model.get_submodule(site.path)
        indices = layer.adapter_state("default")["sparse_indices"].long()
        expected = gradients[f"{site.path}.weight"].flatten()[indices]
        torch.testing.assert_close(layer.sparse_values["default"].grad, expected)

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, TargetError
from lorafit.methods.lora import LoraConfig
from tests import tiny
from tests.pair import logits, two_adapters


def test_only_the_active_adapter_computes_and_trains() -> None:
    adapters = two_adapters()
    assert adapters.active == ["a"]
    first = logits(adapters)
    adapters.set("b")
    second = logits(adapters)
    assert not torch.allclose(first, second)
    assert set(adapters.trainable()) == {
        n for n, p in adapters.model.named_parameters() if p.requires_grad
    }
    assert all(".b." in name for name in adapters.trainable())
    adapters.set("a")
    assert torch.equal(logits(adapters), first)


def test_several_active_adapters_add_up_live_and_merged() -> None:
    adapters = two_adapters()
    adapters.set(["a", "b"])
    live = logits(adapters)
    deltas = {
        id(layer): layer.delta_weight("a") + layer.delta_weight("b") for layer in adapters.layers()
    }
    before = {id(layer): layer.weight.clone() for layer in adapters.layers()}
    adapters.merge(["a"])
    adapters.merge(["b"])
    for layer in adapters.layers():
        torch.testing.assert_close(layer.weight, before[id(layer)] + deltas[id(layer)])
    torch.testing.assert_close(logits(adapters), live, rtol=1e-5, atol=1e-5)


def test_deleting_the_active_adapter_activates_one_that_is_left() -> None:
    adapters = two_adapters()
    adapters.set("b")
    second = logits(adapters)
    adapters.set("a")
    adapters.delete("a")
    assert adapters.active == ["b"]
    assert torch.equal(logits(adapters), second)
    assert not any(".a." in name for name, _ in adapters.model.named_parameters())


def test_merging_an_embedding_does_not_change_the_layer_it_is_tied_to() -> None:
    model: Any = tiny.language_model("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    adapters = Adapters(model)
    adapters.add(LoraConfig(target_modules={"wte"}))
    with torch.no_grad():
        adapters.parameters_of("default")["transformer.wte.lora_embedding_A.default"].normal_()
    head = model.lm_head.weight.clone()
    live = tiny.logits(model, "gpt2")
    adapters.merge()
    assert torch.equal(model.lm_head.weight, head)
    torch.testing.assert_close(tiny.logits(model, "gpt2"), live, rtol=1e-5, atol=1e-5)


def test_safe_merge_refuses_weights_that_are_not_finite_and_leaves_the_model_unmerged() -> None:
    adapters = two_adapters()
    last: Any = list(adapters.layers())[-1]
    with torch.no_grad():
        last.lora_B["a"].weight[0, 0] = torch.nan
    before = [layer.weight.clone() for layer in adapters.layers()]
    with pytest.raises(AdapterError, match="not finite"):
        adapters.merge(safe_merge=True)
    assert adapters.merged == []
    assert all(torch.equal(x.weight, w) for x, w in zip(adapters.layers(), before, strict=True))


def test_two_heads_cannot_be_active_at_once() -> None:
    adapters = Adapters(tiny.classifier("distilbert"))
    adapters.add(LoraConfig(modules_to_save=["classifier"]), "a")
    adapters.add(LoraConfig(modules_to_save=["classifier"]), "b")
    with pytest.raises(AdapterError, match="only one of them"):
        adapters.set(["a", "b"])
    assert adapters.active == ["a"]


def test_a_failed_add_leaves_the_model_untouched() -> None:
    model = tiny.classifier("distilbert")
    names = list(model.state_dict())
    adapters = Adapters(model)
    with pytest.raises(ValueError, match="q_proj"):
        adapters.add(LoraConfig(target_modules={"q_lin", "q_proj"}))
    with pytest.raises(ValueError, match="no module"):
        adapters.add(LoraConfig(modules_to_save=["klassifier"]))
    assert list(model.state_dict()) == names
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("there", [False, True])
def test_a_start_that_cannot_be_computed_leaves_nothing_behind(there: bool) -> None:
    model = tiny.classifier("gpt2")
    adapters = Adapters(model)
    if there:
        adapters.add(LoraConfig(target_modules={"c_attn"}), "a")
    names = list(model.state_dict())
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    before = tiny.logits(model, "gpt2")
    bad = LoraConfig(target_modules={"wte", "c_attn", "c_proj"}, init_lora_weights="pissa")
    with pytest.raises(TargetError, match="is an embedding"):
        adapters.add(bad.model_copy(update={"modules_to_save": ["score"], "bias": "all"}), "b")
    assert list(model.state_dict()) == names
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
    assert list(adapters.configs) == ["a"] * there
    adapters.add(LoraConfig(target_modules={"wte", "c_attn"}), "b")
    assert torch.equal(tiny.logits(model, "gpt2"), before)


def test_tensors_that_do_not_fit_are_listed_and_nothing_is_copied() -> None:
    adapters = two_adapters()
    before = {k: v.clone() for k, v in adapters.state_dict("a").items()}
    tensors = {k: v + 1 for k, v in before.items()}
    first, second, *_ = tensors
    del tensors[first]
    tensors[second] = torch.zeros(1, 1)
    tensors["elsewhere.lora_A.weight"] = torch.zeros(1)
    with pytest.raises(AdapterError) as caught:
        adapters.load_state_dict("a", tensors)
    for part in (f"missing: {first}", "unexpected: elsewhere", f"shape of {second}: (1, 1)"):
        assert part in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in adapters.state_dict("a").items())


def test_scales_follow_alpha_and_rank() -> None:
    adapters = Adapters(tiny.classifier("distilbert"))
    adapters.add(
        LoraConfig(r=4, lora_alpha=8, rank_pattern={"q_lin": 2}, alpha_pattern={"v_lin": 2})
    )
    scale = {
        site.name: cast(Any, adapters.model.get_submodule(site.path)).scaling["default"]
        for site in adapters.sites["default"]
    }
    assert (scale["k_lin"], scale["q_lin"], scale["v_lin"]) == (2.0, 4.0, 0.5)

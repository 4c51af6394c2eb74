"""Names of PEFT's that scripts ask for: there, or said not to be."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import peft
import pytest
import torch

import lorafit.peft as api
from lorafit.errors import AdapterError, ConfigError
from tests import tiny


def test_what_is_not_there_is_no_attribute_and_says_why() -> None:
    for name in ("AdaLoraConfig", "X", "nonsense"):
        assert not hasattr(api, name)
        assert getattr(api, name, None) is None
    with pytest.raises(AttributeError, match=r"has no AdaLoraConfig: .*from peft"):
        _ = api.AdaLoraConfig
    with pytest.raises(ImportError, match=r"has no AdaLoraConfig: .*from peft"):
        from lorafit.peft import AdaLoraConfig  # noqa: F401
    with pytest.raises(ImportError, match="nonsense"):
        from lorafit.peft import nonsense  # noqa: F401


def configured(**settings: Any) -> api.PeftModel:
    values = {"r": 2, "target_modules": ["c_attn", "wte"], "init_lora_weights": False} | settings
    torch.manual_seed(0)
    return api.get_peft_model(tiny.classifier("gpt2"), api.LoraConfig(**values))


def test_configurations_are_dataclasses_to_those_who_ask() -> None:
    config = api.LoraConfig(r=3, target_modules=["a"], rank_pattern={"a": 2})
    other = dataclasses.replace(config, r=5, lora_alpha=7)
    assert (other.r, other.lora_alpha, other.target_modules) == (5, 7, {"a"})
    assert config.r == 3
    assert dataclasses.replace(config) == config
    assert dataclasses.asdict(config) == config.to_dict()
    assert {f.name for f in dataclasses.fields(config)} == set(config.to_dict())
    with pytest.raises(ConfigError, match="r=0"):
        dataclasses.replace(config, r=0)
    with pytest.raises(ConfigError, match="no setting rr"):
        dataclasses.replace(config, rr=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("task", [None, "SEQ_CLS"])
def test_the_state_of_the_base_is_that_of_the_plain_model(task: str | None) -> None:
    model = configured(task_type=task, bias="all")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    expected = tiny.classifier("gpt2").state_dict()
    for _ in range(2):
        state = api.get_base_model_state_dict(model)
        assert list(state) == list(expected)
        assert all(torch.equal(value, expected[key]) for key, value in state.items())
        model.merge_adapter()
    theirs = peft.get_peft_model(
        tiny.classifier("gpt2"),
        peft.LoraConfig(target_modules=["c_attn"], task_type=task, fan_in_fan_out=True),
    )
    assert peft.utils.get_base_model_state_dict(theirs).keys() == state.keys()


@pytest.mark.parametrize("settings", [{}, {"task_type": "SEQ_CLS", "bias": "all"}])
def test_the_base_takes_a_state_of_the_plain_model(settings: dict[str, Any]) -> None:
    other = tiny.classifier("gpt2", seed=5)
    model = configured(**settings)
    adapter = {k: v.clone() for k, v in api.get_peft_model_state_dict(model).items()}
    result = api.set_base_model_state_dict(model, other.state_dict())
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    state = api.get_base_model_state_dict(model)
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())
    kept = api.get_peft_model_state_dict(model)
    assert all(torch.equal(value, kept[key]) for key, value in adapter.items())
    with model.disable_adapter():
        assert torch.equal(tiny.logits(model, "gpt2"), tiny.logits(other, "gpt2"))


def test_a_state_that_does_not_fit_the_base_changes_nothing() -> None:
    model = configured()
    before = {k: v.clone() for k, v in api.get_base_model_state_dict(model).items()}
    state = {key: value + 1.0 for key, value in before.items()}
    few = {"score.weight": state["score.weight"], "x": torch.zeros(1)}
    with pytest.raises(AdapterError, match=r"(?s)missing: transformer\.wte.*unexpected: x"):
        api.set_base_model_state_dict(model, few)
    with pytest.raises(AdapterError, match=r"shape of score\.weight: \(2,\)"):
        api.set_base_model_state_dict(model, state | {"score.weight": torch.zeros(2)})
    model.merge_adapter()
    with pytest.raises(AdapterError, match="merged"):
        api.set_base_model_state_dict(model, state)
    model.unmerge_adapter()
    after = api.get_base_model_state_dict(model)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    result = api.set_base_model_state_dict(model, few, strict=False)
    assert result.unexpected_keys == ["x"]
    assert set(result.missing_keys) == set(before) - {"score.weight"}
    changed = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert changed == {"score.weight"}


def test_layers_know_their_widths() -> None:
    model: Any = configured().get_base_model()
    assert (model.transformer.wte.in_features, model.transformer.wte.out_features) == (99, 32)
    layer = model.transformer.h[0].attn.c_attn
    assert (layer.in_features, layer.out_features) == (32, 96)


def test_layers_are_switched_one_by_one() -> None:
    model = configured(task_type="SEQ_CLS")
    model.add_adapter("b", api.LoraConfig(target_modules=["c_attn"], init_lora_weights=False))
    both = tiny.logits(model, "gpt2")
    layers: list[Any] = [m for m in model.modules() if isinstance(m, api.BaseTunerLayer)]
    wrappers: list[Any] = [m for m in model.modules() if isinstance(m, api.ModulesToSaveWrapper)]
    assert layers
    assert wrappers
    for module in [*layers, *wrappers]:
        module.enable_adapters(False)
        assert not any(p.requires_grad for p in module.parameters())
    assert torch.equal(tiny.logits(model, "gpt2"), tiny.logits(tiny.classifier("gpt2"), "gpt2"))
    for module in [*layers, *wrappers]:
        module.enable_adapters(True)
    assert torch.equal(tiny.logits(model, "gpt2"), both)
    base: Any = model.get_base_model()
    c_attn = base.transformer.h[0].attn.c_attn
    c_attn.set_adapter("b")
    assert c_attn.active_adapters == ["b"]
    trained = {n for n, p in c_attn.named_parameters() if p.requires_grad}
    assert trained == {"lora_A.b.weight", "lora_B.b.weight"}
    c_attn.set_adapter(["default", "b"], inference_mode=True)
    assert not any(p.requires_grad for p in c_attn.parameters())
    one = copy.deepcopy(c_attn)
    x = torch.randn(2, 32)
    base = one.base_layer(x)
    deltas = one.get_delta_weight("default") + one.get_delta_weight("b")
    torch.testing.assert_close(one(x), base + x @ deltas)
    wrappers[0].set_adapter("nobody")
    assert wrappers[0].current is wrappers[0].original_module

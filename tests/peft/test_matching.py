"""Names in settings mean modules of the plain model, whatever adapters are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import lorafit.peft as api
from lorafit.adapt import Adapters
from lorafit.methods.lora import LoraConfig
from tests import tiny

NAMES = [
    "sentiment_classifier",
    "classifier",
    "risk_score",
    "score",
    "dense",
    "query",
    "lora_A",
    "base_layer",
    "original_module",
    "modules_to_save",
    "weight",
]


def config() -> api.LoraConfig:
    return api.LoraConfig(r=4, task_type="SEQ_CLS", target_modules=["query"])


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_may_be_called_like_the_head(tmp_path: Path, name: str) -> None:
    model = api.get_peft_model(tiny.classifier("bert"), config(), adapter_name=name)
    count = model.get_nb_trainable_parameters()
    model.add_adapter("topic", config())
    model.set_adapter("topic")
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all(".topic." in name for name in trained)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    expected = tiny.logits(model, "bert")
    assert model.get_nb_trainable_parameters()[0] == count[0]
    model.save_pretrained(tmp_path)
    plain = api.get_peft_model(tiny.classifier("bert"), config())
    plain.save_pretrained(tmp_path / "plain")
    keys = [
        load_file(tmp_path / x / "adapter_model.safetensors").keys() for x in ("topic", "plain")
    ]
    assert keys[0] == keys[1]
    loaded = api.PeftModel.from_pretrained(tiny.classifier("bert"), tmp_path / "topic", name)
    loaded.load_adapter(tmp_path / "topic", "again")
    for each in (name, "again"):
        loaded.set_adapter(each)
        assert torch.equal(tiny.logits(loaded, "bert"), expected)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.inner(x))
        return result


def test_modules_to_save_are_not_looked_for_inside_adapters() -> None:
    model = api.get_peft_model(Net(), api.LoraConfig(target_modules=["inner"]), adapter_name="one")
    plain = model(torch.ones(1, 4))
    model.add_adapter("two", api.LoraConfig(target_modules=["inner"], modules_to_save=["out"]))
    assert torch.equal(model(torch.ones(1, 4)), plain)
    assert model.base_model.adapters.whole["two"] == ["out"]


HEADS = [
    {"target_modules": ["query"], "modules_to_save": ["classifier"]},
    {"target_modules": ["query"], "modules_to_save": ["classifier.dense"]},
    {"target_modules": ["query"], "modules_to_save": ["out_proj"]},
    {"target_modules": ["query", "classifier.dense"]},
    {"target_modules": ["classifier.out_proj"], "bias": "lora_only"},
]


@pytest.mark.parametrize("second", HEADS)
@pytest.mark.parametrize("first", HEADS)
def test_adapters_do_not_see_what_others_do_to_the_same_head(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    def changed(adapters: Adapters, name: str) -> None:
        adapters.set(name)
        with torch.no_grad():
            for parameter in adapters.parameters_of(name).values():
                parameter.copy_(0.02 * torch.arange(parameter.numel()).view_as(parameter).cos())

    def alone(settings: dict[str, Any]) -> tuple[torch.Tensor, list[tuple[str, torch.Size]]]:
        adapters = Adapters(tiny.classifier("roberta"))
        adapters.add(LoraConfig(**settings), "x")
        changed(adapters, "x")
        state = adapters.state_dict("x")
        return tiny.logits(adapters.model, "roberta"), [(k, v.shape) for k, v in state.items()]

    model = tiny.classifier("roberta")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plain = tiny.logits(model, "roberta")
    adapters = Adapters(model)
    for name, settings in (("one", first), ("two", second)):
        adapters.add(LoraConfig(**settings), name)
        changed(adapters, name)
    for name, settings in (("one", first), ("two", second)):
        expected, keys = alone(settings)
        adapters.set(name)
        assert torch.equal(tiny.logits(model, "roberta"), expected)
        assert not torch.allclose(expected, plain)
        assert [(k, v.shape) for k, v in adapters.state_dict(name).items()] == keys
        parameters = dict(model.named_parameters())
        assert all(parameters[k] is p for k, p in adapters.parameters_of(name).items())
        adapters.merge()
        torch.testing.assert_close(tiny.logits(model, "roberta"), expected)
        adapters.unmerge()
    with adapters.disabled():
        assert torch.equal(tiny.logits(model, "roberta"), plain)
    adapters.unload()
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

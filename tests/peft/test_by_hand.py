"""What a script sets by hand stays: frozen parameters, and its own configuration objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lorafit.peft as api
from tests import tiny


def config(**settings: object) -> api.LoraConfig:
    values: dict[str, object] = {"r": 4, "target_modules": ["q_proj"]}
    return api.LoraConfig(**(values | settings))


def frozen_by_hand() -> tuple[api.PeftModel, dict[str, bool]]:
    """A model with an adapter of which only the B train, and an inactive one of which all do."""
    model = api.get_peft_model(tiny.language_model("llama"), config())
    model.add_adapter("other", config(target_modules=["v_proj"]))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_B.default." in name or ".other." in name)
    return model, {name: p.requires_grad for name, p in model.named_parameters()}


def load(model: api.PeftModel, folder: Path) -> None:
    api.get_peft_model(tiny.language_model("llama"), config()).save_pretrained(folder)
    model.load_adapter(folder, "loaded")


CHANGES: dict[str, Callable[[Any, Path], object]] = {
    "add": lambda m, folder: m.add_adapter("new", config(bias="none")),
    "add_with_a_head": lambda m, folder: m.add_adapter("new", config(modules_to_save=["lm_head"])),
    "load": load,
    "load_into": lambda m, folder: (m.save_pretrained(folder), m.load_adapter(folder, "default")),
    "weighted": lambda m, folder: m.add_weighted_adapter(["default"], [0.5], "new"),
    "add_and_delete": lambda m, folder: (m.add_adapter("x", config()), m.delete_adapter("x")),
    "merge_and_unmerge": lambda m, folder: (m.merge_adapter(), m.unmerge_adapter()),
    "disable": lambda m, folder: (
        m.base_model.disable_adapter_layers(),
        m.base_model.enable_adapter_layers(),
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_requires_grad_set_by_hand_stays(
    tmp_path: Path, change: Callable[[api.PeftModel, Path], object]
) -> None:
    model, before = frozen_by_hand()
    change(model, tmp_path)
    after = {name: p.requires_grad for name, p in model.named_parameters()}
    assert {name: after[name] for name in before if name in after} == {
        name: value for name, value in before.items() if name in after
    }
    assert sum(name in after for name in before) >= len(before) - 1  # the head got a wrapper
    assert not any(value for name, value in after.items() if name not in before)


def test_setting_an_adapter_makes_all_of_it_train_as_in_peft() -> None:
    model, _ = frozen_by_hand()
    model.set_adapter("default")
    trained = {name.split("lora_")[1] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"A.default.weight", "B.default.weight"}


def test_deleting_the_active_adapter_trains_only_the_one_that_takes_its_place() -> None:
    model, _ = frozen_by_hand()
    model.base_model.set_adapter(["default", "other"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_B.other." in name)
    with pytest.warns(UserWarning, match="was active which is now deleted"):
        model.delete_adapter("default")
    assert {n.split("lora_")[1] for n, p in model.named_parameters() if p.requires_grad} == {
        "B.other.weight"
    }


@pytest.mark.parametrize("task", [None, "SEQ_CLS"])
def test_a_configuration_is_not_changed_by_use(tmp_path: Path, task: str | None) -> None:
    given = config(target_modules=None, task_type=task, base_model_name_or_path="someone/base")
    before = given.model_copy(deep=True)
    families = ("bert", "gpt2")
    for family in families:
        base = tiny.classifier(family)
        base.name_or_path = "someone/base"
        model = api.get_peft_model(base, given, revision="v2")
        assert given == before
        assert model.peft_config["default"].revision == "v2"
        model.add_adapter("second", given)
        api.inject_adapter_in_model(given, tiny.classifier(family))
        api.LoraModel(tiny.classifier(family), given)
        model.save_pretrained(tmp_path / family)
        api.PeftModel.from_pretrained(
            tiny.classifier(family), tmp_path / family, config=given, is_trainable=True
        )
        assert given == before
    # And what it says later does not change the adapters that are there.
    kept = model.peft_config["default"].model_copy(deep=True)
    given.r = 2
    given.rank_pattern["c_attn"] = 1
    assert model.peft_config["default"] == kept
    assert model.peft_config["default"] is not model.peft_config["second"]


def test_a_configuration_given_to_load_is_not_changed(tmp_path: Path) -> None:
    model = api.get_peft_model(tiny.language_model("llama"), config())
    model.save_pretrained(tmp_path)
    given = api.LoraConfig.from_pretrained(tmp_path)
    given.inference_mode = False
    loaded = api.PeftModel.from_pretrained(tiny.language_model("llama"), tmp_path, config=given)
    assert not given.inference_mode
    assert loaded.peft_config["default"].inference_mode
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(tiny.logits(loaded, "llama"), tiny.logits(model, "llama"))

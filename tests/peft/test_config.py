"""PEFT's configuration classes: what they take, refuse and write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest

import lorafit.peft as api
from lorafit.errors import AdapterError, ConfigError


def test_all_defaults_are_those_of_peft() -> None:
    mine, theirs = api.LoraConfig().to_dict(), peft.LoraConfig().to_dict()
    assert {key: theirs[key] for key in mine} == mine


def test_every_option_of_peft_is_accepted_while_it_is_off() -> None:
    theirs = peft.LoraConfig().to_dict()
    assert api.LoraConfig(**theirs).to_dict().items() <= theirs.items()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"use_qalora": True}, "use_qalora=True: lorafit does not have this PEFT option"),
        ({"loftq_config": {"loftq_bits": 4}}, "loftq_config"),
        ({"target_parameters": ["x"], "use_dora": True}, "target_parameters takes plain LoRA"),
        ({"lora_alfa": 3}, 'no setting lora_alfa. Did you mean "lora_alpha"'),
        ({"r": 0}, "r=0: .*greater than 0"),
        ({"r": "x"}, "r='x'"),
        ({"bias": "some"}, "bias='some'"),
        ({"task_type": "SEQ"}, "task_type='SEQ'"),
        ({"init_lora_weights": "eva"}, "eva"),
        ({"target_modules": "q.*", "layers_to_transform": 1}, "layers_to_transform cannot be used"),
        ({"target_modules": ["q"], "layers_pattern": "h"}, "needs layers_to_transform"),
    ],
)
def test_wrong_settings_are_one_clear_line(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        api.LoraConfig(**option)
    assert len(str(caught.value)) < 200


def test_lists_become_sets_as_in_peft() -> None:
    for given in (["q", "v"], ("q", "v"), {"q", "v"}):
        assert api.LoraConfig(target_modules=given).target_modules == {"q", "v"}
    assert api.LoraConfig(target_modules="q|v").target_modules == "q|v"


def test_saved_configurations_are_read_by_both(tmp_path: Path) -> None:
    config = api.LoraConfig(r=3, target_modules=["b", "a"], task_type="CAUSAL_LM")
    config.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "adapter_config.json").read_text())
    assert fields["target_modules"] == ["a", "b"]
    theirs = peft.PeftConfig.from_pretrained(str(tmp_path))
    assert (theirs.r, theirs.target_modules, theirs.task_type) == (3, {"a", "b"}, "CAUSAL_LM")
    assert api.PeftConfig.from_pretrained(tmp_path) == config
    assert type(api.PeftConfig.from_pretrained(tmp_path)) is api.LoraConfig
    peft.LoraConfig(r=5).save_pretrained(str(tmp_path))
    again = api.LoraConfig.from_pretrained(tmp_path)
    assert isinstance(again, api.LoraConfig)
    assert again.r == 5


def test_configurations_from_dictionaries() -> None:
    config = api.get_peft_config({"peft_type": "LORA", "r": 2})
    assert (type(config), config.r) == (api.LoraConfig, 2)
    with pytest.raises(AdapterError, match="IA3"):
        api.get_peft_config({"peft_type": "IA3"})


def test_it_is_not_prompt_learning() -> None:
    config = api.LoraConfig()
    assert not config.is_prompt_learning
    assert not config.is_adaption_prompt
    assert isinstance(config, api.PeftConfig)

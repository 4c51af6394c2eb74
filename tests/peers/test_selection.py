"""The same settings adapt the same layers and train the same modules as in peft."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
import transformers as hf

import lorafit.peft as ours_api
from tests import tiny
from tests.peers.pair import LM_TASK, TARGETS, base

SELECTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "all_linear": {"target_modules": "all-linear"},
    "blocks": {"target_modules": "TARGETS", "layers_to_transform": [0, 1]},
    "one_block": {"target_modules": "TARGETS", "layers_to_transform": 1},
    "blocks_and_a_whole_path": {"target_modules": "OUTSIDE", "layers_to_transform": [1]},
    "without": {"target_modules": "all-linear", "exclude_modules": "FIRST"},
    "without_block": {"target_modules": "TARGETS", "exclude_modules": r".*\.0\..*"},
    "expression": {"target_modules": r".*\.1\..*(q|query|q_lin|q_proj|c_attn)"},
    "paths": {"target_modules": "PATH"},
}


def filled(family: str, values: dict[str, Any], path: str) -> dict[str, Any]:
    words = {"TARGETS": TARGETS[family], "FIRST": TARGETS[family][:1], "PATH": [path]}
    words["OUTSIDE"] = [TARGETS[family][0], path]
    return {
        key: words.get(value, value) if isinstance(value, str) else value
        for key, value in values.items()
    }


def selected(api: Any, family: str, task: str | None, values: dict[str, Any]) -> tuple[Any, ...]:
    model = base(family, task)
    path = next(p for p, _ in model.named_modules() if p.endswith(f".{TARGETS[family][0]}"))
    config = api.LoraConfig(
        task_type=task, fan_in_fan_out=family == "gpt2", **filled(family, values, path)
    )
    wrapped = api.get_peft_model(model, config)
    trained = {name for name, p in wrapped.named_parameters() if p.requires_grad}
    return sorted(wrapped.base_model.targeted_module_names), trained


# peft has no default for DistilBERT, and refuses a LoRA in its pre_classifier, which
# "classifier" in modules_to_save also means.
ONLY_OURS = {
    ("distilbert", "default", None),
    ("distilbert", "default", "SEQ_CLS"),
    ("distilbert", "all_linear", "SEQ_CLS"),
    ("distilbert", "without", "SEQ_CLS"),
}


def cases() -> list[tuple[str, str, str | None]]:
    found: list[tuple[str, str, str | None]] = []
    for family in tiny.FAMILIES:
        tasks = [None, "SEQ_CLS"]
        if family in ("gpt2", "llama", "qwen2", "qwen3", "t5"):
            tasks.append(LM_TASK.get(family, "CAUSAL_LM"))
        found += [(family, name, task) for name in SELECTIONS for task in tasks]
    return [case for case in found if case not in ONLY_OURS]


# "all-linear" takes in Conv1D and Linear of GPT-2, of which peft wants to be told.
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")
@pytest.mark.parametrize(("family", "name", "task"), cases())
def test_selection_is_that_of_peft(family: str, name: str, task: str | None) -> None:
    values = SELECTIONS[name]
    assert selected(ours_api, family, task, values) == selected(peft, family, task, values)


def test_distilbert_works_where_peft_refuses() -> None:
    targets, _ = selected(ours_api, "distilbert", "SEQ_CLS", {})
    assert {path.rpartition(".")[2] for path in targets} == {"q_lin", "v_lin"}
    targets, trained = selected(ours_api, "distilbert", "SEQ_CLS", {"target_modules": "all-linear"})
    assert len(targets) == 18
    assert "base_model.model.pre_classifier.modules_to_save.default.weight" in trained


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_printed_parameter_counts_are_those_of_peft(
    family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for api in (ours_api, peft):
        config = api.LoraConfig(
            r=3,
            target_modules=TARGETS[family],
            task_type="SEQ_CLS",
            fan_in_fan_out=family == "gpt2",
        )
        api.get_peft_model(tiny.classifier(family), config).print_trainable_parameters()
    mine, other = capsys.readouterr().out.splitlines()
    assert mine == other


def test_the_classic_printout(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.device("meta"):
        model = hf.DistilBertForSequenceClassification(hf.DistilBertConfig())
    config = ours_api.LoraConfig(
        r=8,
        lora_alpha=32,
        target_modules=["q_lin", "v_lin"],
        lora_dropout=0.05,
        bias="none",
        task_type=ours_api.TaskType.SEQ_CLS,
    )
    ours_api.get_peft_model(model, config).print_trainable_parameters()
    assert capsys.readouterr().out.strip() == (
        "trainable params: 739,586 || all params: 67,694,596 || trainable%: 1.0925"
    )

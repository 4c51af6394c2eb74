"""An adapter from anywhere is loaded, or refused in one line: soon, and whatever it says."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import lorafit
from lorafit import peft
from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, DivergenceError, ModelError
from lorafit.pipeline import facts
from lorafit.run import atomic
from tests.faults import finished
from tests.faults.finished import edit, outcome
from tests.faults.mutants import deep, mutants

TEXTS = ["a great film", "an awful plot"]
SOON_S = 10.0
"""A bomb that goes off takes for ever; all of this takes a second on an idle machine."""

BOMBS = [
    "([a-z.0-9]+)+!",
    "(.*)*!",
    "((a|[a-z.])+)+!",
    "(.*.*.*.*.*.*.*.*)!",
    "(?:([a-z]+\\.?)+)+!",
    "(a?){50}(.?){50}!",
    "(.{1,50}){1,50}!",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    return finished.copied(made, tmp_path / "run") / "adapter"


def base(made: Path) -> Any:
    return hf.AutoModelForSequenceClassification.from_pretrained(made.parents[1] / "base")


def _update(change: dict[str, Any], values: dict[str, Any]) -> None:
    values.update(change)


CALLS: dict[str, Callable[[Path, Path], Any]] = {
    "load": lambda made, adapter: lorafit.load(adapter),
    "PeftModel": lambda made, adapter: peft.PeftModel.from_pretrained(base(made), adapter),
    "shrink": lambda made, adapter: lorafit.shrink(adapter, 2, out=adapter.parent / "shrunk"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "setting",
    ["target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern"],
)
def test_an_expression_never_takes_for_ever(
    call: str, setting: str, made: Path, adapter: Path
) -> None:
    for bomb in BOMBS:
        value: Any = {bomb: 4} if setting.endswith("_pattern") else bomb
        value = [bomb] if setting == "layers_pattern" else value
        change = {setting: value, "layers_to_transform": [0]}
        edit(adapter / "adapter_config.json", functools.partial(_update, change))
        began = time.monotonic()
        outcome(lambda: CALLS[call](made, adapter))
        assert time.monotonic() - began < SOON_S, bomb
        edit(adapter / "adapter_config.json", lambda values: values.update({setting: None}))


@pytest.mark.parametrize("call", CALLS)
def test_an_expression_that_is_none_is_an_adapter_error(
    call: str, made: Path, adapter: Path
) -> None:
    for bad in ("(", "a**", "\\9", "(?P<x>a)(?P=x)", "x" * 10_000 + "+"):
        change = {"rank_pattern": {bad: 4}}
        edit(adapter / "adapter_config.json", functools.partial(_update, change))
        assert isinstance(outcome(lambda: CALLS[call](made, adapter)), AdapterError), bad


SIZES: list[dict[str, Any]] = [
    {"r": 10_000_000},
    {"r": 10**9},
    {"r": 10**400},
    {"rank_pattern": {"q_lin": 10**7}},
    {"rank_pattern": {".*": 10**8}},
    {"target_modules": ["q_lin", "v_lin", "lin1"], "r": 10**6, "rank_pattern": {"q_lin|v_lin": 4}},
]


@pytest.mark.parametrize("said", SIZES, ids=str)
@pytest.mark.parametrize("call", ["load", "PeftModel"])
def test_a_size_beyond_the_files_is_refused_before_it_is_allocated(
    call: str,
    said: dict[str, Any],
    made: Path,
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edit(adapter / "adapter_config.json", lambda values: values.update(said))
    monkeypatch.setattr(Adapters, "_wrap", lambda *_: pytest.fail("layers were made"))
    assert isinstance(outcome(lambda: CALLS[call](made, adapter)), AdapterError)


def test_a_rank_of_a_tensor_that_is_large_for_another_reason_is_refused(adapter: Path) -> None:
    """A head with many rows lets no rank through that no factor has."""
    file = adapter / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.x": torch.zeros(1, 2_000_000)}, file)
    edit(adapter / "adapter_config.json", lambda values: values.update(r=1_000_000))
    with pytest.raises(AdapterError, match="rank 1,000,000"):
        lorafit.load(adapter)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("call", CALLS)
def test_weights_that_are_not_finite_are_refused(
    call: str, value: float, made: Path, adapter: Path
) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    key = sorted(tensors)[3]
    tensors[key].view(-1)[1] = value
    save_file(tensors, file)
    refused = outcome(lambda: CALLS[call](made, adapter))
    assert isinstance(refused, AdapterError)
    assert key in str(refused)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool])
@pytest.mark.parametrize("call", CALLS)
def test_weights_that_are_no_fractions_are_refused(
    call: str, dtype: torch.dtype, made: Path, adapter: Path
) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file({key: tensor.to(dtype) for key, tensor in load_file(file).items()}, file)
    refused = outcome(lambda: CALLS[call](made, adapter))
    assert isinstance(refused, AdapterError)
    assert str(dtype).removeprefix("torch.") in str(refused)


@pytest.mark.parametrize(
    "said",
    [
        {"lora_alpha": 1e308},
        {"lora_alpha": math.inf},
        {"lora_alpha": math.nan},
        {"lora_alpha": -8},
        {"alpha_pattern": {"q_lin": math.inf}},
        {"alpha_pattern": {"q_lin": -1.0}},
        {"lora_alpha": 10**400},
    ],
    ids=str,
)
@pytest.mark.parametrize("call", CALLS)
def test_a_scale_that_is_no_number_is_refused(
    call: str, said: dict[str, Any], made: Path, adapter: Path
) -> None:
    edit(adapter / "adapter_config.json", lambda values: values.update(said))
    refused = outcome(lambda: CALLS[call](made, adapter))
    assert isinstance(refused, AdapterError)
    assert "alpha" in str(refused)


def test_what_is_not_finite_is_no_prediction(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file({key: tensor * 0 + 3e38 for key, tensor in load_file(file).items()}, file)
    with pytest.raises(DivergenceError, match="2 of 2 texts"):
        lorafit.predict(adapter, TEXTS)


def test_json_has_no_number_that_is_not_finite() -> None:
    values = {"a": math.nan, "b": [math.inf, 1.5, (-math.inf, "é")], "c": {"d": math.nan}}
    text = atomic.plain_json(values)
    assert json.loads(text) == {"a": None, "b": [None, 1.5, [None, "é"]], "c": {"d": None}}
    assert "é" in text


@pytest.mark.parametrize("name", ["adapter_config.json", "lorafit.json"])
@pytest.mark.parametrize("content", [deep(50_000), '{"r": ' + "9" * 6_000 + "}", "", "[]", "1"])
def test_json_that_cannot_be_read_is_an_adapter_error(
    name: str, content: str, adapter: Path
) -> None:
    (adapter / name).write_text(content, encoding="utf-8")
    refused = outcome(lambda: lorafit.load(adapter))
    assert isinstance(refused, AdapterError)
    assert name in str(refused)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", {"name": "no_such"}),
        ("task", 7),
        ("max_length", 0),
        ("max_length", 2**70),
        ("seed", 2**32),
        ("seed", -1),
        ("model", {"name_or_path": 5}),
        ("model.trust_remote_code", "yes"),
        ("generate", {"max_new_tokens": "many"}),
    ],
)
def test_the_field_of_lorafit_json_that_is_wrong_is_named(
    field: str, value: Any, adapter: Path
) -> None:
    def change(values: dict[str, Any]) -> None:
        section, _, name = field.partition(".")
        if name:
            values[section][name] = value
        else:
            values[section] = value

    edit(adapter / "lorafit.json", change)
    with pytest.raises(AdapterError, match=field.partition(".")[0]):
        lorafit.load(adapter)


def test_a_file_of_a_later_version_may_say_more(adapter: Path) -> None:
    edit(adapter / "lorafit.json", lambda values: values.update(later={"x": 1}))
    assert len(lorafit.predict(adapter, TEXTS)) == 2


def test_damaged_lorafit_json_is_loaded_or_refused(adapter: Path) -> None:
    """400 mutants: an error of ours that says which file, or a model that predicts."""
    file = adapter / "lorafit.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    loaded = 0
    for mutant in mutants(whole, 400, seed=0):
        file.write_bytes(mutant)
        refused = outcome(lambda: facts.read(adapter))
        if refused is not None:
            assert isinstance(refused, AdapterError)
            assert "lorafit.json" in str(refused)
            continue
        found, task = facts.read(adapter)
        if found.model.name_or_path != whole["model"]["name_or_path"]:
            assert isinstance(outcome(lambda: lorafit.load(adapter)), ModelError)
            continue
        asked = [TEXTS[:1] * len(task.text)]
        refused = outcome(functools.partial(lorafit.predict, adapter, asked))
        loaded += refused is None
    assert loaded > 20


def test_damaged_adapter_config_is_loaded_or_refused(adapter: Path) -> None:
    """400 mutants; most are refused as they are read, the rest by the comparison of tensors."""
    file = adapter / "adapter_config.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    tuned = lorafit.load(adapter)
    model: Any = tuned.adapters.unload()
    for mutant in mutants(whole, 400, seed=1):
        file.write_bytes(mutant)
        try:
            lorafit.load(adapter, model, tuned.tokenizer).adapters.unload()
        except AdapterError:
            Adapters(model)  # whatever was refused, the model has no adapter

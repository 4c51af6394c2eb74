from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict

import lorafit
from lorafit.adapt import Adapters
from lorafit.config import DataConfig
from lorafit.engine.base import answers_from_logits
from lorafit.engine.choose import Computing, choose_engine
from lorafit.engine.eager import EagerEngine
from lorafit.errors import DataError
from lorafit.evaluation.score import intervals, score
from lorafit.methods.lora import LoraConfig
from lorafit.tasks.base import ModelKind
from lorafit.tasks.causal_lm import CausalLM
from lorafit.tasks.guess import guess_task
from tests import tiny, tiny_text

LLAMA = ModelKind("llama", generates=True)
QUICK: dict[str, Any] = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "learning_rate": 5e-3,
    "progress": False,
    "bf16": False,
    "max_new_tokens": 6,
}


def task_for(rows: Dataset, **columns: Any) -> CausalLM:
    return CausalLM.from_data(DatasetDict({"train": rows}), DataConfig(path="x", **columns))


def learned(row: dict[str, Any]) -> list[int]:
    return [label for label in row["labels"] if label != -100]


def test_of_a_prompt_with_its_completion_only_the_completion_and_the_end_are_learned():
    tokenizer = tiny_text.gpt2_tokenizer()
    rows = tiny_text.prompts()
    encoded = task_for(rows).encode(rows, tokenizer, 40)
    for row, source in zip(encoded, rows, strict=True):
        assert learned(row) == [
            *tokenizer(source["completion"])["input_ids"],
            tokenizer.eos_token_id,
        ]
        assert str(tokenizer.decode(row["input_ids"])).startswith(source["prompt"])
        assert len(row["input_ids"]) == len(row["labels"])
    assert not any(encoded["truncated"])


def test_long_examples_are_cut_at_the_end_and_counted(caplog):
    rows = tiny_text.prompts()
    encoded = task_for(rows).encode(rows, tiny_text.gpt2_tokenizer(), 7)
    assert all(encoded["truncated"])
    assert {len(ids) for ids in encoded["input_ids"]} == {7}
    assert "12 of 12 examples are longer than 7 tokens" in caplog.text


def test_nothing_left_to_learn_is_an_error():
    rows = tiny_text.prompts()
    with pytest.raises(DataError, match="nothing is left to be learned"):
        task_for(rows).encode(rows, tiny_text.gpt2_tokenizer(), 4)


def test_every_token_of_plain_text_is_learned_however_long():
    tokenizer = tiny_text.gpt2_tokenizer()
    text = " ".join(tiny_text.OTHER * 3)
    rows = Dataset.from_dict({"text": [text, "a film"]})
    encoded = task_for(rows).encode(rows, tokenizer, 16)
    assert encoded["labels"][:] == encoded["input_ids"][:]
    found = [token for ids in encoded["input_ids"][:-1] for token in ids]
    assert found == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert max(map(len, encoded["input_ids"])) == 16


def test_a_line_break_separates_only_what_has_no_space_between():
    rows = tiny_text.prompts()
    assert task_for(rows).separator == "\n"
    spaced = rows.map(lambda row: {"completion": f" {row['completion']}"})
    assert task_for(spaced).separator == ""


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        ({"instruction": "q", "input": "w", "output": "a"}, ("instruction", "input"), "output"),
        ({"question": "q", "answer": "a", "id": 1}, ("question",), "answer"),
        ({"text": "q"}, ("text",), None),
    ],
)
def test_columns_are_found_by_name(columns, text, label):
    rows = Dataset.from_list([columns] * 3)
    task, _ = guess_task(DatasetDict({"train": rows}), DataConfig(path="x"), LLAMA)
    assert task is CausalLM
    found = task_for(rows)
    assert (found.text, found.label) == (text, label)
    assert CausalLM.from_dict(json.loads(json.dumps(found.to_dict()))).to_dict() == found.to_dict()


def test_labelled_text_is_not_taken_for_a_language_model():
    rows = tiny_text.rows()
    task, _ = guess_task(DatasetDict({"train": rows}), DataConfig(path="x"), LLAMA)
    assert task.name == "sequence_classification"


@pytest.fixture(params=["llama", "gpt2"])
def scored(request):
    """A model with an adapter that does something, and encoded rows."""
    model, tokenizer = tiny.language_model(request.param), tiny_text.gpt2_tokenizer()
    adapters = Adapters(model)
    adapters.add(LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    tokenizer.pad_token = tokenizer.eos_token
    rows = tiny_text.prompts(9)
    task = task_for(rows)
    return model, tokenizer, task, task.encode(rows, tokenizer, 40)


def test_losses_are_those_of_transformers(scored):
    model, tokenizer, task, encoded = scored
    found = score(EagerEngine(model, task, tokenizer), encoded, 4)
    assert found.units is not None
    for index, row in enumerate(encoded):
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            mean = model(input_ids=ids, labels=torch.tensor([row["labels"]])).loss.item()
        assert found.units[index] == len(learned(row))
        assert found.losses[index] / found.units[index] == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("setting", ["auto", "generic", "eager"])
def test_engines_answer_as_their_logits_do(scored, setting):
    model, tokenizer, task, encoded = scored
    engine = choose_engine(setting, model, task, tokenizer, Computing(dtype=torch.float32))
    rows = encoded.to_list()
    batch = engine.collate(rows)
    found = engine.answers(batch)
    expected = answers_from_logits(
        task, engine.logits(batch), task.collate(rows, tokenizer)["labels"]
    )
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-4)
    np.testing.assert_allclose(found.kept, expected.kept, rtol=1e-4)
    assert (found.units == expected.units).all()
    assert (found.labels == expected.labels).all()
    assert engine.units(rows) == found.units.sum()


def test_eager_evaluates_a_few_examples_at_a_time(scored):
    model, tokenizer, task, encoded = scored
    engine = EagerEngine(model, task, tokenizer)
    whole = score(engine, encoded, 9)
    engine.logits_at_once = 1
    single = score(engine, encoded, 9)
    np.testing.assert_allclose(whole.losses, single.losses, rtol=1e-4)


def test_perplexity_and_the_mean_loss_are_per_token(scored):
    model, tokenizer, task, encoded = scored
    found = score(EagerEngine(model, task, tokenizer), encoded, 4)
    assert found.units is not None
    values = intervals(found, task)
    mean = found.losses.sum() / found.units.sum()
    assert values["nll"]["value"] == pytest.approx(mean, rel=1e-5)
    assert values["perplexity"]["value"] == pytest.approx(np.exp(mean), rel=1e-5)
    assert 0 <= values["token_accuracy"]["value"] <= 1
    for interval in values.values():
        assert interval["low"] <= interval["value"] <= interval["high"]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_whole_way(family: str, tmp_path: Path) -> None:
    base = tiny_text.save_language_model(tmp_path / "base", family)
    rows = tiny_text.prompts(60)
    run = lorafit.train(base, rows, **QUICK | {"run.dir": str(tmp_path)})
    result = run.eval
    assert result["metric"] == "perplexity"
    assert result["tuned"]["nll"]["value"] < result["base"]["nll"]["value"] - 0.2
    assert result["paired"]["nll"]["high"] < 0
    assert result["handoff"]["reloaded_max_abs_diff"] == 0.0
    assert result["handoff"]["merged_max_abs_diff"] < 1e-5
    again = lorafit.evaluate(run, rows.select(range(20)))
    assert again["n"] == 20
    (answer,) = lorafit.predict(run, ["the film is good"])
    assert set(answer) == {"generated"}
    merged = lorafit.merge(run, tmp_path / "merged")
    assert (merged / "model.safetensors").is_file()
    card = (run.adapter / "README.md").read_text()
    assert "AutoModelForCausalLM" in card
    assert "model.generate" in card


def test_plain_text_is_trained_and_gone_on_with(tmp_path: Path) -> None:
    base = tiny_text.save_language_model(tmp_path / "base")
    rows = tiny_text.rows(60).remove_columns("label")
    run = lorafit.train(base, rows, **QUICK | {"run.dir": str(tmp_path)})
    assert run.eval["tuned"]["nll"]["value"] < run.eval["base"]["nll"]["value"]
    assert len(lorafit.predict(run, ["a film", "the story is very"])) == 2
    with pytest.raises(DataError, match="text 2 of 2 is empty"):
        lorafit.predict(run, ["a film", " "])

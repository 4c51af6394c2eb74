from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers.models.bart.modeling_bart import shift_tokens_right

import lorafit
from lorafit.config import DataConfig
from lorafit.errors import DataError, ModelError
from lorafit.model.sites import find_sites
from lorafit.tasks.base import ModelKind
from lorafit.tasks.guess import guess_task
from lorafit.tasks.seq2seq import Seq2Seq
from tests import tiny, tiny_text

T5 = ModelKind("t5", generates=False, encoder_decoder=True)


def met(model: Any = None) -> Seq2Seq:
    task = Seq2Seq(["prompt"], "completion")
    task.meet(model or tiny.language_model("t5"))
    return task


def tokenizer() -> Any:
    """One that ends texts with its end-of-sequence token, as T5's does."""
    found = tiny_text.ending_tokenizer()
    assert found("a film")["input_ids"][-1] == found.eos_token_id
    return found


def test_the_target_is_learned_with_its_end():
    ours, rows = tokenizer(), tiny_text.prompts()
    encoded = met().encode(rows, ours, 40)
    for row, source in zip(encoded, rows, strict=True):
        assert ours.decode(row["input_ids"], skip_special_tokens=True) == source["prompt"]
        assert row["labels"] == ours(source["completion"])["input_ids"]
        assert row["labels"].count(ours.eos_token_id) == 1
    assert not any(encoded["truncated"])


def test_a_tokenizer_that_does_not_end_texts_gets_the_end_added():
    ours = tiny_text.gpt2_tokenizer()
    encoded = met().encode(tiny_text.prompts(), ours, 40)
    assert all(row[-1] == ours.eos_token_id for row in encoded["labels"])


def test_what_is_cut_is_counted_and_has_no_end(caplog):
    ours = tokenizer()
    encoded = met().encode(tiny_text.prompts(), ours, 5)
    assert all(encoded["truncated"])
    assert all(len(row) == 5 and ours.eos_token_id not in row for row in encoded["labels"])
    # The encoder always reads a text that ends.
    assert all(row[-1] == ours.eos_token_id for row in encoded["input_ids"][:])
    assert "12 of 12 targets are longer than 5 tokens" in caplog.text


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_loss_is_that_of_transformers(family):
    model, ours = tiny.language_model(family), tokenizer()
    task = met(model)
    encoded = task.encode(tiny_text.prompts().select(range(3)), ours, 40)
    uneven = [dict(row) | {"labels": row["labels"][n:]} for n, row in enumerate(encoded)]
    batch = task.collate(uneven, ours)
    labels = batch["labels"]
    start, fill = model.config.decoder_start_token_id, model.config.pad_token_id
    assert torch.equal(batch["decoder_input_ids"], shift_tokens_right(labels, fill, start))
    with torch.no_grad():
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
        theirs = model(**batch).loss
    found = task.losses(logits, labels).sum() / task.units(labels).sum()
    torch.testing.assert_close(found, theirs)
    assert task.count(uneven) == int(task.units(labels).sum()) == int((labels != -100).sum())


def test_a_model_that_does_not_say_how_its_decoder_begins_is_refused():
    model = tiny.language_model("t5")
    model.config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="no decoder_start_token_id"):
        met(model)


def test_pairs_of_texts_and_an_encoder_decoder_are_the_task():
    splits = DatasetDict({"train": tiny_text.prompts()})
    task, why = guess_task(splits, DataConfig(path="x"), T5)
    assert task is Seq2Seq
    assert "source: prompt, target: completion" in why
    found = Seq2Seq.from_data(splits, DataConfig(path="x"))
    assert Seq2Seq.from_dict(json.loads(json.dumps(found.to_dict()))).to_dict() == found.to_dict()
    labelled = DatasetDict({"train": tiny_text.rows()})
    task, _ = guess_task(labelled, DataConfig(path="x"), T5)
    assert task.name == "sequence_classification"


def test_without_a_target_it_is_refused():
    rows = Dataset.from_dict({"words": ["a film"] * 3})
    with pytest.raises(DataError, match="--text PROMPT --label ANSWER"):
        Seq2Seq.from_data(DatasetDict({"train": rows}), DataConfig(path="x"))
    with pytest.raises(DataError, match='no column "completion"'):
        met().encode(Dataset.from_dict({"prompt": ["a"]}), tokenizer(), 40)


def test_the_output_embeddings_are_the_head():
    roles = {site.path: site.role for site in find_sites(tiny.language_model("t5"))}
    assert [path for path, role in roles.items() if role == "head"] == ["lm_head"]


def test_trained_it_writes_what_it_learned(tmp_path):
    base = tiny_text.save_language_model(tmp_path / "base", "t5")
    data = DatasetDict(
        train=tiny_text.prompts(48), validation=tiny_text.prompts(6, 1), test=tiny_text.prompts(8)
    )
    settings: dict[str, Any] = {"num_train_epochs": 12, "learning_rate": 2e-2, "batch_size": 8}
    run = lorafit.train(
        base, data, progress=False, bf16=False, **settings | {"run.dir": str(tmp_path / "runs")}
    )
    assert run.config.task is None
    assert run.eval["tuned"]["token_accuracy"]["value"] > 0.8
    assert run.eval["paired"]["nll"]["high"] < 0
    assert run.eval["handoff"]["merged_max_abs_diff"] < 1e-5
    [answer] = lorafit.predict(run, ["the film is great"])
    assert answer["generated"].startswith("a ")
    assert answer["generated"].endswith("story with a plot")
    assert run.eval["paired"]["rouge_l"]["low"] > 0

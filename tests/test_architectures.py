"""Every architecture through the whole pipeline, for every task it has a head for.

What `lorafit.train` proves of each run (the saved adapter, and the merged one, compute what
the trained model computes) is taken at its word here and checked from outside once more:
with transformers alone.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from datasets import DatasetDict

import lorafit
from lorafit.export.merged import sample_inputs
from tests import tiny, tiny_text

QUICK: dict[str, Any] = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "progress": False,
    "bf16": False,
}
CLOSING = {"eos_token_id": tiny_text.SPECIALS.index("[SEP]")}
"""T5 and BART read the state of the token that ends the text."""
SETTINGS: dict[str, dict[str, Any]] = {"t5": CLOSING, "bart": CLOSING}
TEXTS = ["a lovely film", "the plot is dull and it is very very slow"]


@pytest.fixture(scope="module")
def data() -> DatasetDict:
    return tiny_text.splits(24)


@torch.no_grad()
def logits(model: hf.PreTrainedModel, tokenizer: Any) -> torch.Tensor:
    found: torch.Tensor = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    return found


@pytest.mark.parametrize("family", tiny.ARCHITECTURES)
def test_a_classifier_is_trained_saved_read_back_and_merged(
    family: str, data: DatasetDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tiny_text.save_base(tmp_path / "base", family, **SETTINGS.get(family, {}))
    caplog.set_level(logging.INFO)
    run = lorafit.train(base, data, **QUICK | {"run.dir": str(tmp_path / "runs")})
    handoff = run.eval["handoff"]
    assert handoff["reloaded_max_abs_diff"] == 0
    assert handoff["merged_max_abs_diff"] < 1e-5
    said = [line for line in caplog.messages if "not adapted" in line]
    assert [("experts.gate_up_proj" in line) for line in said] == [True] * (family == "mixtral")

    tuned = lorafit.load(run)
    expected = logits(tuned.model, tuned.tokenizer)
    with tuned.adapters.disabled():
        untuned = logits(tuned.model, tuned.tokenizer)
    assert (expected - untuned).abs().max() > 1e-3
    lorafit.merge(run, tmp_path / "plain")
    plain = hf.AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain").eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "plain")
    torch.testing.assert_close(logits(plain, tokenizer), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", tiny.WRITERS)
def test_a_model_that_writes_is_trained_saved_read_back_and_merged(
    family: str, tmp_path: Path
) -> None:
    base = tiny_text.save_language_model(tmp_path / "base", family)
    data = DatasetDict(
        train=tiny_text.prompts(24), validation=tiny_text.prompts(6, 1), test=tiny_text.prompts(8)
    )
    brief = {"num_train_epochs": 1, "examples": 2, "max_new_tokens": 4}
    run = lorafit.train(base, data, **QUICK | brief | {"run.dir": str(tmp_path / "runs")})
    assert run.eval["handoff"]["reloaded_max_abs_diff"] == 0
    assert run.eval["handoff"]["merged_max_abs_diff"] < 1e-5
    assert run.eval["paired"]["nll"]["difference"] < 0

    tuned = lorafit.load(run)
    lorafit.merge(run, tmp_path / "plain")
    plain = type(tuned.model).from_pretrained(tmp_path / "plain").eval()
    inputs = sample_inputs(tuned.model, tuned.tokenizer)
    with torch.no_grad():
        found, expected = plain(**inputs).logits, tuned.model(**inputs).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

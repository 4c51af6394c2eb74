"""Batches without gradients that do not fit into memory are computed in smaller ones."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from lorafit.config import GenerateConfig
from lorafit.engine.answers import answer
from lorafit.engine.eager import EagerEngine
from lorafit.engine.halving import Halving
from lorafit.errors import TrainingError
from lorafit.evaluation.generation import generate
from lorafit.evaluation.score import all_logits
from lorafit.tasks.parts.generative import Prompt
from lorafit.testing.words import ending_tokenizer
from tests import tiny
from tests.training import toy

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 20])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_every_example_is_computed_once_in_its_order(most: int, error: type[Exception]) -> None:
    tried: list[int] = []

    def compute(part: list[int]) -> list[int]:
        tried.append(len(part))
        if len(part) > most:
            raise error(FULL)
        return [-i for i in part]

    halving = Halving()
    for batch in ([*range(13)], [*range(13, 21)], [99]):
        parts = list(halving.of(batch, compute))
        assert [i for part, _ in parts for i in part] == batch
        assert [-i for _, found in parts for i in found] == batch
    failed = [n for n in tried if n > most]
    assert all(b <= -(-a // 2) for a, b in itertools.pairwise(failed))


def test_no_room_for_one_example_is_a_clear_error() -> None:
    def compute(part: list[int]) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes")

    with pytest.raises(TrainingError, match="one example at a time"):
        list(Halving().of([1, 2, 3], compute))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def compute(part: list[int]) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        list(Halving().of([1, 2], compute))


def full_above(most: int, patch: pytest.MonkeyPatch, name: str) -> list[int]:
    """The engine has room for so many examples; the list gets the sizes that had."""
    whole, sizes = getattr(EagerEngine, name), []

    def small(engine: EagerEngine, batch: Any) -> Any:
        n = len(batch["labels"])
        if n > most:
            raise torch.OutOfMemoryError(FULL)
        sizes.append(n)
        return whole(engine, batch)

    patch.setattr(EagerEngine, name, small)
    return sizes


@pytest.fixture
def engine() -> EagerEngine:
    return toy.engine(toy.bert(dropout=0.0))


def test_scores_are_those_of_whole_batches(
    engine: EagerEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows: Dataset = toy.examples(13, 0)
    whole, logits = answer(engine, rows, 8), all_logits(engine, engine.task, rows, 8)
    sizes = full_above(3, monkeypatch, "answers")
    with caplog.at_level(logging.WARNING, "lorafit"):
        found = answer(engine, rows, 8)
    assert max(sizes) <= 3
    assert "out of memory with 8 examples at a time: 4 from here on" in caplog.text
    np.testing.assert_allclose(found.losses, whole.losses, rtol=1e-5, atol=1e-6)
    full_above(3, monkeypatch, "logits")
    np.testing.assert_allclose(
        all_logits(engine, engine.task, rows, 8), logits, rtol=1e-5, atol=1e-6
    )


def test_texts_are_written_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny.language_model("llama")
    tokenizer = ending_tokenizer()
    prompts = [Prompt("", [5 + n, 6, 7][: 1 + n % 3], None) for n in range(9)]
    settings = GenerateConfig(max_new_tokens=5)
    whole = generate(model, tokenizer, prompts, settings, 8)
    own = model.generate

    def small(**inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError(FULL)
        return own(**inputs)

    monkeypatch.setattr(model, "generate", small)
    before = model.generation_config
    assert generate(model, tokenizer, prompts, settings, 8) == whole
    assert model.generation_config is before

"""Anything that holds texts, to the answers of a tuned model: what `lorafit.predict` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit.config import GenerateConfig
from lorafit.data.read.asked import read_asked
from lorafit.engine.inference import Inference
from lorafit.errors import DataError, DivergenceError
from lorafit.evaluation.generation import generate as write
from lorafit.evaluation.score import all_logits
from lorafit.evidence.json import Json
from lorafit.machine.placement import find_device
from lorafit.tasks.base import Task
from lorafit.tasks.parts.generative import GenerativeTask

ROWS_AT_ONCE = 1024
"""Rows that are encoded and computed together, so that memory does not grow with the data."""
PREDICT_BATCH = 64
"""Texts that are computed at once."""
GENERATE_BATCH = 16
"""Texts that are written at once."""


class Predictor(Protocol):
    """A tuned model, as `lorafit.load` returns it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: Task
    max_length: int
    generate: GenerateConfig
    device: str
    dtype: torch.dtype | None
    inference: Inference


def predict(tuned: Predictor, given: Any, at_once: int = ROWS_AT_ONCE) -> list[Json]:
    """What the task says of each text.

    Args:
        tuned: The model.
        given: What `lorafit.data.read.asked.read_asked` takes.
        at_once: Rows that are encoded and computed together.

    Raises:
        DataError: Something is not a text, or is empty; nothing was computed.
        DivergenceError: What the model computes is not finite.
    """
    return list(answers(tuned, read_asked(given, tuned.task.text).cells, at_once))


def answers(tuned: Predictor, cells: Sequence[Any], at_once: int = ROWS_AT_ONCE) -> Iterator[Json]:
    """Answers to texts that were checked, in their order, some rows at a time."""
    for at in range(0, len(cells), at_once):
        yield from _some(tuned, cells[at : at + at_once])


def _some(tuned: Predictor, cells: Sequence[Any]) -> list[Json]:
    rows = tuned.task.rows(cells)
    device = find_device(tuned.device)
    if isinstance(tuned.task, GenerativeTask):
        prompts = tuned.task.prompts(rows, tuned.tokenizer, tuned.max_length)
        if len(prompts) < len(cells):
            raise DataError("the chat template refuses some of the conversations (see above).")
        tuned.model.to(device)  # type: ignore[arg-type]  # transformers wraps torch's `to`
        written = write(tuned.model, tuned.tokenizer, prompts, tuned.generate, GENERATE_BATCH)
        return [{"generated": answer} for answer in written]
    encoded = tuned.task.encode(rows, tuned.tokenizer, tuned.max_length)
    engine = tuned.inference.engine(tuned.model, tuned.task, tuned.tokenizer, device, tuned.dtype)
    logits = all_logits(engine, tuned.task, encoded, PREDICT_BATCH)
    bad = sum(not np.isfinite(row).all() for row in logits)
    if bad:
        raise DivergenceError(
            f"the model gives logits that are not finite for {bad:,} of {len(logits):,} texts: "
            "its weights, or those of the adapter, are too large."
        )
    return tuned.task.decode(logits, encoded, rows)

"""Which rows a run was trained on: eight bytes for each, so that `evaluate` can say so."""

from __future__ import annotations

import hashlib
import json
import logging

import numpy as np
from datasets import Dataset

from lorafit.data.columns.choose import label_columns
from lorafit.data.columns.values import column_values
from lorafit.run import Run, atomic
from lorafit.tasks.base import Task
from lorafit.tasks.parts.generative import GenerativeTask

log = logging.getLogger(__name__)

FILE = "train_rows.npy"
"""Sorted hashes of the training rows, uint64."""


def keep(run: Run, train: Dataset, task: Task) -> None:
    """Writes the hashes of the rows that a run trains on."""
    path = run.path / FILE
    with atomic.writing(path, FILE):
        unfinished = path.with_name(f"{atomic.TEMPORARY}{FILE}")
        with unfinished.open("wb") as file:
            np.save(file, np.unique(_hashes(train, task)))
        unfinished.replace(path)


def say(run: Run, rows: Dataset, task: Task) -> int | None:
    """As `count`; rows that the run was trained on are a warning."""
    found = count(run, rows, task)
    if found:
        log.warning(
            "the run was trained on %s of these %s rows, so the scores are too good. Evaluate on "
            "rows it has not seen.",
            *(f"{found:,}", f"{len(rows):,}"),
        )
    return found


def count(run: Run, rows: Dataset, task: Task) -> int | None:
    """How many rows the run was trained on; ``None``: it is of a version that kept no hashes."""
    if not (run.path / FILE).is_file():
        return None
    return int(np.isin(_hashes(rows, task), np.load(run.path / FILE)).sum())


def _hashes(rows: Dataset, task: Task) -> np.ndarray:
    """A hash of each row's text; where a prompt may have several answers, of both."""
    columns = list(task.text)
    if isinstance(task, GenerativeTask):
        columns += [name for name in label_columns(task.label) if name in rows.features]
    values = zip(*(column_values(rows, column) for column in columns), strict=True)
    found = [
        hashlib.blake2b(json.dumps(row, default=str).encode(), digest_size=8).digest()
        for row in values
    ]
    return np.frombuffer(b"".join(found), dtype="<u8")

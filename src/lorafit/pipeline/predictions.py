"""What base and tuned model said of each test example, as the table that the run keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from pyarrow import parquet

from lorafit.config import Config
from lorafit.data.columns.values import column_values
from lorafit.evaluation.samples import Question
from lorafit.evaluation.score import Scores
from lorafit.evidence.predictions import FILE, LABELS
from lorafit.run import atomic
from lorafit.settings import LIVE
from lorafit.tasks.base import Task
from lorafit.tasks.parts.places import rows_of

Outputs = np.ndarray | Sequence[np.ndarray]


@dataclass(frozen=True)
class Written:
    """What both models wrote on some prompts.

    Attributes:
        questions: The prompts; their places are rows, unless ``whole`` is false.
        base: The answers of one.
        tuned: The answers of the other.
        whole: Whether every row has its prompt.
    """

    questions: Sequence[Question]
    base: Sequence[str]
    tuned: Sequence[str]
    whole: bool


@dataclass(frozen=True)
class Said:
    """What one model said of all examples.

    Attributes:
        scores: Its losses, and what the metrics need.
        outputs: What `Task.predicted` reads.
    """

    scores: Scores
    outputs: Outputs


def table(  # noqa: PLR0913
    task: Task,
    rows: Dataset,
    encoded: Dataset,
    base: Said,
    tuned: Said,
    config: Config,
    written: Written | None = None,
) -> pa.Table:
    """The predictions: a row an example, in the order of the test split.

    Args:
        task: What was asked.
        rows: The test split.
        encoded: The same, encoded.
        base: What the untuned model said.
        tuned: What the tuned one said.
        config: ``run.keep_texts``, and whether the data is that of a file.
        written: The texts that both wrote, of a task that writes.

    Returns:
        ``row`` and, where it is known, ``source_row``, from 0; ``text_hash``; ``text``, or
        ``text_1``, ``text_2``; ``label``; for both models their answer, whether it is right, its
        ``_probability``, its ``_loss`` and all ``_probabilities``, as far as the task has them.
    """
    places = rows_of(encoded, len(rows))
    columns: dict[str, object] = {"row": places if places is not None else [None] * len(encoded)}
    columns["source_row"] = _source_rows(rows, places, len(encoded), config)
    columns |= _texts(task, rows, places, len(encoded), config.run.keep_texts)
    arrays = {name: _array(name, values) for name, values in columns.items()}
    arrays |= _answers(task, encoded, base, tuned)
    if written is not None and written.whole and places is not None:
        arrays |= _writing(written, places, config.run.keep_texts)
    for name, side in (("base", base), ("tuned", tuned)):
        arrays[f"{name}_loss"] = pa.array(_mean_losses(side.scores), type=pa.float32())
    found = pa.table({name: arrays[name] for name in sorted(arrays, key=_place)})
    names = getattr(task, "label_names", None)
    return found if names is None else found.replace_schema_metadata({LABELS: json.dumps(names)})


def keep(folder: Path, predictions: pa.Table) -> None:
    """Writes predictions into a folder, of a run or of one of its evaluations, all or nothing.

    Raises:
        RunError: The file cannot be written.
    """
    path = folder / FILE
    with atomic.writing(path, FILE):
        unfinished: Path = path.with_name(f"{atomic.TEMPORARY}{FILE}")
        parquet.write_table(predictions, unfinished, compression="zstd")
        atomic.sync_file(unfinished)
        unfinished.replace(path)


_ORDER = (
    *("row", "source_row", "text_hash", "text", "text_1", "text_2", "label"),
    *("base", "tuned", "base_right", "tuned_right", "base_probability", "tuned_probability"),
    *("base_loss", "tuned_loss", "base_probabilities", "tuned_probabilities"),
)


def _place(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else _ORDER.index("text_2"), name)


def _array(name: str, values: Any) -> pa.Array:
    kinds = {"row": pa.int64(), "source_row": pa.int64(), "text_hash": pa.string()}
    return pa.array(values, type=kinds.get(name))


def _source_rows(
    rows: Dataset, places: np.ndarray | None, count: int, config: Config
) -> Sequence[int | None]:
    """The place of each row in the data as it was read; ``None`` where nobody counted."""
    # Rows that reading skipped are not counted, and a data set in memory may be a part itself.
    known = config.data.path != LIVE and not config.data.skip_bad_rows and places is not None
    if not known or places is None:
        return [None] * count
    chosen = rows._indices  # noqa: SLF001  (there is no public word for them)
    if chosen is None:
        return list(map(int, places))
    source = chosen.column(0).to_pylist()
    return [source[place] for place in places.tolist()]


def _texts(
    task: Task, rows: Dataset, places: np.ndarray | None, count: int, keep_texts: bool
) -> dict[str, list[Any]]:
    """The hash of each example's texts, and the texts themselves if they are to be kept."""
    if places is None:
        return {"text_hash": [None] * count}
    of_rows = list(zip(*(column_values(rows, name) for name in task.text), strict=True))
    kept = [of_rows[place] for place in places.tolist()]
    columns: dict[str, list[Any]] = {"text_hash": [text_hash(row) for row in kept]}
    if keep_texts:
        several = len(task.text) > 1
        for at in range(len(task.text)):
            name = f"text_{at + 1}" if several else "text"
            columns[name] = [_plain(row[at]) for row in kept]
    return columns


def text_hash(texts: Sequence[Any]) -> str:
    """Sixteen hexadecimal digits that tell the texts of a row from others."""
    content = json.dumps(list(texts), default=str, ensure_ascii=False)
    return hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _plain(cell: Any) -> Any:
    """A text, or a list of words; a conversation as JSON."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, list) and not any(isinstance(part, dict | list) for part in cell):
        return [str(part) for part in cell]
    return json.dumps(cell, ensure_ascii=False, default=str)


def _answers(task: Task, encoded: Dataset, base: Said, tuned: Said) -> dict[str, pa.Array]:
    found: dict[str, pa.Array] = {}
    for name, side in (("base", base), ("tuned", tuned)):
        said = task.predicted(side.outputs, side.scores.labels, encoded)
        if said is None:
            continue
        found["label"], found[name] = pa.array(said.labels), pa.array(said.answers)
        if said.right is not None:
            found[f"{name}_right"] = pa.array(said.right.tolist(), type=pa.bool_())
        if said.probability is not None:
            found[f"{name}_probability"] = pa.array(said.probability, type=pa.float32())
        if said.probabilities is not None:
            found[f"{name}_probabilities"] = _lists(said.probabilities)
    # Lists that are all empty have no type of their own.
    return {n: a.cast(pa.list_(pa.string())) if _untyped(a) else a for n, a in found.items()}


def _lists(rows: np.ndarray | list[Any]) -> pa.Array:
    """A list of float32 for each row."""
    if isinstance(rows, list):
        return pa.array(rows, type=pa.list_(pa.float32()))
    # Not as Python's numbers: of thousands of labels they take ten times the memory.
    flat = pa.array(np.ascontiguousarray(rows, dtype=np.float32).ravel())
    starts = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1], type=pa.int32())
    return pa.ListArray.from_arrays(starts, flat)


def _untyped(array: pa.Array) -> bool:
    return bool(pa.types.is_list(array.type) and pa.types.is_null(array.type.value_type))


def _writing(written: Written, places: np.ndarray, keep_texts: bool) -> dict[str, pa.Array]:
    """The texts that were written, and the data's answers to these prompts, where they may be."""
    if not keep_texts:
        return {}
    columns: dict[str, dict[int, str]] = {"label": {}, "base": {}, "tuned": {}}
    for question, base, tuned in zip(written.questions, written.base, written.tuned, strict=True):
        for at, row in enumerate(question.places):
            columns["base"][row], columns["tuned"][row] = base, tuned
            if question.references:
                columns["label"][row] = question.references[min(at, len(question.references) - 1)]
    return {
        name: pa.array([values.get(row) for row in places.tolist()], type=pa.string())
        for name, values in columns.items()
    }


def _mean_losses(scores: Scores) -> np.ndarray:
    """Of a unit: example, word or token; NaN where an example has none."""
    if scores.units is None:
        return scores.losses
    units = scores.units.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: np.ndarray = np.where(units > 0, scores.losses / units, np.nan)
    return mean

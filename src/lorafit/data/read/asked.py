"""What is to be predicted, in whatever holds it: a text, a list, pairs, dicts, a table, a file.

    read_asked("a film", ["text"])                     one text
    read_asked(["a film", "a plot"], ["text"])         a list, tuple, array, series, generator
    read_asked([("a film", "it is one")], ["a", "b"])  pairs of texts
    read_asked([{"text": "a film", "label": 1}], ...)  rows: the text columns are read
    read_asked(frame, ["text"])                        a table, likewise
    read_asked(Path("rows.csv"), ["text"])             a file, as for training

Only the text columns are read: what a row says of its label never reaches the model. What is
no text is refused with its place, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from lorafit.config import DataConfig
from lorafit.data.columns.choose import require_columns
from lorafit.data.columns.values import column_values
from lorafit.data.findings import UNKEPT
from lorafit.data.read.files import read_file
from lorafit.data.read.nested import with_nested
from lorafit.data.read.reading import Reading
from lorafit.data.read.rows import broken_character, to_dataset
from lorafit.data.read.written import read_written_lists
from lorafit.errors import DataError, did_you_mean

_SHOWN = 40
"""Characters of a value in a message."""


@dataclass(frozen=True)
class Asked:
    """Texts to predict.

    Attributes:
        columns: The text columns of the run.
        cells: Of each row its text; a list of texts where there are several columns or words,
            a list of messages where there is a conversation.
        numbers: The place of each in what was given, from 1.
    """

    columns: tuple[str, ...]
    cells: list[Any]
    numbers: list[int]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.cells)


def read_asked(
    given: Any,
    columns: Sequence[str],
    *,
    skip_bad_rows: bool = False,
    encoding: str | None = None,
) -> Asked:
    """Reads what is to be predicted.

    Args:
        given: A text; a list, tuple, array, series or generator of texts, of pairs
            of texts, of lists of words, of conversations or of dicts; a table or one row of it;
            or the path of a file, as a `Path`.
        columns: The text columns of the run.
        skip_bad_rows: Leave out rows without a text, and count them, instead of stopping.
        encoding: How the text of a file is stored; ``None``: UTF-8.

    Raises:
        DataError: Something is not a text, is empty, or the rows lack a text column.
    """
    if isinstance(given, Path):
        given = read_file(given, Reading(skip_bad_rows, encoding))
    if isinstance(given, DatasetDict | IterableDataset | IterableDatasetDict):
        raise DataError(
            f"got a {type(given).__name__}. Give one of its splits, as a Dataset in memory."
        )
    if isinstance(given, pd.Series) and columns[0] in given.index:  # a row of a frame
        given = given.to_dict()
    if _is_table(given):
        cells = _of_table(to_dataset(given, f"the {type(given).__name__}"), columns)
    elif isinstance(given, Mapping):
        cells = _of_columns(given, columns)
    else:
        cells = [_plain(item) for item in _listed(given)]
        cells = _of_rows(cells, columns) if _are_rows(cells, columns) else cells
    return _checked(cells, tuple(columns), skip_bad_rows)


def _is_table(given: Any) -> bool:
    """Whether something has columns with names; a series exports Arrow too, and has none."""
    if isinstance(given, Dataset | pd.DataFrame | pa.Table):
        return True
    return hasattr(given, "__arrow_c_stream__") and hasattr(given, "columns")


def _listed(given: Any) -> list[Any]:
    """The texts one by one; a text alone is one text, not its letters."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, np.ndarray):
        found = given.tolist()
        return found if isinstance(found, list) else [found]
    if isinstance(given, pa.Array | pa.ChunkedArray):
        return list(given.to_pylist())
    if isinstance(given, Iterable) and not isinstance(given, bytes | set | frozenset):
        return list(given)
    unordered = isinstance(given, set | frozenset)
    what = "a set, which has no order" if unordered else f"{_named(given)}, which holds no texts"
    raise DataError(f"got {what}. Give a text, a list of texts, or a table with the text columns.")


def _plain(item: Any) -> Any:
    """Arrays and tuples as lists, other values as they are."""
    if isinstance(item, np.ndarray):
        return item.tolist()
    return list(item) if isinstance(item, tuple) else item


def _are_rows(cells: Sequence[Any], columns: Sequence[str]) -> bool:
    """Whether the items are rows; a list of messages alone is one conversation, not rows.

    Raises:
        DataError: Some are rows and others are not.
    """
    rows = [isinstance(cell, Mapping) for cell in cells]
    if not any(rows):
        return False
    if not all(rows):
        number = rows.index(not rows[0]) + 1
        raise DataError(
            f"text {number:,} of {len(cells):,} is {_named(cells[number - 1])}, and text 1 is "
            f"{_named(cells[0])}. Give texts or rows, not both."
        )
    if columns[0] not in cells[0] and {"role", "content"} <= cells[0].keys():
        raise DataError(
            "got the messages of one conversation where a list of texts is expected. Put them "
            "into a list: predict(run, [messages])."
        )
    return True


def _of_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[Any]:
    """The text columns of each row, a field inside a column by its path."""
    return [
        _cell([_field(row, column, number, len(rows)) for column in columns])
        for number, row in enumerate(rows, start=1)
    ]


def _field(row: Mapping[str, Any], column: str, number: int, total: int) -> Any:
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise DataError(
                f'row {number:,} of {total:,} has no "{column}", which is the text here. It has '
                f"{', '.join(map(str, row)) or 'nothing'}.{did_you_mean(column, map(str, row))}"
            )
        value = value[part]
    return value


def _of_columns(given: Mapping[Any, Any], columns: Sequence[str]) -> list[Any]:
    """A dict: columns of values, or one row."""
    first = given.get(columns[0])
    if first is None or isinstance(first, str):
        return _of_rows([given], columns)
    for column in columns:
        _field(given, column, 1, 1)
    values = [_listed(given[column]) for column in columns]
    if len({len(column) for column in values}) > 1:
        counts = ", ".join(f"{c} has {len(v):,}" for c, v in zip(columns, values, strict=True))
        raise DataError(f"the columns are not of one length: {counts}.")
    return [_cell([_plain(part) for part in row]) for row in zip(*values, strict=True)]


def _of_table(rows: Dataset, columns: Sequence[str]) -> list[Any]:
    rows = with_nested(rows, DataConfig(path="", text=list(columns)))
    require_columns(rows, columns, "which is the text here")
    rows = read_written_lists(DatasetDict({"rows": rows.select_columns(list(columns))}))["rows"]
    values = [column_values(rows, column) for column in columns]
    return [_cell(list(row)) for row in zip(*values, strict=True)]


def _cell(parts: list[Any]) -> Any:
    """What one row asks; of several texts a missing one is empty, as in training."""
    if len(parts) == 1:
        return _plain(parts[0])
    return ["" if _is_missing(part) else part for part in parts]


def _checked(cells: Sequence[Any], columns: tuple[str, ...], skip: bool) -> Asked:
    """The texts, each of which is one.

    Raises:
        DataError: One is not, or is empty.
    """
    kept: list[Any] = []
    numbers: list[int] = []
    for number, cell in enumerate(cells, start=1):
        if _is_empty(cell):
            if not skip:
                raise DataError(f"text {number:,} of {len(cells):,} is empty; there is no answer.")
            continue
        if problem := _problem(cell):
            raise DataError(
                f"text {number:,} of {len(cells):,} {problem}. Give text; of a number, str(number)."
            )
        kept.append(cell)
        numbers.append(number)
    if cells and not kept:
        raise DataError(
            f"none of the {len(cells):,} rows has a text (columns {', '.join(columns)})."
        )
    if len(kept) < len(cells):
        UNKEPT.warn(f"left out {len(cells) - len(kept):,} of {len(cells):,} rows without a text")
    return Asked(columns, kept, numbers)


def _is_empty(cell: Any) -> bool:
    """Whether there is nothing to read: blank, null, NaN, or a list of nothing else."""
    if isinstance(cell, str):
        return not cell.strip()
    return _is_missing(cell) or (isinstance(cell, list) and all(map(_is_empty, cell)))


def _problem(cell: Any) -> str:
    """Why something is no text, no list of texts and no conversation; or ``""``."""
    if (broken := broken_character(cell)) is not None:
        return f"holds half of a character ({broken!r})"
    if isinstance(cell, str):
        return ""
    if not isinstance(cell, list):
        return f"is {_named(cell)}, not a text"
    if all(isinstance(part, Mapping) for part in cell):  # the messages of a conversation
        return ""
    wrong = [part for part in cell if not isinstance(part, str)]
    return f"holds {_named(wrong[0])}, not texts only" if wrong else ""


def _is_missing(value: Any) -> bool:
    if value is None or value is pd.NA:
        return True
    return isinstance(value, float) and value != value


def _named(value: Any) -> str:
    """A value with its kind, for messages."""
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."
    if isinstance(value, bool | int | float | np.number):
        return f"a number ({shown})"
    if isinstance(value, str):
        return f"a text ({shown})"
    if isinstance(value, Mapping):
        return f"a dict ({shown})"
    return "None" if value is None else f"{type(value).__name__} ({shown})"

"""Answers to a file: csv for people, jsonl and parquet with every probability.

A row has its number in what was given, its text columns, ``answer``, and ``probability`` where
the task has one. The rows are written as they come, into a file beside the one that was asked
for, which takes its name once it is whole.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from lorafit.errors import DataError
from lorafit.evidence.json import Json
from lorafit.evidence.predictions import Predictions
from lorafit.run.atomic import plain_json

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TAKEN = ("row", "answer", "probability", "probabilities", "spans", "words", "tags")
_AT_ONCE = 4096
"""Rows of a group in a parquet file."""


def check_target(path: Path) -> None:
    """Refuses a file that cannot or should not be written.

    Raises:
        DataError: Its format is none, its folder is missing, or it exists.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(
            f'answers cannot be written as "{path.name}". Name a file that ends in '
            f"{', '.join(FORMATS)}."
        )
    if path.exists():
        raise DataError(f'"{path}" exists and is not overwritten. Remove it, or name another file.')
    if not path.parent.is_dir():
        raise DataError(f'there is no folder "{path.parent}" to write "{path.name}" into.')


class AnswerFile:
    """A file of answers that is being written; used in a ``with`` block.

    Args:
        path: Ends in one of `FORMATS`, and does not exist.
        columns: Names of the text columns. One whose name an entry of the answers has, such as
            ``answer``, is written as ``answer_text``.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        check_target(path)
        self._path = path
        self._unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        self._columns = [f"{name}_text" if name in _TAKEN else name for name in columns]
        self._add: Callable[[Json], None] = {
            ".csv": self._add_delimited,
            ".tsv": self._add_delimited,
            ".jsonl": self._add_line,
            ".parquet": self._add_to_group,
        }[path.suffix.lower()]
        self._delimiter = _DELIMITERS.get(path.suffix.lower(), ",")
        self._table: Any = None
        self._group: list[Json] = []
        self._parquet: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        """Begins the file.

        Raises:
            DataError: It cannot be written.
        """
        try:
            self._file = self._unfinished.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise DataError(f'cannot write "{self._path}": {error.strerror}.') from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gives the whole file its name; of one that is not whole nothing is left."""
        try:
            if kind is None:
                self._write_group()
        finally:
            if self._parquet is not None:
                self._parquet.close()
            self._file.close()
            if kind is None:
                self._unfinished.replace(self._path)
            else:
                self._unfinished.unlink()

    def add(self, number: int, cell: Any, prediction: Mapping[str, Any]) -> None:
        """Writes one answer.

        Args:
            number: Of the row, from 1.
            cell: Its text, or a list with one for each column.
            prediction: What the task says; the first entry is the answer.
        """
        parts = [cell] if len(self._columns) == 1 else list(cell)
        texts = [part if isinstance(part, str) else json_text(part) for part in parts]
        (_, answer), *others = prediction.items()
        row = {"row": number, **dict(zip(self._columns, texts, strict=True))}
        self._add(row | {"answer": answer} | dict(others))

    def _add_line(self, row: Json) -> None:
        self._file.write(json_text(row) + "\n")

    def _add_delimited(self, row: Json) -> None:
        names = [
            "row",
            *self._columns,
            "answer",
            *(["probability"] if "probability" in row else []),
        ]
        if self._table is None:
            self._table = csv.writer(self._file, delimiter=self._delimiter)
            self._table.writerow(names)
        answer = row["answer"]
        said = ", ".join(answer) if isinstance(answer, list) else answer
        self._table.writerow([row[name] if name != "answer" else said for name in names])

    def _add_to_group(self, row: Json) -> None:
        if "spans" in row:  # their fields differ from task to task
            row["spans"] = json_text(row["spans"])
        self._group.append(row)
        if len(self._group) == _AT_ONCE:
            self._write_group()

    def _write_group(self) -> None:
        if not self._group:
            return
        if self._parquet is None:
            schema = pa.schema([(name, _type(value)) for name, value in self._group[0].items()])
            self._parquet = pq.ParquetWriter(self._unfinished, schema)
        self._parquet.write_table(pa.Table.from_pylist(self._group, self._parquet.schema))
        self._group.clear()


def write_table(path: Path, table: pa.Table, named: bool = True) -> None:
    """Writes predictions of `lorafit.evidence.predictions`, all or nothing.

    Args:
        path: Ends in one of `FORMATS`, and does not exist. A csv or tsv file is for people: it
            has no lists of probabilities.
        table: The predictions.
        named: Whether lists of probabilities are of the labels, whose names a jsonl file then has.

    Raises:
        DataError: The file cannot or should not be written.
    """
    check_target(path)
    kind = path.suffix.lower()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if kind == ".parquet":
            pq.write_table(table, unfinished)
        else:
            with unfinished.open("w", encoding="utf-8", newline="") as file:
                if kind == ".jsonl":
                    file.writelines(_json_lines(table, named))
                else:
                    _write_delimited(table, csv.writer(file, delimiter=_DELIMITERS[kind]))
        unfinished.replace(path)
    except OSError as error:
        raise DataError(f'cannot write "{path}": {error.strerror or error}.') from error
    finally:
        unfinished.unlink(missing_ok=True)


def _json_lines(table: pa.Table, named: bool) -> Iterator[str]:
    names = Predictions(table).label_names if named else []
    for row in Predictions(table).rows(range(len(table))):
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                row[name] = None  # JSON has no such number
            elif names and name.endswith("_probabilities") and isinstance(value, list):
                row[name] = dict(zip(names, value, strict=True))
        yield json_text(row) + "\n"


def _write_delimited(table: pa.Table, file: Any) -> None:
    columns = [name for name in table.column_names if not name.endswith("_probabilities")]
    file.writerow(columns)
    for row in Predictions(table.select(columns)).rows(range(len(table))):
        file.writerow([_cell(value) for value in row.values()])


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return value


def json_text(value: Any) -> str:
    """A value as JSON, letters beyond ASCII as they are."""
    return plain_json(value)


def _type(value: Any) -> pa.DataType:
    """The type of an entry of the answers, from its value in any row."""
    if isinstance(value, dict):
        return pa.struct([(name, pa.float64()) for name in value])
    if isinstance(value, list):
        return pa.list_(pa.string())
    return {int: pa.int64(), float: pa.float64()}.get(type(value), pa.string())

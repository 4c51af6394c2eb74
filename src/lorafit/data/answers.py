"""Answers to a file: csv for people, jsonl and parquet with every probability.

A row has its number in what was given, its text columns, ``answer``, and ``probability`` where
the task has one. The rows are written as they come, into a file beside the one that was asked
for, which takes its name once it is whole.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from lorafit.errors import DataError
from lorafit.run.atomic import as_json

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
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
        self._add: Callable[[dict[str, Any]], None] = {
            ".csv": self._add_delimited,
            ".tsv": self._add_delimited,
            ".jsonl": self._add_line,
            ".parquet": self._add_to_group,
        }[path.suffix.lower()]
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        self._table: Any = None
        self._group: list[dict[str, Any]] = []
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

    def _add_line(self, row: dict[str, Any]) -> None:
        self._file.write(json_text(row) + "\n")

    def _add_delimited(self, row: dict[str, Any]) -> None:
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

    def _add_to_group(self, row: dict[str, Any]) -> None:
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


def json_text(value: Any) -> str:
    """A value as JSON, letters beyond ASCII as they are."""
    return as_json(value)


def _type(value: Any) -> pa.DataType:
    """The type of an entry of the answers, from its value in any row."""
    if isinstance(value, dict):
        return pa.struct([(name, pa.float64()) for name in value])
    if isinstance(value, list):
        return pa.list_(pa.string())
    return {int: pa.int64(), float: pa.float64()}.get(type(value), pa.string())

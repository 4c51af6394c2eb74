"""Comma- and tab-separated text to an Arrow table, with the line number in every error.

The parsing is Python's ``csv`` in strict mode, because an unclosed quote must be an error
and not one very long review. What is more lenient is tried after that and said. A column
becomes integer, float or bool only if every value in it is one; ``NA``, ``null`` and
``None`` stay text, because a review may consist of that word.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from lorafit.data.read.reading import PLAIN, Reading
from lorafit.errors import DataError
from lorafit.units import listed

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_ROWS_A_CHUNK = 65_536
# A leading zero is part of the value (postcodes, codes of classes): such a column is text.
_NUMBER = r"^[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?$|^nan$|^NaN$"
_INTEGER = r"^-?(0|[1-9]\d*)$"


class _Malformed(Exception):
    """A line does not fit; the message carries the line number."""


def read_delimited(
    open_text: Callable[[], TextIO], name: str, delimiter: str, reading: Reading = PLAIN
) -> pa.Table:
    """Reads a delimited file with a header line.

    Args:
        open_text: Opens the decoded file at its beginning, with ``newline=""``.
        name: What to call the file in messages.
        delimiter: What the suffix promises; another one is used, and said, if the header
            line has none of these but has the other.
        reading: Whether lines that do not fit are left out.

    Raises:
        DataError: The file is empty, has duplicate column names, or a line does not fit.
    """
    with open_text() as file:
        header = next((line for line in file if line.strip()), "")
    if not header:
        raise DataError(f"{name} is empty. It needs a header line and at least one row.")
    promised, delimiter = delimiter, _delimiter(header, delimiter)
    if delimiter != promised:
        reading.findings.note(
            f"{name}: separated by {_DELIMITERS[delimiter]}, not {_DELIMITERS[promised]}"
        )
    dialects: list[tuple[str, dict[str, Any]]] = [("", {})]
    if delimiter == "\t":
        dialects.append(("quotes are read as part of the text", {"quoting": csv.QUOTE_NONE}))
    dialects.append(('quotes inside fields are read as \\"', {"escapechar": "\\"}))
    first: _Malformed | None = None
    for note, dialect in dialects:
        try:
            with open_text() as file, _any_field_size():
                table = _parse(csv.reader(file, delimiter=delimiter, strict=True, **dialect), name)
        except _Malformed as error:
            first = first or error
        else:
            if note:
                reading.findings.note(f"{name}: {note}")
            return table
    if reading.skip_bad_rows:
        bad: list[str] = []
        try:
            with open_text() as file, _any_field_size():
                table = _parse(csv.reader(file, delimiter=delimiter, strict=True), name, bad)
        except _Malformed as error:
            raise DataError(
                f"{name}: {error}, so that the lines after it cannot be told apart. Mend it."
            ) from error
        reading.findings.warn(f"{name}: skipped {len(bad)} lines that do not fit; first: {bad[0]}")
        return table
    raise DataError(
        f"{name}: {first}. Fields are separated by {_DELIMITERS[delimiter]}; a field that "
        'contains one, a line break or a quote has to stand in double quotes (""). '
        "Mend the line, or leave such lines out with --skip-bad-rows."
    ) from first


def _delimiter(header: str, promised: str) -> str:
    """The delimiter of the header line."""
    if promised in header:
        return promised
    counts = {other: header.count(other) for other in _DELIMITERS if other in header}
    if not counts:
        return promised  # one column
    return max(counts, key=lambda other: counts[other])


@contextmanager
def _any_field_size() -> Iterator[None]:
    """Lifts csv's limit of 131,072 characters a field: a document may be longer."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _parse(reader: Any, name: str, bad: list[str] | None = None) -> pa.Table:
    """All rows of a csv reader as a table of inferred types.

    Args:
        reader: Of ``csv``, strict.
        name: What to call the file in messages.
        bad: Takes what is wrong with lines that do not fit, which are then left out.
    """
    rows = _rows(reader, bad)
    names = _names(next(rows), name)
    chunks: list[list[pa.Array]] = [[] for _ in names]
    pending: list[list[str]] = []

    def flush() -> None:
        for chunk, values in zip(chunks, zip(*pending, strict=True), strict=True):
            chunk.append(pa.array(values, pa.large_string()))
        pending.clear()

    for row in rows:
        if len(row) != len(names):
            what = f"line {reader.line_num} has {_count(len(row))}, the header has {len(names)}"
            if bad is None:
                raise _Malformed(what)
            bad.append(what)
            continue
        pending.append(row)
        if len(pending) == _ROWS_A_CHUNK:
            flush()
    if pending:
        flush()
    columns = [_typed(pa.chunked_array(chunk, pa.large_string())) for chunk in chunks]
    return pa.table(columns, names=names)


def _rows(reader: Any, bad: list[str] | None) -> Iterator[list[str]]:
    """The rows that are not blank; a csv error becomes one with a line number, or is noted."""
    start = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error):  # what follows the quote is lost
                raise _Malformed(f"line {start}: a quote is opened and never closed") from error
            if bad is None:
                raise _Malformed(f"line {start}: {error}") from error
            bad.append(f"line {start}: {error}")
            row = []
        if row is None:
            return
        if row:
            if reader.dialect.delimiter == "\t" and any("\n" in f and "\t" in f for f in row):
                # A quote that only opens has run on to a later one.
                raise _Malformed(f"line {start} opens a quote that a later line closes")
            yield row
        start = reader.line_num + 1


def _count(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"


def _names(header: list[str], name: str) -> list[str]:
    """Column names: stripped, never empty, never twice."""
    names = [cell.strip() or f"Unnamed: {index}" for index, cell in enumerate(header)]
    twice = sorted(cell for cell, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(
            f"{name} has more than one column called {listed([repr(cell) for cell in twice])}: "
            f"{listed(names)}. Rename or remove one of them in the header line."
        )
    return names


def _typed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of text as integer, float or bool if all its values are; else as text."""
    empty = pc.equal(column, "")
    if pc.all(empty).as_py() in (True, None):
        return column.cast(pa.string())
    values = pc.if_else(empty, pa.scalar(None, pa.large_string()), column)
    for pattern, kind in ((_INTEGER, pa.int64()), (_NUMBER, pa.float64())):
        if pc.all(pc.match_substring_regex(values, pattern)).as_py():
            try:
                return pc.cast(values, kind)
            except pa.ArrowInvalid:  # more digits than 64 bits hold
                break
    if pc.all(pc.is_in(values, pa.array(["true", "false", None], pa.large_string()))).as_py() or (
        pc.all(pc.is_in(values, pa.array(["True", "False", None], pa.large_string()))).as_py()
    ):
        return pc.cast(values, pa.bool_())
    return _small(column)


def _small(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text with 32-bit offsets where they suffice, as other libraries write it."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return column

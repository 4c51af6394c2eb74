"""Lists written as text, as csv files have them: ``['O', 'B-LOC']`` and ``["toxic", "insult"]``.

A column is read as lists if every cell is one; otherwise it stays text, and that is said.
"""

from __future__ import annotations

import ast
import io
import itertools
import json
import re
import tokenize
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from lorafit.data.columns.choose import kind_of
from lorafit.data.columns.values import column_table, features_of, replace_columns
from lorafit.data.findings import UNKEPT, Findings

_LIST = r"^\s*(\[[\s\S]*\]|\(\s*['\"\d][\s\S]*,[\s\S]*\))\s*$"
"""In square brackets, or a tuple of texts or numbers: a remark in brackets is none."""
_MOSTLY = 0.5
"""Share of cells from which on the others are probably mistakes."""
_NEXT_TO_EACH_OTHER = re.compile(r"""['"]\s+['"]""")


def read_written_lists(splits: DatasetDict, findings: Findings = UNKEPT) -> DatasetDict:
    """Reads columns of which every cell, in every split, is a list written as text."""
    first = next(iter(splits.values()))
    found: dict[str, dict[str, pa.Array]] = {split: {} for split in splits}
    for name in first.column_names:
        tables = {s: rows for s, rows in splits.items() if name in features_of(rows)}
        shares = [_share_of_lists(rows, name) for rows in tables.values()]
        if min(shares) <= _MOSTLY:
            continue
        read = {split: _parsed(rows, name) for split, rows in tables.items()}
        arrays = {split: _array(values) for split, (values, _) in read.items()}
        bad = next((n for _, n in read.values() if n), None)
        if bad is None and all(array is not None for array in arrays.values()):
            findings.note(f'column "{name}" has lists written as text: they are read as lists')
            for split, array in arrays.items():
                found[split][name] = array
        elif bad is not None:
            findings.warn(
                f'column "{name}" looks like lists written as text, but row {bad:,} is none that '
                "can be read: it stays text. Save it as jsonl or parquet, which keep lists."
            )
        else:
            findings.warn(
                f'column "{name}" has lists written as text, of values of several kinds: it stays '
                "text. Save it as jsonl or parquet, with one kind of value."
            )
    return DatasetDict({s: replace_columns(rows, found[s]) for s, rows in splits.items()})


def parse_list(text: str) -> list[Any] | None:
    """The list that a text is, as JSON or Python write it; ``None``: it is none.

    What numpy prints, ``['a' 'b']``, is none: Python would read it as the one text ``ab``.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
        if _NEXT_TO_EACH_OTHER.search(text) and _joins_texts(text):
            return None
    return list(found) if isinstance(found, list | tuple) else None


def _joins_texts(text: str) -> bool:
    """Whether two texts stand next to each other without a comma."""
    kinds = [
        token.type
        for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline)
        if token.type not in (tokenize.NL, tokenize.NEWLINE)
    ]
    return any(a == b == tokenize.STRING for a, b in itertools.pairwise(kinds))


def _column(rows: Dataset, name: str) -> pa.ChunkedArray:
    return column_table(rows, [name]).column(name)


def _share_of_lists(rows: Dataset, name: str) -> float:
    """How many of the cells that are not empty look like lists, 0 to 1."""
    if kind_of(features_of(rows)[name]) != "text" or len(rows) == 0:
        return 0.0
    column = _column(rows, name)
    filled = pc.and_(pc.is_valid(column), pc.not_equal(pc.fill_null(column, ""), ""))
    column = column.filter(filled)
    return float(pc.mean(pc.match_substring_regex(column, _LIST)).as_py() or 0.0)


def _parsed(rows: Dataset, name: str) -> tuple[list[list[Any] | None], int | None]:
    """The lists, and the number of the first row that is none."""
    found: list[list[Any] | None] = []
    for number, text in enumerate(_column(rows, name).to_pylist(), start=1):
        values = parse_list(text) if text else None
        if text and values is None:
            return found, number
        found.append(values)
    return found, None


def _array(values: list[list[Any] | None]) -> pa.Array | None:
    """The lists as a column; ``None``: their values are not of one kind."""
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None

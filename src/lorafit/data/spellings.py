"""Labels that differ in case or spaces only: found, and joined where that is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict, List

from lorafit.config import DataConfig
from lorafit.data.columns.choose import kind_of, label_columns
from lorafit.data.columns.labelled import find_labels
from lorafit.data.columns.values import column_values, features_of, replace_columns
from lorafit.data.findings import UNKEPT, Findings


def plain_spelling(name: str) -> str:
    """A label without what spellings of it differ in."""
    return " ".join(name.split()).casefold()


def spellings(names: Iterable[str]) -> dict[str, list[str]]:
    """The spellings of each label, in the order of their first appearance."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(plain_spelling(name), []).append(name)
    return groups


def join_spellings(
    splits: DatasetDict, config: DataConfig, findings: Findings = UNKEPT
) -> DatasetDict:
    """Gives the labels of each column one spelling: the most frequent one in train, less spaces.

    The columns are those that were asked for, or that could be the label; which spellings were
    joined is said.
    """
    first = splits["train" if "train" in splits else next(iter(splits))]
    columns = label_columns(config.label) or [one.column for one in find_labels(first, config)]
    for column in columns:
        counts: Counter[str] = Counter(_names(first, column))
        # Most frequent in train; a label that only another split has keeps its own.
        order = sorted(counts, key=lambda name: (-counts[name], name))
        later = [name for rows in splits.values() for name in _names(rows, column)]
        groups = spellings(dict.fromkeys([*order, *later]))
        names = {plain: " ".join(same[0].split()) for plain, same in groups.items()}
        for plain, same in groups.items():
            others = [name for name in same if name != names[plain]]
            if others:
                joined = ", ".join(map(repr, others))
                findings.note(f'column "{column}": {joined} counted as {names[plain]!r}')
        splits = DatasetDict({s: _respelled(r, column, names) for s, r in splits.items()})
    return splits


def spelled_as(rows: Dataset, columns: Sequence[str], names: Sequence[str]) -> Dataset:
    """Gives labels the spelling of those that a task knows."""
    known = {plain_spelling(name): name for name in names}
    for column in columns:
        rows = _respelled(rows, column, known)
    return rows


def _holds_text(rows: Dataset, column: str) -> bool:
    feature: Any = features_of(rows).get(column)
    inner = feature.feature if isinstance(feature, List) else feature
    return inner is not None and kind_of(inner) == "text"


def _names(rows: Dataset, column: str) -> list[str]:
    """Every label of a column of text, or of lists of it, as often as it occurs."""
    if not _holds_text(rows, column):
        return []
    found: list[str] = []
    for value in column_values(rows, column):
        found += value if isinstance(value, list) else [value]
    return [name for name in found if name and name.strip()]


def _respelled(rows: Dataset, column: str, names: dict[str, str]) -> Dataset:
    if not _holds_text(rows, column):
        return rows

    def spell(value: Any) -> Any:
        return value if value is None else names.get(plain_spelling(value), value)

    values = [
        [spell(one) for one in value] if isinstance(value, list) else spell(value)
        for value in column_values(rows, column)
    ]
    return replace_columns(rows, {column: pa.array(values)})

"""What the labels of a data set look like: classes, numbers, sets of labels, or 0/1 columns.

This is how the tasks tell whether data are theirs; `lorafit.data.columns` then chooses and
checks the columns of the task that was taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, List, Value

from lorafit.config import DataConfig
from lorafit.data.columns.choose import (
    LABEL_NAMES,
    OTHER_LABEL_NAMES,
    by_name,
    kind_of,
    label_columns,
    most_classes,
)
from lorafit.data.columns.values import column_table, features_of

NUMBER_NAMES = ("score", "scores", "similarity", "similarity_score", "value", "price", "grade")
"""Columns that are labels only where they hold numbers."""

Holds = Literal["classes", "numbers", "sets"]


@dataclass(frozen=True)
class Labels:
    """A column that could be the label.

    Attributes:
        column: Its name.
        holds: ``classes``: one a row; ``numbers``: with fractions; ``sets``: a list of labels.
        certain: It was asked for and can be one, or its name says that it is the label.
    """

    column: str
    holds: Holds
    certain: bool


def find_labels(rows: Dataset, config: DataConfig) -> list[Labels]:
    """Returns the columns that could hold the label, of the best kind there is.

    Best is what was asked for, then a telling name, then any column of classes. Nothing is
    raised: choosing among several is the business of the task.
    """
    asked = label_columns(config.label)
    if asked:
        # Text that never repeats is what a language model is to write, if it is a label at all.
        return [
            Labels(name, kind, not is_prose(rows, name))
            for name in asked
            if (kind := holds(rows, name))
        ]
    taken = set(config.text or ())
    kinds = {
        name: kind for name in rows.column_names if name not in taken if (kind := holds(rows, name))
    }
    for names in (LABEL_NAMES, OTHER_LABEL_NAMES, NUMBER_NAMES):
        named = by_name(list(kinds), names)
        if names is NUMBER_NAMES:
            named = [name for name in named if kinds[name] == "numbers"]
        # Free text under such a name (a translation's "target") is no label.
        named = [name for name in named if names is LABEL_NAMES or not is_prose(rows, name)]
        if named:
            named = named[:1] if names is LABEL_NAMES else named  # "label" wins over "labels"
            return [Labels(name, kinds[name], True) for name in named]
    return [
        Labels(name, kind, False)
        for name, kind in kinds.items()
        if kind == "classes" and 2 <= _distinct(rows, name) <= most_classes(len(rows))
    ]


def find_label(rows: Dataset, config: DataConfig, kind: Holds) -> Labels | None:
    """The likeliest label that holds this, if a column of text is left beside it."""
    found = [labels for labels in find_labels(rows, config) if labels.holds == kind]
    return found[0] if found and has_text(rows, config, (found[0].column,)) else None


def holds(rows: Dataset, column: str) -> Holds | None:
    """What a column would be as labels; ``None``: nothing that is a label."""
    feature: Any = features_of(rows)[column]
    if isinstance(feature, ClassLabel):
        return "classes"
    if isinstance(feature, List):
        inner = feature.feature
        plain = isinstance(inner, ClassLabel | Value)
        return "sets" if plain and not kind_of(inner).startswith("float") else None
    if not isinstance(feature, Value) or kind_of(feature) == "empty":
        return None
    dtype = str(feature.dtype)
    if dtype.startswith("float"):
        return "numbers" if _has_fractions(rows, column) else "classes"
    return (
        "classes" if dtype.startswith(("string", "large_string", "bool", "int", "uint")) else None
    )


def binary_columns(rows: Dataset, config: DataConfig) -> tuple[str, ...]:
    """The columns of which every value is 0 or 1 (or false or true): one label each."""
    names = label_columns(config.label) or tuple(rows.column_names)
    return tuple(name for name in names if _is_binary(rows, name))


def has_text(rows: Dataset, config: DataConfig, labels: tuple[str, ...] = ()) -> bool:
    """Whether a column of text is left beside the labels."""
    return any(
        kind_of(feature) == "text"
        for name, feature in features_of(rows).items()
        if name not in labels and (config.text is None or name in config.text)
    )


def _column(rows: Dataset, name: str) -> pa.ChunkedArray:
    return column_table(rows, [name]).column(name)


def _has_fractions(rows: Dataset, name: str) -> bool:
    values = pc.drop_null(_column(rows, name))
    whole = pc.equal(values, pc.floor(values))
    return bool(pc.any(pc.and_(pc.invert(whole), pc.is_finite(values))).as_py())


def _is_binary(rows: Dataset, name: str) -> bool:
    feature: Any = features_of(rows)[name]
    dtype = str(getattr(feature, "dtype", ""))
    if not isinstance(feature, Value) or not dtype.startswith(("bool", "int", "uint", "float")):
        return False
    values = set(pc.unique(pc.drop_null(_column(rows, name))).to_pylist())
    return bool(values) and values <= {0, 1}


def _distinct(rows: Dataset, name: str) -> int:
    return int(pc.count_distinct(_column(rows, name)).as_py())


def is_prose(rows: Dataset, name: str) -> bool:
    """Whether a column holds text that hardly ever repeats, so that it is no label."""
    if kind_of(features_of(rows)[name]) != "text":
        return False
    return _distinct(rows, name) > most_classes(len(rows))

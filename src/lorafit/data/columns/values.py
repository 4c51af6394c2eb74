"""Values of one column, and how its classes are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetInfo, Features
from datasets.formatting import query_table
from datasets.table import InMemoryTable


def features_of(data: Dataset) -> Mapping[str, Any]:
    """What each column holds, to look at.

    `Dataset.features` copies the descriptions of all columns at every look.
    """
    return data.info.features or {}


def column_table(data: Dataset, columns: list[str]) -> pa.Table:
    """Returns some columns as an Arrow table, in the order of the data set's rows.

    Not by `Dataset.select_columns`: it copies the description of every column there is, so that
    looking at each of 20,000 columns would copy 400 million descriptions.
    """
    indices = data._indices  # noqa: SLF001 the order of the rows; datasets has no other way to it
    return query_table(data.data.select(columns), slice(0, len(data)), indices=indices)


def column_values(data: Dataset, column: str) -> list[Any]:
    """Returns a column as a list of Python values (class labels as their numbers)."""
    values: list[Any] = column_table(data, [column]).column(column).to_pylist()
    return values


def replace_columns(data: Dataset, columns: Mapping[str, Any]) -> Dataset:
    """Returns the data with other values in some columns, of the types that the values have.

    Args:
        data: Has the columns.
        columns: Names to Arrow arrays, each of as many values as there are rows.
    """
    if not columns:
        return data
    made = features_of(Dataset(InMemoryTable(pa.table(dict(columns)))))
    names = data.column_names
    table = column_table(data, names)
    values = [columns.get(name, table.column(place)) for place, name in enumerate(names)]
    info = DatasetInfo(features=Features({**features_of(data), **made}))
    return Dataset(InMemoryTable(pa.table(dict(zip(names, values, strict=True)))), info=info)


def texts(data: Dataset, columns: list[str]) -> list[tuple[str, ...]]:
    """Returns the texts of each row, ``""`` for a missing one."""
    values = [column_values(data, column) for column in columns]
    return [
        tuple("" if text is None else str(text) for text in row)
        for row in zip(*values, strict=True)
    ]


def is_missing(value: Any, feature: Any) -> bool:
    """Whether a label is not known: null, NaN, blank, or -1 where classes count from 0."""
    if value is None or value != value:  # NaN is the one value that differs from itself
        return True
    if isinstance(value, str) and not value.strip():
        return True
    return isinstance(feature, ClassLabel) and value == -1


def class_name(value: Any, feature: Any) -> str:
    """Returns what a label is called: its class name if the column has names."""
    if isinstance(feature, ClassLabel) and isinstance(value, int) and value >= 0:
        return str(feature.int2str(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)

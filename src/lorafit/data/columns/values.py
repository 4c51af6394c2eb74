"""Values of one column, and how its classes are called."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetInfo
from datasets.table import InMemoryTable


def column_table(data: Dataset, columns: list[str]) -> pa.Table:
    """Returns some columns as an Arrow table, in the order of the data set's rows."""
    return data.select_columns(columns).with_format("arrow")[:]


def column_values(data: Dataset, column: str) -> list[Any]:
    """Returns a column as a list of Python values (class labels as their numbers)."""
    values: list[Any] = column_table(data, [column]).column(column).to_pylist()
    return values


def replace_column(data: Dataset, column: str, values: Any) -> Dataset:
    """Returns the data with other values in a column, of the type that the values have.

    Args:
        data: Has the column.
        column: Which.
        values: An Arrow array of as many values as there are rows.
    """
    names = data.column_names
    made = Dataset(InMemoryTable(pa.table({column: values})))
    features = data.features.copy()
    features[column] = made.features[column]
    table = column_table(data, names).set_column(names.index(column), column, values)
    return Dataset(
        InMemoryTable(table.replace_schema_metadata(None)), info=DatasetInfo(features=features)
    )


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

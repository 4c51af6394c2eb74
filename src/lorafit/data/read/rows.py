"""In-memory rows to a `datasets.Dataset`: lists of dicts, dicts of columns, frames, tables.

The data set lives in memory and carries no cache file, so nothing made from it is written
next to the user's files.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset

from lorafit.errors import DataError
from lorafit.units import listed

_HALF = re.compile("[\ud800-\udfff]")


def to_dataset(rows: Any, name: str) -> Dataset:
    """Makes a data set of anything that holds one table.

    Args:
        rows: A list of dicts, a dict of columns, a pandas DataFrame, a `datasets.Dataset`,
            a pyarrow Table, or anything else that exports Arrow (such as a polars frame).
        name: What to call it in messages.

    Raises:
        DataError: It holds no rows, columns of unequal length, a column name twice, or a
            column that mixes types.
    """
    if isinstance(rows, Dataset):
        data = rows.with_format(None)
    else:
        data = _from_table(_table(rows, name), name)
    data = _unopened(data)
    if not data.column_names:
        raise DataError(f"{name} has no columns.")
    if len(data) == 0:
        raise DataError(f"{name} has 0 rows (columns: {listed(data.column_names)}).")
    return data


def _table(rows: Any, name: str) -> pa.Table:
    if isinstance(rows, pd.DataFrame):
        return _from_frame(rows, name)
    if isinstance(rows, pa.Table):
        return rows
    if hasattr(rows, "__arrow_c_stream__"):
        return pa.table(rows)
    if isinstance(rows, Mapping):
        return _from_columns(rows, name)
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        return _from_rows(rows, name)
    raise DataError(
        f"{name} is {type(rows).__name__}, which holds no rows. Give a path, a Hub id, a "
        "datasets.Dataset, a pandas DataFrame, a dict of columns or a list of dicts."
    )


def _from_table(table: pa.Table, name: str) -> Dataset:
    names = table.column_names
    twice = sorted(column for column, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(
            f"{name} has more than one column called {listed([repr(column) for column in twice])}. "
            "Rename or remove one of them."
        )
    try:
        return Dataset(datasets.table.InMemoryTable(_plain(table)))
    # datasets also reads what the schema says of its columns, which may be anything.
    except (
        *(pa.ArrowException, ValueError, TypeError, KeyError, AttributeError),
        NotImplementedError,
    ) as error:
        raise DataError(f"{name} has a column of a type that cannot be used: {error}") from error


def _unopened(data: Dataset) -> Dataset:
    """Images, sounds and the like as what they are stored as: bytes, and the name of a file.

    datasets opens such names, fetches those that are addresses, when a row is asked for, and puts
    their content into what is saved. The file says which of its columns are that, so whoever made
    it would choose what is opened.
    """
    features = {name: _as_stored(feature) for name, feature in data.features.items()}
    if features == dict(data.features):
        return data
    info = data.info.copy()
    info.features = datasets.Features(features)
    # A selection of rows is a column of places beside the table.
    table = data.flatten_indices().data if data._indices is not None else data.data  # noqa: SLF001
    return Dataset(table.replace_schema_metadata(None), info=info, split=data.split)


def _as_stored(feature: Any) -> Any:
    """A feature, and all that are in it, as plain values where it opens files; JSON does not."""
    if isinstance(feature, dict):
        return {name: _as_stored(inner) for name, inner in feature.items()}
    if isinstance(feature, list):
        return [_as_stored(inner) for inner in feature]
    if getattr(feature, "decode", False) and type(feature).__name__ != "Json":
        return datasets.Features.from_arrow_schema(pa.schema({"": feature()}))[""]
    if hasattr(feature, "feature"):  # a list of them
        return dataclasses.replace(feature, feature=_as_stored(feature.feature))
    return feature


def _plain(table: pa.Table) -> pa.Table:
    """Spells out categories (dictionary columns) and widens half precision.

    Both are encodings and no types of their own; little that reads numbers knows halves.
    """
    columns, fields = list(table.columns), list(table.schema)
    for index, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        kind = _widened(kind)
        if kind != field.type:
            columns[index] = table.column(index).cast(kind)
            fields[index] = pa.field(field.name, kind)
    if fields == list(table.schema):
        return table
    schema = pa.schema(fields, metadata=table.schema.metadata)
    return pa.table(columns, schema=schema)


def _widened(kind: pa.DataType) -> pa.DataType:
    """A type with float32 for float16, also in lists."""
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_list(kind):
        inner = _widened(kind.value_type)
        return kind if inner == kind.value_type else pa.list_(inner)
    return kind


def _from_frame(frame: pd.DataFrame, name: str) -> pa.Table:
    frame = frame.copy(deep=False)
    frame.columns = frame.columns.map(str)
    twice = sorted(set(frame.columns[frame.columns.duplicated()]))
    if twice:
        raise DataError(
            f"{name} has more than one column called {listed([repr(column) for column in twice])}. "
            "Rename or remove one of them."
        )
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{name}: {_first_line(error)} Give each column one type.") from error
    return table.replace_schema_metadata(None)


def _from_columns(columns: Mapping[Any, Any], name: str) -> pa.Table:
    lengths: dict[str, int] = {}
    arrays = {}
    for key, values in columns.items():
        if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
            raise DataError(
                f'{name}: column "{key}" is {type(values).__name__}, not a list of values.'
            )
        lengths[str(key)] = len(values)
        arrays[str(key)] = _column(values, str(key), name)
    if len(set(lengths.values())) > 1:
        counts = listed([f"{key} has {length:,}" for key, length in lengths.items()])
        raise DataError(f"{name}: the columns are not of one length: {counts}.")
    return pa.table(arrays)


def _from_rows(rows: Sequence[Any], name: str) -> pa.Table:
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(
                f"{name}: row {index} is {type(row).__name__}, not a dict of columns. "
                'Each row has to be a dict such as {"text": "...", "label": 1}.'
            )
    # In the order of first appearance; a key that a row lacks is a missing value.
    keys = dict.fromkeys(key for row in rows for key in row)
    return pa.table(
        {str(key): _column([row.get(key) for row in rows], str(key), name) for key in keys}
    )


def _column(values: Any, key: str, name: str) -> pa.Array:
    """One column; a mix of types is an error that shows where it starts."""
    if isinstance(values, np.ndarray) and values.ndim > 1:
        values = list(values)
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(f'{name}: column "{key}" {_mix(values, error)}') from error


def _mix(values: Any, error: Exception) -> str:
    """What is wrong with a column: the first value that is of another kind, or the error."""
    first: dict[str, tuple[int, Any]] = {}
    for index, row in enumerate(values):
        if (broken := broken_character(row)) is not None:
            return (
                f"cannot be read: row {index} holds half of a character ({broken!r}). Text that "
                "was cut within a character has it; take it out."
            )
        for path, value in _within(row):
            row_of_first, other = first.setdefault(path, (index, value))
            if _kind(value) != _kind(other):
                where = f" in {path}" if path else ""
                return (
                    f"mixes types{where}: row {row_of_first} holds {_kind(other)} "
                    f"({_shown(other)}), row {index} holds {_kind(value)} ({_shown(value)}). "
                    "Give it one type."
                )
    return f"cannot be read: {_first_line(error)}"


def _within(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """A value and all that it holds, by the names on the way; places in lists do not count."""
    if value is None:
        return
    yield path, value
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _within(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _within(part, f"{path}[]")


def broken_character(value: Any) -> str | None:
    """Half of a character (a surrogate without its other half), which is no text, if one is there.

    Args:
        value: A text, or lists and dicts of texts; what else it holds is not looked at.
    """
    for _, part in _within(value):
        if isinstance(part, str) and (found := _HALF.search(part)):
            return found[0]
    return None


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "a bool"
    if isinstance(value, int | float | np.number):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple | np.ndarray):
        return "a list"
    return f"a {type(value).__name__}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."

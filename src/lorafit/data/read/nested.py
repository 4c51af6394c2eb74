"""Columns inside columns: ``translation.en`` is the field ``en`` of the column ``translation``."""

from __future__ import annotations

import re
from typing import Any

import datasets
import pyarrow.compute as pc
from datasets import Dataset

from lorafit.config import DataConfig
from lorafit.data.columns.choose import label_columns
from lorafit.data.columns.values import column_table, features_of
from lorafit.errors import DataError, did_you_mean
from lorafit.units import listed


def with_nested(rows: Dataset, config: DataConfig) -> Dataset:
    """Adds the fields that the settings name by their path as columns of that name.

    Args:
        rows: The data.
        config: ``text`` and ``label``, and names in backticks in ``where``.

    Raises:
        DataError: A column has no such field.
    """
    wanted = [*(config.text or ()), *label_columns(config.label)]
    wanted += re.findall(r"`([^`]+)`", config.where or "")
    for name in dict.fromkeys(wanted):
        first, *path = name.split(".")
        if (
            name not in features_of(rows)
            and path
            and isinstance(features_of(rows).get(first), dict)
        ):
            rows = _add(rows, name, first, path)
    return rows


def _add(rows: Dataset, name: str, first: str, path: list[str]) -> Dataset:
    feature: Any = features_of(rows)[first]
    reached = first
    for part in path:
        fields = feature if isinstance(feature, dict) else {}
        if part not in fields:
            there = f"It has {listed(list(fields))}." if fields else "It has no fields."
            raise DataError(
                f'no column "{name}": "{reached}" has no field "{part}". {there}'
                + did_you_mean(part, fields)
            )
        feature, reached = fields[part], f"{reached}.{part}"
    table = column_table(rows, rows.column_names)
    column = pc.struct_field(table.column(first), path)
    features = rows.features.copy()
    features[name] = feature
    table = table.append_column(name, column)
    return Dataset(
        datasets.table.InMemoryTable(table.replace_schema_metadata(None)),
        info=datasets.DatasetInfo(features=features),
    )

"""Which row an encoded example was made of, where that is not the one at its place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset

ROW = "row"
"""Column of the encoded examples: the place of an example's row. It is there only where rows
were left out, or made several examples; else example ``i`` is row ``i``."""


def with_rows(table: pa.Table, places: Sequence[int], rows: int) -> pa.Table:
    """The encoded examples, with the places of their rows where they have to be told.

    Args:
        table: The examples.
        places: Of each example's row.
        rows: How many rows there were.
    """
    if list(places) == list(range(rows)):
        return table
    return table.append_column(ROW, pa.array(places, type=pa.int64()))


def rows_of(encoded: Dataset, rows: int) -> np.ndarray | None:
    """The place of each example's row, ``(n,)`` int64; ``None``: the task does not tell."""
    if ROW in encoded.column_names:
        return np.asarray(encoded[ROW], dtype=np.int64)
    return np.arange(rows) if len(encoded) == rows else None

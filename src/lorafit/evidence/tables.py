"""A table beside the metrics: how each class fares, what is taken for what."""

from __future__ import annotations

# pydantic reads this one; on Python 3.11 not typing's.
from typing_extensions import TypedDict

Cell = str | int | float


class Table(TypedDict):
    """A table as JSON has it.

    Attributes:
        title: What it shows.
        columns: Names of the columns.
        rows: The cells, row by row.
    """

    title: str
    columns: list[str]
    rows: list[list[Cell]]

"""A table beside the metrics: how each class fares, what is taken for what."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

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


def _rectangular(table: Table) -> Table:
    columns = len(table["columns"])
    for number, row in enumerate(table["rows"], start=1):
        if len(row) != columns:
            raise ValueError(f"row {number} has {len(row)} cells, and there are {columns} columns")
    return table


ReadTable = Annotated[Table, AfterValidator(_rectangular)]
"""A table of a file: each row has a cell for each column."""

"""The tables beside the metrics; a confusion matrix as wide as the terminal allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorafit.console.output import show
from lorafit.console.tables import fits, show_table
from lorafit.evidence import Table
from lorafit.units import count

INDENT = 2
MOST_CLASSES = 25
"""Classes up to which a matrix can be read."""


def show_class_tables(tables: Sequence[Table], in_report: bool = True) -> None:
    """Shows each class, the confusion matrix, the most frequent mistakes.

    Args:
        tables: As ``eval.json`` has them.
        in_report: Whether a report has what has no room.
    """
    for table in tables:
        show()
        cells = [[cell(value) for value in row] for row in table["rows"]]
        if _is_matrix(table):
            _show_matrix(table["title"], table["columns"], cells, in_report)
        else:
            show(f"{table['title']}:")
            show_table(cells, table["columns"], INDENT)


def _is_matrix(table: Table) -> bool:
    """Whether columns and rows are the same classes."""
    return table["columns"][1:] == [str(row[0]) for row in table["rows"]]


def _show_matrix(
    title: str, columns: Sequence[str], cells: Sequence[Sequence[str]], in_report: bool
) -> None:
    """Whole, else with numbers for names above the columns, else beside the rows too, else not."""
    if len(cells) <= MOST_CLASSES:
        if fits(cells, columns, INDENT):
            show(f"{title}:")
            show_table(cells, columns, INDENT)
            return
        numbers = [str(number) for number in range(1, len(cells) + 1)]
        widest = len(numbers[-1])
        numbered = [
            [f"{number:>{widest}} {name}", *others]
            for number, (name, *others) in zip(numbers, cells, strict=True)
        ]
        header = [columns[0], *numbers]
        if fits(numbered, header, INDENT):
            show(f"{title} (by their numbers):")
            show_table(numbered, header, INDENT)
            return
        bare = [[number, *row[1:]] for number, row in zip(numbers, cells, strict=True)]
        if fits(bare, header, INDENT):
            show(f"{title} (by their numbers):")
            show(", ".join(f"{row[0].strip()}" for row in numbered))
            show_table(bare, header, INDENT)
            return
    where = "they are in report.html" if in_report else "a wider terminal or --json shows them"
    show(f"{title}: {len(cells)} classes have no room here; {where}.")


def cell(value: Any) -> str:
    """Fractions to three places, counts with separators."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return count(value) if isinstance(value, int) else str(value)

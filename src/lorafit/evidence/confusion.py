"""What the tables beside the metrics say of each class: scores, and what is taken for what.

The tables are found by their columns, so that those of other packages' tasks are read too, and
a damaged one is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorafit.evidence.tables import Table

SCORES = ["precision", "recall", "f1"]
MISTAKES = ["true", "predicted", "examples"]


@dataclass(frozen=True)
class Confusion:
    """How many examples of each class were given each label.

    Attributes:
        names: The classes, the most frequent first.
        counts: A row for each true class, a column for each predicted one, in that order.
    """

    names: list[str]
    counts: list[list[int]]

    @property
    def total(self) -> int:
        """All examples."""
        return sum(map(sum, self.counts))

    @property
    def most_frequent(self) -> tuple[str, float]:
        """The class that most examples have, and their share."""
        sizes = [sum(row) for row in self.counts]
        return self.names[0], sizes[0] / max(self.total, 1)

    @property
    def never_predicted(self) -> list[str]:
        """Classes that occur and that the model never gave."""
        return [
            name
            for at, name in enumerate(self.names)
            if sum(self.counts[at]) and not any(row[at] for row in self.counts)
        ]

    def largest(self, most: int) -> list[tuple[str, str, int]]:
        """True class, predicted class and count of the most frequent mistakes."""
        wrong = [
            (count, -i, -j)
            for i, row in enumerate(self.counts)
            for j, count in enumerate(row)
            if i != j and count
        ]
        return [(self.names[-i], self.names[-j], count) for count, i, j in
                sorted(wrong, reverse=True)[:most]]  # fmt: skip

    def reduced(self, most: int) -> tuple[Confusion, int]:
        """The classes with the most mistakes, to or from them, and the others together.

        Returns:
            The matrix, and how many classes were put together.
        """
        if len(self.names) <= most:
            return self, 0
        every = range(len(self.names))
        wrong = [
            sum(self.counts[at]) + sum(row[at] for row in self.counts) - 2 * self.counts[at][at]
            for at in every
        ]
        kept = sorted(sorted(every, key=lambda at: -wrong[at])[: most - 1])
        groups = [[at] for at in kept] + [[at for at in every if at not in kept]]
        counts = [[sum(self.counts[i][j] for i in a for j in b) for b in groups] for a in groups]
        left = len(groups[-1])
        return Confusion([*(self.names[at] for at in kept), f"{left} other classes"], counts), left


def confusion_of(tables: Sequence[Table]) -> Confusion | None:
    """The confusion matrix among the tables, ``None`` if there is none."""
    for table in tables:
        names = list(map(str, table["columns"][1:]))
        rows = table["rows"]
        square = len(rows) == len(names) > 1 and all(len(row) == len(names) + 1 for row in rows)
        if table["columns"][:1] != ["true"] or not square:
            continue
        cells = [row[1:] for row in rows]
        if [str(row[0]) for row in rows] != names or not all(_count(x) for r in cells for x in r):
            continue
        order = sorted(range(len(names)), key=lambda at: -sum(map(int, cells[at])))
        counts = [[int(cells[i][j]) for j in order] for i in order]
        return Confusion([names[at] for at in order], counts)
    return None


def largest_confusions(tables: Sequence[Table], most: int) -> list[tuple[str, str, int]]:
    """True class, predicted class and count of the most frequent mistakes.

    From the matrix, or where there are too many classes for one from the list of mistakes.
    """
    matrix = confusion_of(tables)
    if matrix is not None:
        return matrix.largest(most)
    found = [
        (str(row[0]), str(row[1]), int(row[2]))
        for table in tables
        if table["columns"] == MISTAKES
        for row in table["rows"]
        if len(row) == len(MISTAKES) and _count(row[2])
    ]
    return found[:most]


def class_scores(tables: Sequence[Table]) -> Table | None:
    """Precision, recall and F1 of each class, the most frequent first; ``None``: there are none."""
    for table in tables:
        columns, rows = table["columns"], table["rows"]
        if columns[1:4] == SCORES and all(len(row) == len(columns) for row in rows):
            last: Any = len(columns) - 1
            if all(_count(row[last]) for row in rows):
                rows = sorted(rows, key=lambda row: -float(row[last]))
            return {"title": table["title"], "columns": columns, "rows": rows}
    return None


def other_tables(tables: Sequence[Table]) -> list[Table]:
    """The tables that are neither scores of classes, nor a confusion matrix, nor its mistakes."""
    scores, matrix = class_scores(tables), confusion_of(tables)
    return [
        table
        for table in tables
        if not (scores is not None and table["title"] == scores["title"])
        and not (matrix is not None and table["columns"][:1] == ["true"])
    ]


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0

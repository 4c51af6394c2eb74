"""Tables beside the metrics: how each class fares, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorafit.evidence import Table
from lorafit.evidence.tables import Cell
from lorafit.units import count

MOST_CLASSES = 30
"""Classes up to which each is listed, and each pair of them: a matrix grows with their square. Of
more the worst are listed, and the pairs that are confused most often."""
MOST_CONFUSIONS = 10
"""Rows of the list of confusions, where there is a matrix too."""


def per_class(
    true: np.ndarray, predicted: np.ndarray, names: Sequence[str], what: str = "label"
) -> Table:
    """Precision, recall and F1 of each class, and how many examples have it.

    Args:
        true: ``(n,)`` class numbers, or ``(n, classes)`` of 0 and 1.
        predicted: The same for what the model says.
        names: Of the classes.
        what: Heading of the names.
    """
    # Here: the package takes 40 MB, and training alone does without.
    from sklearn.metrics import precision_recall_fscore_support

    numbers = np.arange(len(names))
    scores = precision_recall_fscore_support(true, predicted, labels=numbers, zero_division=0.0)
    rows: list[list[Cell]] = [
        [name, *(float(score) for score in row[:3]), int(row[3])]
        for name, row in zip(names, np.stack(scores, axis=1), strict=True)
    ]
    return scores_of_classes(what, [what, "precision", "recall", "f1", "examples"], rows)


def scores_of_classes(what: str, columns: list[str], rows: list[list[Cell]]) -> Table:
    """A row a class; of many classes those with the lowest F1, the most frequent of them first.

    Args:
        what: Such as ``label``.
        columns: Name, precision, recall, F1 and how often it is true.
        rows: Of all classes.
    """
    title = f"Each {what}"
    if len(rows) > MOST_CLASSES:
        true = [row for row in rows if row[-1]] or rows
        rows = sorted(true, key=lambda row: (float(row[3]), -float(row[-1])))[:MOST_CLASSES]
        title = f"The {MOST_CLASSES} of {count(len(true))} {what}s with the lowest F1"
    return {"title": title, "columns": columns, "rows": rows}


def tables_of_classes(true: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> list[Table]:
    """Each class and what is taken for what; of many classes the worst of both.

    Args:
        true: ``(n,)`` class numbers.
        predicted: The same for what the model says.
        names: Of the classes.
    """
    found = [per_class(true, predicted, names)]
    if len(names) <= MOST_CLASSES:
        found.append(confusion(true, predicted, names))
    mistakes = confusions(true, predicted, names)
    return found + ([mistakes] if len(names) > 2 and mistakes["rows"] else [])


def confusion(true: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> Table:
    """How many examples of each class (row) were given each label (column)."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(true, predicted, labels=np.arange(len(names)))
    return {
        "title": "Confusion: true label in rows, predicted label in columns",
        "columns": ["true", *names],
        "rows": [[name, *map(int, row)] for name, row in zip(names, matrix, strict=True)],
    }


def confusions(true: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> Table:
    """The most frequent mistakes, for matrices too wide to be read or to be made."""
    wrong = true != predicted
    pairs, numbers = np.unique(
        true[wrong].astype(np.int64) * len(names) + predicted[wrong], return_counts=True
    )
    most = MOST_CONFUSIONS if len(names) <= MOST_CLASSES else MOST_CLASSES
    order = np.argsort(-numbers, kind="stable")[:most]
    found = [(*divmod(int(pairs[at]), len(names)), int(numbers[at])) for at in order]
    return {
        "title": "Most frequent mistakes",
        "columns": ["true", "predicted", "examples"],
        "rows": [[names[i], names[j], number] for i, j, number in found],
    }

"""Tables beside the metrics: how each class fares, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorafit.evidence import Table
from lorafit.evidence.tables import Cell

MOST_CONFUSIONS = 10
"""Rows of the list of confusions."""


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
    columns = [what, "precision", "recall", "f1", "examples"]
    return {"title": f"Each {what}", "columns": columns, "rows": rows}


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
    """The most frequent mistakes, for matrices too wide to be read."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(true, predicted, labels=np.arange(len(names)))
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(index), len(names)) for index in order]
    return {
        "title": "Most frequent mistakes",
        "columns": ["true", "predicted", "examples"],
        "rows": [[names[i], names[j], int(matrix[i, j])] for i, j in pairs if matrix[i, j]],
    }

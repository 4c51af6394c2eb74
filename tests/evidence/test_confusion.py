from __future__ import annotations

import pytest

from lorafit.evidence import Table
from lorafit.evidence.confusion import class_scores, confusion_of, other_tables

MATRIX: Table = {
    "title": "Confusion",
    "columns": ["true", "rare", "often", "never"],
    "rows": [["rare", 3, 1, 0], ["often", 2, 10, 0], ["never", 0, 5, 0]],
}
SCORES: Table = {
    "title": "Each label",
    "columns": ["label", "precision", "recall", "f1", "examples"],
    "rows": [["rare", 0.6, 0.75, 0.67, 4], ["often", 0.6, 0.8, 0.7, 12]],
}
MISTAKES: Table = {
    "title": "Most frequent mistakes",
    "columns": ["true", "predicted", "examples"],
    "rows": [["never", "often", 5]],
}
OTHER: Table = {"title": "Lengths", "columns": ["length", "n"], "rows": [["short", 3]]}


def test_the_most_frequent_class_stands_first() -> None:
    found = confusion_of([OTHER, SCORES, MISTAKES, MATRIX])
    assert found is not None
    assert found.names == ["often", "never", "rare"]
    assert found.counts == [[10, 0, 2], [5, 0, 0], [1, 0, 3]]
    assert found.total == 21
    assert found.most_frequent == ("often", 12 / 21)
    assert found.never_predicted == ["never"]
    assert found.largest(2) == [("never", "often", 5), ("often", "rare", 2)]


def test_a_large_matrix_keeps_the_classes_with_most_mistakes_and_every_example() -> None:
    found = confusion_of([MATRIX])
    assert found is not None
    smaller, together = found.reduced(2)
    assert together == 2
    assert smaller.names == ["often", "2 other classes"]
    assert smaller.counts == [[10, 2], [6, 3]]
    assert smaller.total == found.total
    assert found.reduced(3) == (found, 0)


def test_scores_are_sorted_and_the_other_tables_are_left() -> None:
    tables = [OTHER, SCORES, MATRIX, MISTAKES]
    found = class_scores(tables)
    assert found is not None
    assert [row[0] for row in found["rows"]] == ["often", "rare"]
    assert other_tables(tables) == [OTHER]
    assert other_tables([MISTAKES]) == [MISTAKES]  # without a matrix it is all there is


@pytest.mark.parametrize(
    "rows",
    [
        [["rare", 3, 1, 0], ["often", 2, 10, 0]],
        [["rare", 3, 1], ["often", 2, 10, 0], ["never", 0, 5, 0]],
        [["rare", 3, 1, 0], ["often", 2, "x", 0], ["never", 0, 5, 0]],
        [["rare", 3, 1, 0], ["often", 2, -1, 0], ["never", 0, 5, 0]],
        [["other", 3, 1, 0], ["often", 2, 1, 0], ["never", 0, 5, 0]],
    ],
)
def test_what_is_no_matrix_is_passed_over(rows: list[list[str | int | float]]) -> None:
    damaged: Table = {"title": MATRIX["title"], "columns": MATRIX["columns"], "rows": rows}
    assert confusion_of([damaged]) is None
    assert other_tables([damaged]) == [damaged]

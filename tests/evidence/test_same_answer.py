"""Always the same answer: as the file says it, or as an older file implies it."""

from __future__ import annotations

from lorafit.evidence import Baseline, Evaluation, Table
from lorafit.evidence.same_answer import baseline_of, never_predicted

CONFUSION: Table = {
    "title": "Confusion",
    "columns": ["true", "a", "b"],
    "rows": [["a", 6, 0], ["b", 4, 0]],
}
OLDER = {
    "metric": "accuracy",
    "metrics": {
        "accuracy": {"name": "accuracy", "title": "accuracy", "form": "share"},
        "f1": {"name": "f1", "title": "F1"},
    },
    "tuned": {"accuracy": {"value": 0.6}, "f1": {"value": 0.3}},
    "tables": [CONFUSION],
}


def test_what_the_file_says_comes_before_what_its_tables_say() -> None:
    said = {"answer": '"b"', "metrics": {"accuracy": 0.4}}
    evaluation = Evaluation.from_json(OLDER | {"baseline": said, "never_predicted": ["c"]})
    assert baseline_of(evaluation) == Baseline.model_validate(said)
    assert never_predicted(evaluation) == ["c"]


def test_of_an_older_file_the_confusion_matrix_says_it() -> None:
    older = Evaluation.from_json(OLDER)
    assert older.baseline is None
    assert baseline_of(older) == Baseline(answer='"a"', metrics={"accuracy": 0.6})
    assert never_predicted(older) == ["b"]


def test_without_either_nothing_is_said() -> None:
    evaluation = Evaluation.from_json(OLDER | {"tables": []})
    assert baseline_of(evaluation) is None
    assert never_predicted(evaluation) == []

from __future__ import annotations

import json
from typing import Any

import pytest

from lorafit.errors import RunError
from lorafit.evidence import (
    SCHEMA,
    Choice,
    Choices,
    Difference,
    Evaluation,
    HandOff,
    Interval,
    MetricInfo,
)

FOUND = Evaluation(
    n=9,
    metric="accuracy",
    confidence=0.9,
    metrics={"accuracy": MetricInfo("accuracy", "right ones", form="share", low=0, high=1)},
    base={"accuracy": Interval(0.5, 0.4, 0.6, 9, 0.9)},
    tuned={"accuracy": Interval(0.8, 0.7, 0.9, 9, 0.9)},
    paired={"accuracy": Difference(0.3, 0.2, 0.4, 9, 0.9, p_value=0.03)},
    tables=[{"title": "Each", "columns": ["a", "n"], "rows": [["x", 1], ["y", 0.5]]}],
    handoff=HandOff(reloaded_max_abs_diff=0.0, n=9, tolerance=1e-5),
    training={"steps": 3, "best_eval_loss": None},
)


def test_a_record_is_read_as_it_was_written() -> None:
    content = json.loads(json.dumps(FOUND.to_json()))
    assert content["schema"] == SCHEMA
    assert content["paired"]["accuracy"]["difference"] == 0.3
    assert content["handoff"] == {"reloaded_max_abs_diff": 0.0, "n": 9, "tolerance": 1e-5}
    assert content["training"] == {"steps": 3, "best_eval_loss": None}
    assert Evaluation.from_json(content) == FOUND


def test_choices_stand_in_the_file_by_their_names_beside_the_cost() -> None:
    choices = Choices(
        choices={"r": Choice(8, "enough"), "modules": Choice({"value", "query"}, "all")},
        cost={"runs": 1.4},
        others={"whole_runs": [{"r": 8}]},
    )
    content = json.loads(json.dumps(choices.to_json()))
    assert content == {
        "schema": SCHEMA,
        "r": {"value": 8, "reason": "enough", "evidence": {}},
        "modules": {"value": ["query", "value"], "reason": "all", "evidence": {}},
        "whole_runs": [{"r": 8}],
        "cost": {"runs": 1.4},
    }
    assert Choices.from_json(content) == choices


def test_a_name_is_not_a_list_of_letters() -> None:
    assert Choice("all-linear").value == "all-linear"
    assert Choice(("b", "a")).value == ["b", "a"]


def test_a_file_of_a_later_version_is_refused() -> None:
    with pytest.raises(RunError, match=r'"eval.json" has version 2 .* reads up to 1'):
        Evaluation.from_json(FOUND.to_json() | {"schema": 2})


def test_a_damaged_file_is_refused_with_the_place() -> None:
    content: Any = FOUND.to_json()
    content["tuned"]["accuracy"]["value"] = "high"
    with pytest.raises(
        RunError, match=r'"runs/a/eval.json" is damaged: .*tuned.accuracy.value.* is .high.'
    ):
        Evaluation.from_json(content, "runs/a/eval.json")


def test_of_a_damaged_file_the_whole_parts_can_be_had() -> None:
    content: Any = FOUND.to_json() | {"n": "many"}
    content["tuned"]["accuracy"]["low"] = "low"
    content["base"]["accuracy"]["value"] = None
    content["tables"][0]["rows"] = [["x", {}], ["y", 0.5], [None, 1]]
    found, lost = Evaluation.whole_parts(content)
    assert set(lost) == {
        "n",
        "tuned.accuracy.low",
        "base.accuracy.value",
        "base.accuracy",
        "tables.0.rows.0.1",
        "tables.0.rows.2.0",
        "tables.0",  # what is left of its rows would stand below other columns
    }
    assert (found.n, found.base) == (None, {})
    assert found.tuned["accuracy"].value == 0.8
    assert not found.tuned["accuracy"].complete
    assert found.paired == FOUND.paired
    assert found.tables == FOUND.tables[1:]


def test_what_another_version_measured_is_kept_as_it_is() -> None:
    content = {
        "schema": 1,
        "r": {"value": 8, "reason": "measured", "evidence": {"tests": "elsewhere", "novel": [1]}},
        "cost": {"runs": 1.4, "joules": 3, "phases": {"trunk": {"runs": 1.0, "watts": 2}}},
    }
    assert Choices.from_json(content).to_json() == content
    content = FOUND.to_json() | {"training": {"steps": 3, "joules": 4.5, "best_eval_loss": None}}
    assert Evaluation.from_json(content).to_json() == content


@pytest.mark.parametrize("evidence", ["none", [1, 2], 3])
def test_evidence_that_is_no_object_is_damage(evidence: object) -> None:
    content = {"r": {"value": 8, "reason": "measured", "evidence": evidence}}
    with pytest.raises(RunError, match=r'"choices.json" is damaged: .*choices.r.evidence'):
        Choices.from_json(content)
    found, lost = Choices.whole_parts(content)
    assert (found.choices["r"].value, lost) == (8, ["choices.r.evidence"])

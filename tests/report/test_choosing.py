"""Charts of the evidence: drawn where it is of a known form, never in the way where it is not."""

from __future__ import annotations

from typing import Any

import pytest

from lorafit.evidence import Choice
from lorafit.evidence.measurements import Evidence
from lorafit.report.choosing import charts

GAIN = {"mean": 0.05, "se": 0.004, "low": 0.042, "high": 0.058, "n": 500, "confidence": 0.95}
EVIDENCE: dict[str, Evidence] = {
    "learning_rate": {
        "tried": [
            {"learning_rate": 0.001, "steps": 24, "loss": 0.68},
            {"learning_rate": 0.003, "steps": 24, "loss": 0.61},
            {"learning_rate": 0.009, "steps": 24, "loss": None},
        ]
    },
    "r": {"tests": [{"r": 1, "against": 4, "step": 160, "gain": GAIN}]},
    "lora_alpha": {"curve": [{"factor": 0.5, "loss": 0.44}, {"factor": 1.0, "loss": 0.42}]},
}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("learning_rate", "lowest 0.61 at 0.003"),
        ("r", "Gain of a larger rank: 1 to 4: +0.050 +0.042 to +0.058."),
        ("lora_alpha", "lowest 0.42 at 1"),
    ],
)
def test_each_kind_of_evidence_has_its_chart(name: str, said: str) -> None:
    (curve,) = charts({name: Choice(1, "", EVIDENCE[name])})[name]
    assert said in curve.chart


def gain(mean: float, error: float = 0.01) -> dict[str, float]:
    ends = {"low": mean - error, "high": mean + error}
    return {"mean": mean, "se": error / 2, "n": 200, "confidence": 0.95} | ends


CURVE: Evidence = {
    "trained": 16,
    "ranks": [
        {"r": 2, "energy": 0.8, "gain": gain(-0.05)},
        {"r": 8, "energy": 0.99, "gain": gain(-0.002)},
    ],
}


def test_the_loss_by_rank_runs_from_the_smallest_to_the_largest_that_was_tried() -> None:
    tests = [{"r": 16, "against": 64, "step": 90, "gain": gain(0.004)}]
    (curve,) = charts({"r": Choice(8, "", CURVE | {"tests": tests})})["r"]  # type: ignore[arg-type]
    assert curve.title == "Loss by rank"
    assert (
        "cut to 2: +0.050 +0.040 to +0.060; cut to 8: +0.002 \N{MINUS SIGN}0.008 to +0.012; "
        "trained with 16; short trial with 64: \N{MINUS SIGN}0.004"
    ) in curve.chart
    for rank in (2, 8, 16, 64):
        assert f">{rank}</text>" in curve.chart  # a label below the axis
    assert curve.chart.count('<g class="bar">') == 3  # none at the trained rank
    assert "dashed" in curve.unit


def test_trials_before_the_rank_grew_lead_up_to_it() -> None:
    """4 to 16 gained .03 and was taken: 4 lies .03 above what was trained in the end."""
    tests = [{"r": 4, "against": 16, "step": 30, "gain": gain(0.03)}]
    (curve,) = charts({"r": Choice(8, "", CURVE | {"tests": tests})})["r"]  # type: ignore[arg-type]
    assert "short trial with 4: +0.030 +0.020 to +0.040" in curve.chart


def test_without_trials_of_more_nothing_is_said_of_them() -> None:
    (curve,) = charts({"r": Choice(8, "", CURVE)})["r"]
    assert "dashed" not in curve.unit
    assert "short trial" not in curve.chart


def test_each_kind_that_was_left_out_has_its_interval() -> None:
    kinds: Evidence = {"kinds": [{"name": "<key>", "gain": gain(-0.03)}]}
    (curve,) = charts({"target_modules": Choice(["query"], "", kinds)})["target_modules"]
    assert "without &lt;key&gt;: +0.030 +0.020 to +0.040" in curve.chart


def test_the_note_says_which_losses_are_those_after_a_decay() -> None:
    tried = [*EVIDENCE["learning_rate"]["tried"]]
    for rate, loss in ((0.001, 0.55), (0.003, 0.5)):
        tried.append({"learning_rate": rate, "steps": 105, "loss": loss, "decayed": True})
    (curve,) = charts({"learning_rate": Choice(evidence={"tried": tried})})["learning_rate"]
    assert curve.unit == "after 24 and 105 steps, the last with a decay"


@pytest.mark.parametrize(
    "evidence",
    [
        None,
        "text",
        {"tried": "text"},
        {"tried": [1, None]},
        {"tried": [{"learning_rate": -1, "loss": 1}, {"learning_rate": 0, "loss": 2}]},
        {"tests": [{"r": 1, "against": 4, "gain": None}, {"r": "<b>", "against": 4}]},
        {"curve": [{"r": 2, "eval_loss": 0.4}]},
        {"trained": 16, "ranks": []},
        {"trained": "16", "ranks": CURVE["ranks"]},
        {"trained": 16, "ranks": [{"r": 0, "gain": gain(0.1)}, {"r": 2, "gain": "text"}]},
        {"kinds": [{"name": "key"}, "text"]},
    ],
)
def test_evidence_of_another_form_has_no_chart(evidence: Any) -> None:
    assert charts({"r": Choice(1, "", evidence)}) == {"r": []}

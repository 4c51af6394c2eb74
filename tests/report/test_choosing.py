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
    ],
)
def test_evidence_of_another_form_has_no_chart(evidence: Any) -> None:
    assert charts({"r": Choice(1, "", evidence)}) == {"r": []}

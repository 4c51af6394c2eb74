"""The evidence as text says what was measured, in characters that every console has."""

from __future__ import annotations

import pytest

from lorafit.console.evidence import curves, show_cost, show_evidence, whiskers
from lorafit.evidence.measurements import Evidence
from lorafit.run import Choice


def gain(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high, "se": 0.01, "n": 500, "confidence": 0.95}


RATES: Evidence = {
    "tried": [
        {"learning_rate": 0.001, "steps": 24, "loss": 0.68, "diverged": False},
        {"learning_rate": 0.003, "steps": 24, "loss": 0.61, "diverged": False},
        {"learning_rate": 0.009, "steps": 24, "loss": None, "diverged": True},
        {"learning_rate": 0.001, "steps": 80, "loss": 0.55, "decayed": True},
        {"learning_rate": 0.003, "steps": 80, "loss": 0.50, "decayed": True},
    ]
}
TESTS: Evidence = {
    "tests": [
        {"r": 1, "against": 4, "step": 160, "gain": gain(0.05, 0.042, 0.058)},
        {"r": 4, "against": 16, "step": 280, "gain": gain(-0.006, -0.049, 0.037)},
    ]
}


def test_each_rate_stands_with_its_loss_and_a_diverged_one_says_so() -> None:
    ((title, rows),) = curves(RATES)
    assert "rate" in title
    assert [row[:3] for row in rows[:3]] == [
        ["0.001", "24", "0.6800"],
        ["0.003", "24", "0.6100"],
        ["0.009", "24", "diverged"],
    ]


def test_the_lowest_loss_is_marked_once_for_each_number_of_steps() -> None:
    ((_, rows),) = curves(RATES)
    marked = [row[:2] for row in rows if "lowest" in row[3]]
    assert marked == [["0.003", "24"], ["0.003", "80, decayed"]]


def test_gains_share_an_axis_with_zero_on_it() -> None:
    ((title, rows),) = curves(TESTS)
    assert "95% intervals, 500 examples" in title
    first, second = (row[3] for row in rows)
    assert first.index(":") == second.index(":")
    assert first.index(":") < first.index("|")  # a certain gain lies right of zero
    assert second.index("|") < second.index(":") < second.rindex("|")  # an uncertain one around it


def test_ranks_and_kinds_rise_to_the_right() -> None:
    cuts: Evidence = {
        "ranks": [
            {"r": 1, "energy": 0.52, "gain": gain(-0.08, -0.1, -0.06)},
            {"r": 4, "energy": 0.97, "gain": gain(-0.002, -0.006, 0.002)},
        ],
        "kinds": [{"name": "key", "gain": gain(-0.01, -0.02, 0.0)}],
    }
    (ranks, (first, second)), (kinds, (only,)) = curves(cuts)
    assert "smaller rank" in ranks
    assert "without a kind of module" in kinds
    assert first[:3] == ["1", "52.0%", "+0.0800"]
    assert second[:3] == ["4", "97.0%", "+0.0020"]
    assert first[3].index(":") < first[3].index("|")
    assert first[3].index("o") > second[3].index("o")
    assert only[:2] == ["without key", "+0.0100"]


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_whiskers_stay_on_the_axis(value: float) -> None:
    assert len(whiskers(value, value, value, -1.0, 1.0)) <= 32


def test_what_is_not_a_curve_is_left_out() -> None:
    assert curves({}) == []
    assert curves({"curve": [{"r": 2, "eval_loss": 0.4}], "rule": "one standard error"}) == []


def test_all_is_shown_in_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    shares: Evidence = {"share_of_energy": {"query": 0.6, "value": 0.4}}
    scale: Evidence = {"curve": [{"factor": 0.5, "loss": 0.44}, {"factor": 1.0, "loss": 0.42}]}
    show_evidence(
        {
            "learning_rate": Choice(0.002, "", RATES),
            "r": Choice(4, "", TESTS),
            "target_modules": Choice(["query", "value"], "", shares),
            "lora_alpha": Choice(8, "", scale),
            "label": Choice("label", "the only one"),
        }
    )
    phases = {"trunk": {"runs": 1.0, "time_s": 95.0}, "rank": {"runs": 0.3, "time_s": 28.0}}
    show_cost({"runs": 1.3, "runs_by_the_clock": 1.34, "budget": 1.5, "phases": phases})
    shown = capsys.readouterr().out
    assert shown.isascii()
    for text in (
        "learning_rate: loss",
        "r: fall of the loss",
        "query",
        "1.30 of 1.5 allowed runs (1.34 in wall-clock time)",
        "main training",
        "1 min 35 s",
    ):
        assert text in shown
    assert "label:" not in shown


def test_a_run_without_a_search_shows_no_cost(capsys: pytest.CaptureFixture[str]) -> None:
    show_cost({})
    assert capsys.readouterr().out == ""

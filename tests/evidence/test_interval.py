from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from lorafit.evidence import Difference, Interval
from lorafit.tune.decide import Gain


def test_an_interval_is_written_with_its_ends_in_one_format() -> None:
    assert f"{Interval(0.5, 0.4, 0.6):.3f}" == "0.500 [0.400, 0.600]"
    assert f"{Difference(0.1, -0.2, 0.4):+.2f}" == "+0.10 [-0.20, +0.40]"
    assert f"{Difference(-0.1):+.3f}" == "-0.100"


def test_only_an_interval_with_both_ends_excludes_anything() -> None:
    assert Interval(0.5, 0.1, 0.9).excludes(0.0)
    assert not Interval(0.5, -0.1, 0.9).excludes(0.0)
    assert not Interval(0.5).excludes(0.0)
    assert not Interval(0.5, 0.4).complete


def test_an_interval_is_cut_at_the_bounds_of_what_it_measures() -> None:
    cut = Interval(0.9, 0.7, 1.1, 20, 0.95).within(0, 1)
    assert cut == Interval(0.9, 0.7, 1, 20, 0.95)
    assert Interval(0.1, -0.4, 3.0).within(0, None) == Interval(0.1, 0, 3.0)
    assert math.isnan(Interval(0.1).within(0, 1).low)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"value": 0.5, "low": 0.4, "high": 0.6}, Interval(0.5, 0.4, 0.6)),
        ({"difference": 0.5, "low": None, "high": None}, Interval(0.5)),
        (
            {"mean": 0.5, "se": 0.1, "low": 0.4, "high": 0.6, "n": 7, "confidence": 0.9},
            Interval(0.5, 0.4, 0.6, 7, 0.9),
        ),
        (3, Interval(3)),
    ],
)
def test_every_name_that_files_have_for_the_parts_is_read(content: Any, expected: Interval) -> None:
    assert Interval.read(content) == expected


@pytest.mark.parametrize("content", [None, "x", True, [], {}, {"value": math.inf}, {"value": "1"}])
def test_what_is_no_number_is_no_interval(content: Any) -> None:
    with pytest.raises(ValidationError):
        Interval.read(content)


def test_what_is_written_is_what_is_read() -> None:
    whole = Difference(0.5, 0.4, 0.6, 7, 0.9, 0.01)
    assert whole.to_dict() == {
        **{"difference": 0.5, "low": 0.4, "high": 0.6, "n": 7, "level": 0.9, "p_value": 0.01}
    }
    assert Difference.read(whole.to_dict()) == whole
    assert (whole["difference"], whole["high"]) == (0.5, 0.6)
    assert Interval(0.5).to_dict() == {"value": 0.5}


def test_a_gain_is_an_interval_and_keeps_its_names_in_the_evidence() -> None:
    gain = Gain(0.05, 0.04, 0.06, 500, 0.95, se=0.005)
    assert (gain.mean, gain.certain, str(gain)) == (0.05, True, "+0.0500 [+0.0400, +0.0600]")
    assert list(gain.to_dict()) == ["mean", "se", "low", "high", "n", "confidence"]

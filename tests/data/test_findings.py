"""What is found in the data is said at once, and kept for the run's record."""

from __future__ import annotations

import logging
from dataclasses import asdict

import pytest

from lorafit.data.findings import UNKEPT, Findings


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.ERROR])
def test_all_is_kept_and_as_much_is_shown_as_the_level_lets_through(
    level: int, caplog: pytest.LogCaptureFixture
) -> None:
    findings = Findings()
    with caplog.at_level(level, "lorafit"):
        findings.note("no test split: 5 % of the rows set aside")
        findings.warn("dropped 3 rows")
        findings.warn_or_note(False, "2 classes")
    assert asdict(findings) == {
        "warnings": ["dropped 3 rows"],
        "facts": ["no test split: 5 % of the rows set aside", "2 classes"],
    }
    said = [record.levelno for record in caplog.records]
    assert said == [n for n in (logging.INFO, logging.WARNING, logging.INFO) if n >= level]


def test_what_is_found_twice_is_said_twice_and_kept_once(caplog: pytest.LogCaptureFixture) -> None:
    findings = Findings()
    findings.warn("1 of 3 texts is cut")
    findings.warn("1 of 3 texts is cut")
    assert findings.warnings == ["1 of 3 texts is cut"]
    assert caplog.messages == ["1 of 3 texts is cut"] * 2


def test_what_others_found_is_taken_without_being_said_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    findings, others = Findings(["a"], ["b"]), Findings(["a", "c"], ["d"])
    with caplog.at_level(logging.INFO, "lorafit"):
        findings.take(others)
    assert (findings.warnings, findings.facts) == (["a", "c"], ["b", "d"])
    assert not caplog.messages


def test_without_a_record_all_is_said_and_nothing_kept(caplog: pytest.LogCaptureFixture) -> None:
    UNKEPT.warn("dropped 3 rows")
    assert caplog.messages == ["dropped 3 rows"]
    assert asdict(UNKEPT) == {"warnings": [], "facts": []}

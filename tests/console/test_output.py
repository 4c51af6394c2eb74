from __future__ import annotations

import logging
from pathlib import Path

import pytest

from lorafit.console import saying
from lorafit.console.result import show_evaluation
from lorafit.console.runs import show_runs
from lorafit.console.tables import show_split_table, show_table
from lorafit.run.folder import RunSummary
from lorafit.units import count, duration, size

log = logging.getLogger("lorafit.test")


def test_said_lines_are_shown_once_when_nested(capsys: pytest.CaptureFixture[str]) -> None:
    with saying(), saying():
        log.info("label column: score [0, 1]")
        log.debug("not this")
    log.info("nor this")
    captured = capsys.readouterr()
    assert captured.err == "label column: score [0, 1]\n"
    assert captured.out == ""


def test_the_outer_block_decides_how_much_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with saying(quiet=True), saying():
        log.info("not this")
        log.warning("3 rows dropped")
    assert capsys.readouterr().err == "warning: 3 rows dropped\n"


def test_the_callers_own_handler_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("lorafit")
    own = logging.NullHandler()
    logger.addHandler(own)
    try:
        with saying():
            assert logger.handlers == [own]
            log.warning("to the caller")
    finally:
        logger.removeHandler(own)
    assert capsys.readouterr().err == ""


def test_the_level_is_put_back() -> None:
    logger = logging.getLogger("lorafit")
    before = logger.level
    with pytest.raises(KeyError), saying():
        raise KeyError
    assert (logger.level, logger.handlers) == (before, [])


def test_a_long_cell_is_not_cut_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    show_table([("path", "x" * 500), ("[tag]", "1")], ["name", "value"], indent=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  path    " + "x" * 500
    assert lines[2] == "  [tag]   1"
    assert lines[0] == "  name    value"


def test_numbers_stand_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    show_table([("a", "1"), ("b", "1,000")])
    assert capsys.readouterr().out.splitlines() == ["a       1", "b   1,000"]


def test_units_are_words_people_read() -> None:
    assert [size(n) for n in (0, 1023, 1536, 2**30, 2**50)] == [
        *("0 B", "1023 B", "1.5 KiB", "1.0 GiB", "1024.0 TiB")
    ]
    assert [duration(s) for s in (0.25, 59.6, 95, 7300)] == [
        "0.2 s",
        "60 s",
        "1 min 35 s",
        "2 h 1 min",
    ]
    assert count(73728) == "73,728"


def narrow(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Has the console take what it writes to for a terminal of this width, without colours."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "LINES": "25"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", str(width))


def test_a_narrow_terminal_breaks_no_name_command_or_interval(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch, 60)
    command = 'lorafit predict runs/m-001 "a text"'
    show_table([(command, "use it on texts of your own, many of them")], indent=2)
    number = {"value": 0.457, "low": 0.258, "high": 0.632}
    change = {"difference": -0.1, "low": -0.365, "high": -0.068}
    sides = {side: {"micro_f1": number} for side in ("base", "tuned")}
    show_evaluation({"n": 8, **sides, "paired": {"micro_f1": change}})
    run = RunSummary("a-run-001", "done", "2026-11-26T19:15", "m", "d", 12, "f1", 0.4, 0.5)
    show_runs([run], Path("runs"))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 60
    for whole in (
        command,
        "micro f1   base         0.457 [0.258, 0.632]",
        "difference   -0.100 [-0.365, -0.068]",
        "created (UTC)   2026-11-26 19:15",
    ):
        assert whole in out


def test_columns_without_room_stand_in_a_table_of_their_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch, 30)
    rows = [["family", "", "", ""], ["  lora", "12", "0.5 [0.4, 0.6]", "worse"]]
    show_split_table(rows, ["method", "n", "accuracy", "verdict"])
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == ["method    n   accuracy", "family", "  lora   12   0.5 [0.4, 0.6]"]
    assert shown[4:] == ["method   verdict", "family", "  lora   worse"]

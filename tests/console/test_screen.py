"""What a person sees at several moments, at several widths: nothing twice, nothing torn."""

from __future__ import annotations

import itertools
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

import lorafit
from lorafit.console import output, saying
from lorafit.console.matrix import show_class_tables
from lorafit.console.progress import RichProgress
from lorafit.console.result import show_result
from lorafit.evidence import Table
from lorafit.evidence.phases import spoken
from lorafit.training.progress import Update
from tests import tiny_text
from tests.console.screens import Terminal

WIDTHS = (60, 80, 120)
Seat = Callable[[int], Terminal]
log = logging.getLogger("lorafit.test")


@pytest.fixture
def seat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seat]:
    """Puts both standard streams on a terminal of a width."""

    def sit(columns: int) -> Terminal:
        screen = Terminal(columns)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setattr(sys, "stderr", screen)
        return screen

    yield sit
    output.draw_on(None)


at_widths = pytest.mark.parametrize("columns", WIDTHS)


def update(step: int, part: str = "") -> Update:
    return Update(step, 963, step / 321, 0.70164, 1e-3, 12_345.6, 4000.0 - step, part)


def text_of(terminal: Terminal) -> str:
    """The screen as one line: where lines were wrapped must not matter."""
    return " ".join(" ".join(terminal.shown).split())


def assert_drawn_once(terminal: Terminal) -> None:
    """There is one table of phases and one bar, and no line is wider than the terminal."""
    shown = terminal.shown
    assert sum(line.startswith("phase ") for line in shown) <= 1, shown
    assert sum("━" in line or "/963" in line for line in shown) <= 1, shown
    assert all(len(line) <= terminal.columns for line in shown)


SAID = (
    "learning_rate 0.000707: of 3 rates 0.0013 is best over 144 steps; a run of 963 steps wants "
    "0.000707",
    "r 8 vs. 32 at step 193: gain -0.0012 [-0.0045, +0.0020] nats: stays",
    "target_modules: all linear layers: key, query hold only 4.6% of the change",
)


@at_widths
def test_a_search_leaves_no_ghosts_and_loses_no_line(seat: Seat, columns: int) -> None:
    terminal = seat(columns)
    phases = ("start", "learning rate", "trunk", "rank", "modules", "decay", "scale")
    with saying():
        log.info("text column: Anfrage")
        progress = RichProgress()
        progress.start(0, 963)
        said: list[str] = []
        for number, phase in enumerate(phases):
            progress.phase(phase, 0.0, 0.0)
            progress.step(update(number * 130 + 1))
            progress.draw()
            assert_drawn_once(terminal)
            if number < len(SAID):
                log.info(SAID[number])
                said.append(SAID[number])
            if number == 3:
                log.warning("stopping after this step")
                said.append("warning: stopping after this step")
            if number == 5:
                progress.evaluated(880, {"eval_loss": 0.38, "eval_accuracy": 0.84}, best=True)
                said.append("step 880: validation loss 0.3800 accuracy 0.8400 (best)")
                sys.stdout.write("printed by another package\n")
                said.append("printed by another package")
            progress.phase(phase, 0.1 * number, 61.0 * number)
            progress.draw()
            assert_drawn_once(terminal)
            assert all(text_of(terminal).count(line) == 1 for line in said)
        progress.stop()
        log.info("it is over")
    assert_drawn_once(terminal)
    shown = text_of(terminal)
    for line in (*said, "text column: Anfrage", "it is over", "781/963"):
        assert shown.count(line) == 1, line
    for phase in map(spoken, phases):  # the last one is also what is being done
        assert sum(line.startswith(f"{phase}  ") for line in terminal.shown) == 1
    assert terminal.shown[-1] == "it is over"


@at_widths
def test_the_step_and_the_time_left_are_whole_at_every_width(seat: Seat, columns: int) -> None:
    terminal = seat(columns)
    progress = RichProgress()
    progress.start(0, 963)
    for step in (1, 99, 963):
        progress.step(update(step))
        progress.draw()
        bar = terminal.shown[-1]
        assert re.search(rf"(?<!\d){step}/963  ", bar), bar
        assert bar.endswith("left")
        assert "…" not in bar
    progress.stop()


@at_widths
def test_it_is_said_which_of_several_runs_is_trained(seat: Seat, columns: int) -> None:
    terminal = seat(columns)
    progress = RichProgress()
    progress.start(0, 963)
    progress.phase("whole runs", 0.0, 0.0)
    for number in (1, 2, 3):
        part = f"run {number} of 3, learning rate 0.0007"
        for step in (1, 963):
            progress.step(update(step, part))
            progress.draw()
            assert text_of(terminal).count(" of 3, ") == 1
            assert part in terminal.shown
    progress.stop()


def test_what_others_log_through_standard_error_comes_above_the_bar(
    seat: Seat,
) -> None:
    screen = seat(80)
    handler = logging.StreamHandler()
    other = logging.getLogger("another_package")
    other.addHandler(handler)
    try:
        progress = RichProgress()
        progress.start(0, 963)
        for step in (1, 2, 3):
            progress.step(update(step))
            progress.draw()
            other.warning("another package warns, number %d", step)
        progress.stop()
        other.warning("afterwards")
    finally:
        other.removeHandler(handler)
    assert_drawn_once(screen)
    for step in (1, 2, 3):
        assert f"another package warns, number {step}" in screen.shown
    assert screen.shown[-1] == "afterwards"


CLASSES = (
    *("beschwerde", "datenschutz", "kündigung", "lieferung", "login/passwort", "rechnung"),
    *("rückgabe", "technik innen", "technik außen"),
)


class Watched(RichProgress):
    """Looks at the screen while a run is trained."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self.terminal = terminal
        self.parts: list[str] = []
        self.looks = 0

    def step(self, update: Update) -> None:
        """Looks at every tenth step."""
        super().step(update)
        if update.part not in self.parts:
            self.parts.append(update.part)
        if update.step % 10 == 0:
            self.draw()
            shown = self.terminal.shown
            assert sum(line.startswith("phase ") for line in shown) == 1, shown
            bars = [line for line in shown if f"{update.step}/{update.total_steps}  " in line]
            assert len(bars) == 1, shown
            assert shown.count(update.part) == 1
            self.looks += 1


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.save_base(tmp_path_factory.mktemp("base"))


@at_widths
def test_a_real_run_is_shown_whole(
    seat: Seat, columns: int, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = tiny_text.rows(len(CLASSES) * 12)["text"]
    labels = [CLASSES[index % len(CLASSES)] for index in range(len(texts))]
    rows = Dataset.from_dict({"text": texts, "label": labels})
    terminal = seat(columns)
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "num_train_epochs": 1,
        "bf16": False,
        "run.dir": str(tmp_path / "runs"),
    }
    with saying(), caplog.at_level(logging.INFO, "lorafit"):
        watched = Watched(terminal)
        run = lorafit.train(base, rows, progress=watched, **settings)
        show_result(run)
    assert watched.looks > 3
    assert [part[: len("run 1 of 3, learning rate")] for part in watched.parts] == [
        f"run {number} of 3, learning rate" for number in (1, 2, 3)
    ]
    shown, text = terminal.shown, text_of(terminal)
    for record in caplog.records:
        if record.name.startswith("lorafit"):
            # Without blanks: a path that is longer than the terminal is folded.
            said = "".join(record.getMessage().split())
            assert text.replace(" ", "").count(said) == 1, record.getMessage()
    matrix = next(table for table in run.evaluation.tables if "Confusion" in table["title"])
    for name, *counts in matrix["rows"]:
        row = r"\s+".join([re.escape(str(name)), *map(str, counts)])
        assert any(re.search(rf"{row}$", line) for line in shown), (name, counts)
    assert sum(line.startswith("Right ") for line in shown) == 1
    assert "before tuning" in text
    assert re.search(r"% by always answering \"[^\"]+\"\.", text)
    assert "Report: " in text
    begin = next(at for at, line in enumerate(shown) if line.startswith("What was saved answers"))
    end = next(at for at, line in enumerate(shown) if line.rstrip().endswith("(logit):"))
    for line, after in itertools.pairwise(shown[begin : end + 1]):
        # Broken where the terminal ends, and nowhere else.
        assert len(f"{line.rstrip()} {after.split()[0]}") > columns
    assert text.replace(" ", "").endswith(f'lorafitpredict{run.path}"atext"useit'.replace(" ", ""))


@at_widths
@pytest.mark.parametrize("classes", [2, 9, 13, 20])
@pytest.mark.parametrize("in_report", [True, False])
def test_a_confusion_matrix_is_whole_or_says_where_it_is(
    seat: Seat, columns: int, classes: int, in_report: bool
) -> None:
    terminal = seat(columns)
    names = [f"technischer Defekt {number}" for number in range(classes)]
    counts = [[1000 + classes * row + column for column in range(classes)]
              for row in range(classes)]  # fmt: skip
    table: Table = {
        "title": "Confusion",
        "columns": ["true", *names],
        "rows": [[name, *row] for name, row in zip(names, counts, strict=True)],
    }
    show_class_tables([table], in_report)
    shown, text = terminal.shown, text_of(terminal)
    assert all(len(line) <= columns for line in shown)
    if "have no room here" in text:
        assert 6 * classes > columns - 8  # not even the numbers fit
        assert ("report.html" in text) == in_report
        return
    for name, row in zip(names, counts, strict=True):
        assert name in text
        ends = r"\s+".join(f"{count:,}" for count in row)
        assert any(re.search(rf"\s{ends}$", line) for line in shown), (name, row)

"""What a Python caller hears, and sees in a notebook."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lorafit.console.python import Block, NotebookProgress, heard, progress_of, result_lines
from lorafit.run import Run
from lorafit.training.progress import QuietProgress, Update
from tests.report import folders

ROOT = Path(__file__).parents[2]
CALL = """
import logging, sys
{before}
from lorafit.console.python import heard
with heard(progress={progress}):
    logging.getLogger("lorafit.data").info("text column: review")
    with heard(progress={progress}):  # a call inside a call
        logging.getLogger("lorafit.data").warning("3 rows are empty")
assert logging.getLogger("lorafit").handlers == []
{after}
"""


Drawn = list[tuple[str, dict[str, str]]]
"""Whether a new output or an update, and its content by MIME type."""


@contextmanager
def without_handlers() -> Iterator[None]:
    """As in a program that has no handler: pytest's stand on the root logger meanwhile."""
    root = logging.getLogger()
    kept = root.handlers[:]
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = kept


def said(progress: bool, before: str = "", after: str = "") -> list[str]:
    """The lines on standard error of a program of its own, where pytest hears nothing."""
    code = CALL.format(progress=progress, before=before, after=after)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr.splitlines()


def test_a_call_shows_what_is_said_once_and_leaves_the_root_logger_alone() -> None:
    after = "assert logging.getLogger().handlers == []"
    assert said(True, after=after) == ["text column: review", "warning: 3 rows are empty"]


def test_without_progress_only_warnings_are_shown() -> None:
    assert said(False) == ["warning: 3 rows are empty"]


def test_the_handlers_of_the_callers_program_get_it_instead() -> None:
    before = "logging.basicConfig(level=logging.INFO, format='mine: %(message)s')"
    assert said(True, before) == ["mine: text column: review", "mine: 3 rows are empty"]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """A kernel: what it was told to display, and to put in the place of what it displayed."""
    calls: Drawn = []

    def display(content: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        calls.append(("new", content))
        return SimpleNamespace(update=lambda content, raw: calls.append(("update", content)))

    shell, module = SimpleNamespace(kernel=object()), ModuleType("IPython")
    drawing = ModuleType("IPython.display")
    vars(module).update(get_ipython=lambda: shell)
    vars(drawing).update(display=display)
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", drawing)
    return calls


def update(step: int) -> Update:
    return Update(step, 40, 0.1 * step, 0.5, 1e-3, 900.0, 12.0)


def test_a_notebook_shows_one_block_that_is_updated(
    shown: Drawn,
) -> None:
    log = logging.getLogger("lorafit.data")
    with without_handlers(), heard(progress=True):
        log.info("text column: <script>alert(1)</script>")
        progress = progress_of(True)
        progress.start(0, 40)
        progress.phase("learning rate", 0.1, 2.0)
        for step in range(1, 41):
            progress.step(update(step))
            if step % 4 == 0:
                progress.evaluated(step, {"eval_loss": 0.5}, best=True)
        progress.stop()
        log.warning("3 rows are empty")
    assert [kind for kind, _ in shown] == ["new"] + ["update"] * (len(shown) - 1)
    page, text = shown[-1][1]["text/html"], shown[-1][1]["text/plain"]
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<b>warning: 3 rows are empty</b>" in page
    assert '<progress value="40" max="40">' in page
    assert text.count("validation loss 0.5000") == 10
    assert text.splitlines()[-1].startswith("step 40/40  learning rate  loss 0.5000")


def test_steps_are_drawn_now_and_then_only(shown: Drawn) -> None:
    now = iter([index * 0.01 for index in range(10_000)])
    progress = NotebookProgress(Block(clock=lambda: next(now)))
    progress.start(0, 1_000)
    for step in range(1, 1_001):
        progress.step(update(step))
    progress.stop()
    assert 10 < len(shown) < 60


def test_without_progress_a_notebook_shows_nothing_of_the_steps(
    shown: Drawn,
) -> None:
    with without_handlers(), heard(progress=False):
        assert isinstance(progress_of(False), QuietProgress)
        logging.getLogger("lorafit.data").info("text column: review")
    assert shown == []


def test_a_progress_of_the_callers_own_is_taken() -> None:
    own = QuietProgress()
    assert progress_of(own) is own


def test_the_result_is_said_in_lines(tmp_path: Path) -> None:
    run = Run(folders.finished(tmp_path / "one"))
    run.report.write_text("page")
    lines = result_lines(run)
    accuracy = run.evaluation.tuned["accuracy"]
    [result] = [line for line in lines if line.startswith("result: ")]
    assert result.startswith(f"result: accuracy {accuracy:.3f} on ")
    assert "; before tuning " in result
    names = [line.split()[1] for line in lines if line.startswith("chosen: ")]
    assert names == list(run.choices)
    assert lines[-2:] == [f"adapter: {run.adapter}", f"report: {run.report}"]

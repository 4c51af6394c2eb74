"""What a Python caller sees and hears: the lines of the command line, and progress in a notebook.

Everything lorafit says goes through the logger ``lorafit``. A program that has a handler for it,
there or on the root logger, decides alone what becomes of that. Where there is none, a call shows
it on standard error while it lasts; in a notebook in one block, which is updated.
"""

from __future__ import annotations

import html
import importlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lorafit.console.output import only_handler, saying
from lorafit.console.progress import describe, evaluation, make_progress
from lorafit.console.visible import visible
from lorafit.evidence import Choice
from lorafit.evidence.rows import metric_rows
from lorafit.quiet import bars
from lorafit.run import Run
from lorafit.training.progress import Progress, QuietProgress, Update
from lorafit.units import count

RESULT = "lorafit.result"
"""The logger of what a finished run came to: the commands show that as tables."""
REDRAW_S = 0.25
"""Least time between two drawings of a step: a notebook keeps every one until it is idle."""


@contextmanager
def heard(progress: bool) -> Iterator[None]:
    """Shows what lorafit says while a call from Python lasts, unless the caller's program does.

    Args:
        progress: Show all of it; otherwise warnings only.
    """
    logger = logging.getLogger("lorafit")
    if logger.hasHandlers():
        with bars(downloads=True):
            yield
        return
    if not (progress and in_notebook()):
        with saying(quiet=not progress):
            yield
        return
    with only_handler(BlockHandler(Block()), logging.INFO), bars(downloads=True):
        yield


def progress_of(wanted: Progress | bool) -> Progress:
    """What steps are shown with: nothing, a block in a notebook, else what a command shows."""
    if not isinstance(wanted, bool):
        return wanted
    if not wanted:
        return QuietProgress()
    if not in_notebook():
        return make_progress()
    handlers = logging.getLogger("lorafit").handlers
    blocks = [handler.block for handler in handlers if isinstance(handler, BlockHandler)]
    return NotebookProgress(blocks[0] if blocks else Block())


def result_lines(run: Run) -> list[str]:
    """What a finished run came to and chose, and where it is: a sentence a line."""
    lines = [f"chosen: {name} {shown(found)}" for name, found in run.choices.items()]
    result = run.evaluation
    rows = metric_rows(result)
    if rows and rows[0].tuned is not None:
        row = rows[0]
        before = "" if row.base is None else f"; before tuning {row.base:.3f}"
        on = "" if result.n is None else f" on {count(int(result.n))} {result.split} examples"
        lines.append(f"result: {row.label} {row.tuned:.3f}{on}{before}")
    if result.course is not None and result.course.advice is not None:
        lines.append(result.course.advice)
    lines.append(f"adapter: {run.adapter}")
    if run.report.is_file():
        lines.append(f"report: {run.report}")
    return lines


def shown(choice: Choice) -> str:
    """A choice with its reason, on one line."""
    value = choice.value
    if isinstance(value, list | tuple | set):
        value = ", ".join(map(str, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{text}: {choice.reason}"


def in_notebook() -> bool:
    """Whether this runs in a kernel that shows HTML, such as Jupyter's."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class Block:
    """One output of a notebook cell: lines, and below them how far the steps have got.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: list[tuple[str, bool]] = []
        self._bar: tuple[int, int, str] | None = None
        self._handle: Any = None
        self._drawn = float("-inf")

    def add(self, line: str, warning: bool = False) -> None:
        """Adds a line and draws."""
        self._lines.append((visible(line), warning))
        self.draw()

    def move(self, done: int, total: int, facts: str) -> None:
        """Moves the bar; drawn when the last drawing is old enough."""
        self._bar = (done, total, facts)
        if self._clock() - self._drawn >= REDRAW_S:
            self.draw()

    def draw(self) -> None:
        """Shows the block, or what has become of it, in its place."""
        display = importlib.import_module("IPython.display").display
        self._drawn = self._clock()
        content = {"text/plain": self.text(), "text/html": self.html()}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def text(self) -> str:
        """The block where HTML is not shown."""
        lines = [line for line, _ in self._lines]
        if self._bar is not None:
            done, total, facts = self._bar
            lines.append(f"step {done}/{total}  {facts}")
        return "\n".join(lines)

    def html(self) -> str:
        """The block as HTML; it takes its colours from the page."""
        lines = [
            f"<b>{html.escape(line)}</b>" if warning else html.escape(line)
            for line, warning in self._lines
        ]
        parts = [f'<pre style="white-space: pre-wrap; margin: 0">{"<br>".join(lines)}</pre>']
        if self._bar is not None:
            done, total, facts = self._bar
            parts.append(
                f'<div><progress value="{done}" max="{total}"></progress> '
                f"step {done} of {total} &nbsp; {html.escape(facts)}</div>"
            )
        return f"<div>{''.join(parts)}</div>"


class BlockHandler(logging.Handler):
    """Adds log records to a block, warnings in bold.

    Args:
        block: The block.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def emit(self, record: logging.LogRecord) -> None:
        """Adds one record."""
        try:
            warning = record.levelno >= logging.WARNING
            self.block.add(("warning: " if warning else "") + self.format(record), warning)
        except Exception:  # noqa: BLE001 logging must never stop a training run
            self.handleError(record)


class NotebookProgress:
    """Shows steps and evaluations in a block of a notebook.

    Args:
        block: Where.
    """

    def __init__(self, block: Block) -> None:
        self._block = block
        self._phase = ""

    def start(self, step: int, total_steps: int) -> None:
        """Shows the bar."""
        self._block.move(step, total_steps, "")

    def phase(self, name: str, runs: float, time_s: float) -> None:
        """Puts the phase before the facts of its steps."""
        self._phase = name

    def step(self, update: Update) -> None:
        """Moves the bar."""
        facts = "  ".join(part for part in (self._phase, describe(update)) if part)
        self._block.move(update.step, update.total_steps, facts)

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """Adds a line."""
        self._block.add(evaluation(step, metrics, best))

    def stop(self) -> None:
        """Leaves the block as it stands."""
        self._block.draw()

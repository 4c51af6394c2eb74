"""What a person sees while training: a bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from lorafit.training.progress import Progress, QuietProgress, Update

LINE_INTERVAL_S = 10.0


class PlainProgress:
    """Lines of text, at most one every ten seconds, and one for each evaluation.

    Args:
        file: Where to; ``None``: standard error.
        interval_s: Least time between step lines.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        interval_s: float = LINE_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file or sys.stderr
        self._interval_s = interval_s
        self._clock = clock
        self._last = clock()
        self._phase = ""

    def _print(self, text: str) -> None:
        print(text, file=self._file, flush=True)

    def start(self, step: int, total_steps: int) -> None:
        """Says where training begins."""
        self._last = self._clock()
        after = f" (step {step} is done)" if step else ""
        self._print(f"training for {total_steps} steps{after}")

    def phase(self, name: str, runs: float, time_s: float) -> None:
        """Says which phase begins."""
        if name != self._phase:
            self._phase = name
            self._print(f"phase: {name}")

    def step(self, update: Update) -> None:
        """Prints a line when the last one is old enough."""
        now = self._clock()
        if now - self._last >= self._interval_s:
            self._last = now
            self._print(
                f"step {update.step}/{update.total_steps}  epoch {update.epoch:.2f}  "
                f"{describe(update)}"
            )

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """Prints the metrics."""
        self._print(evaluation(step, metrics, best))

    def stop(self) -> None:
        """Nothing to close."""


class RichProgress:
    """A progress bar with the loss, tokens a second and the time left.

    During a search a table above it shows what each phase has cost so far.

    Args:
        console: Where to; ``None``: standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
        )
        self._task = self._bar.add_task("training", total=None, facts="")
        self._phases: dict[str, tuple[float, float]] = {}
        console = console or Console(stderr=True)
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=10)

    def _render(self) -> RenderableType:
        if not self._phases:
            return self._bar
        table = Table("phase", box=None, pad_edge=False, padding=(0, 3, 0, 0))
        table.add_column("runs", justify="right")
        table.add_column("time", justify="right")
        for name, (runs, time_s) in self._phases.items():
            table.add_row(name, f"{runs:.2f}", duration(time_s))
        return Group(table, self._bar)

    def start(self, step: int, total_steps: int) -> None:
        """Shows the bar."""
        self._bar.update(self._task, completed=step, total=total_steps)
        self._live.start()

    def phase(self, name: str, runs: float, time_s: float) -> None:
        """Shows the phase before the bar and its cost in the table."""
        self._phases[name] = (runs, time_s)
        self._bar.update(self._task, description=name)

    def step(self, update: Update) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=update.step, facts=describe(update))

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """Prints a line above the bar."""
        self._live.console.print(evaluation(step, metrics, best), highlight=False)

    def stop(self) -> None:
        """Leaves the bar as it stands."""
        self._live.stop()


def make_progress(quiet: bool = False) -> Progress:
    """A bar when standard error is a terminal, plain lines otherwise, nothing when ``quiet``."""
    if quiet:
        return QuietProgress()
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


def describe(update: Update) -> str:
    """The facts of a step as one short text."""
    return (
        f"loss {update.loss:.4f}  {update.tokens_per_s:,.0f} tokens/s  "
        f"{duration(update.time_left_s)} left"
    )


def evaluation(step: int, metrics: Mapping[str, float], best: bool) -> str:
    """The metrics of an evaluation as one line."""
    facts = "  ".join(
        f"{name.removeprefix('eval_').replace('loss', 'validation loss')} {value:.4f}"
        for name, value in metrics.items()
    )
    return f"step {step}: {facts}" + ("  (best)" if best else "")


def duration(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

"""What a person sees while training: a bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lorafit.console.output import Moved, draw_on, err, move_handlers, wrapped, write
from lorafit.console.visible import visible
from lorafit.evidence.phases import spoken
from lorafit.training.progress import Progress, QuietProgress, Update

LINE_INTERVAL_S = 10.0
BAR, SHORTEST_BAR = 40, 6
"""Characters of the bar: at most, and below which it is left out."""


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
        self._phase = self._part = ""

    def _print(self, text: str) -> None:
        print(visible(text), file=self._file, flush=True)

    def start(self, step: int, total_steps: int) -> None:
        """Says where training begins."""
        self._last = self._clock()
        after = f" (step {step} is done)" if step else ""
        self._print(f"training for {total_steps} steps{after}")

    def phase(self, name: str, runs: float, time_s: float) -> None:
        """Says which phase begins."""
        if name != self._phase:
            self._phase = name
            self._print(f"phase: {spoken(name)}")

    def step(self, update: Update) -> None:
        """Prints a line when the last one is old enough, and one where a part begins."""
        if update.part != self._part:
            self._part = update.part
            self._print(self._part)
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

    During a search a table above it shows what each phase has cost so far. Everything else
    that is written meanwhile comes above both.

    Args:
        console: Where to; ``None``: standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or err()
        self._drawing = Drawing()
        self._moved: Moved = []
        self._live = Live(
            get_renderable=lambda: self._drawing,
            console=self._console,
            refresh_per_second=10,
            vertical_overflow="crop",
        )

    def start(self, step: int, total_steps: int) -> None:
        """Shows the bar."""
        self._drawing.step, self._drawing.total_steps = step, total_steps
        draw_on(self._console)
        before = sys.stderr
        self._live.start()
        self._moved = move_handlers(before, sys.stderr)

    def phase(self, name: str, runs: float, time_s: float) -> None:
        """Shows the phase above the bar and its cost in the table."""
        self._drawing.phases[name] = (runs, time_s)
        self._drawing.phase = name

    def step(self, update: Update) -> None:
        """Moves the bar."""
        self._drawing.step, self._drawing.total_steps = update.step, update.total_steps
        self._drawing.update = update

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """Prints a line above the bar."""
        write(self._console, evaluation(step, metrics, best), indent=2)

    def draw(self) -> None:
        """Draws it now; it also is ten times a second."""
        self._live.refresh()

    def stop(self) -> None:
        """Leaves the bar as it is."""
        for handler, stream in self._moved:
            handler.setStream(stream)
        self._moved = []
        self._live.stop()
        draw_on(None)


class Drawing:
    """What is drawn again and again: it never has a line that the terminal would break.

    Attributes:
        step: Steps taken.
        total_steps: Of how many.
        update: The last step; ``None``: there was none yet.
        phase: The phase of a search; ``""``: nothing is searched.
        phases: Plain runs and seconds that each phase has cost.
    """

    def __init__(self) -> None:
        self.step = self.total_steps = 0
        self.update: Update | None = None
        self.phase = ""
        self.phases: dict[str, tuple[float, float]] = {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table of phases, what is being trained, the bar."""
        if self.phases:
            yield self._costs()
            yield Text("(cost: 1 is one training run with all steps)", style="dim")
            for line in wrapped(visible(self._doing()), options.max_width):
                yield Text(line)
        yield self._bar(options.max_width)

    def _costs(self) -> Table:
        table = Table("phase", box=None, pad_edge=False, padding=(0, 3, 0, 0))
        table.add_column("cost", justify="right", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        for name, (runs, time_s) in self.phases.items():
            table.add_row(Text(visible(spoken(name))), f"{runs:.2f}", duration(time_s))
        return table

    def _doing(self) -> str:
        part = "" if self.update is None else self.update.part
        return part or spoken(self.phase)

    def _bar(self, width: int) -> Table:
        """The bar and the facts that there is room for; the count of steps always has it."""
        facts = [f"{self.step}/{self.total_steps}"]
        if self.update is not None:
            loss, speed, left = _facts(self.update)
            by_weight = [facts[0], left, loss, speed]
            room = width - SHORTEST_BAR
            kept = [
                fact for at, fact in enumerate(by_weight) if _length(by_weight[: at + 1]) <= room
            ]
            facts += [fact for fact in (loss, speed, left) if fact in kept]
        row: list[ProgressBar | Text] = [Text("  ".join(facts), no_wrap=True)]
        bar = min(BAR, width - _length(facts))
        table = Table.grid(padding=(0, 2, 0, 0))
        if bar >= SHORTEST_BAR:
            total = float(self.total_steps or 1)
            row.insert(0, ProgressBar(total=total, completed=self.step, width=bar))
            table.add_column(width=bar)
        table.add_column(no_wrap=True)
        table.add_row(*row)
        return table


def _length(facts: list[str]) -> int:
    """Cells of facts with the gap before each."""
    return sum(cell_len(fact) + 2 for fact in facts)


def make_progress(quiet: bool = False) -> Progress:
    """A bar when standard error is a terminal, plain lines otherwise, nothing when ``quiet``."""
    if quiet:
        return QuietProgress()
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


def describe(update: Update) -> str:
    """The facts of a step as one short text."""
    return "  ".join(_facts(update))


def _facts(update: Update) -> tuple[str, str, str]:
    return (
        f"loss {update.loss:.4f}",
        f"{update.tokens_per_s:,.0f} tokens/s",
        f"{duration(update.time_left_s)} left",
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

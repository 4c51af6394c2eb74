"""What a search leaves and shows while it works: costs, trials, metrics, progress."""

from __future__ import annotations

from typing import Any, TypedDict

from lorafit.machine.memory import peak_memory_bytes
from lorafit.run import RunWriter
from lorafit.training.progress import Progress, Update
from lorafit.training.state import Tally
from lorafit.training.stepper import Outcome
from lorafit.training.steps import Step, StepPlan
from lorafit.tune.bench.journal import Entry
from lorafit.tune.bench.ledger import Cost, Ledger

NOTHING = Cost()
RELIABLE = 0.05
"""Plain runs after which their cost in seconds is known well enough."""


class Notes:
    """Counts, writes and shows.

    Args:
        run: Where it is written; ``None``: nowhere.
        progress: What to show.
        ledger: Counts the cost.
        plan: Of a plain run.
        budget: Most that may be spent, in plain runs.

    Attributes:
        trunk_step: How far the training that is delivered has come.
    """

    def __init__(
        self,
        run: RunWriter | None,
        progress: Progress,
        ledger: Ledger,
        plan: StepPlan,
        budget: float,
    ) -> None:
        self._run = run
        self._progress = progress
        self._ledger = ledger
        self._plan = plan
        self._budget = budget
        self._shown = Tally()
        self._runs = self._run_number = 0
        self._most: float | None = None
        self._booked = 0.0
        self._part = ""
        self.trunk_step = 0
        if run is not None:
            run.truncate_metrics(0)
            run.write_trials([])

    @property
    def trained_per_step(self) -> float:
        """Tokens of a step of a plain run."""
        return self._ledger.unit.trained / self._plan.total_steps

    def book(self, phase: str, cost: Cost = NOTHING) -> None:
        """Counts a cost and shows what its phase has cost so far; without one, that it begins."""
        self._ledger.add(phase, cost)
        self._booked = self._shown.tokens
        spent = self._ledger.phases[phase]
        self._progress.phase(phase, self._ledger.runs(spent), spent.time_s)

    def expect_cost(self, most: float) -> None:
        """Says what all of the search costs at most, in plain runs."""
        self._most = most

    def expect_runs(self, count: int) -> None:
        """Says how many whole runs will be made, at most: what is shown counts them."""
        self._runs, self._run_number = count, 0

    def begin_run(self, said: str) -> None:
        """Says that the next of the whole runs begins.

        Args:
            said: What is special about it, such as ``learning rate 0.0007``.
        """
        self._run_number += 1
        of = f" of {self._runs}" if self._runs else ""
        self._part = f"run {self._run_number}{of}, {said}"

    def trial(self, name: str, phase: str, cost: Cost, **about: Any) -> None:
        """Notes a piece of work in ``trials.jsonl``."""
        if self._run is not None:
            line = {"trial": name, "phase": phase, **about, "runs": self._ledger.runs(cost)}
            self._run.append_trial(line | {"time_s": cost.time_s})

    def adopt(self, entry: Entry, step: int) -> None:
        """Makes a piece of work part of the lineage that is delivered."""
        self.trunk_step = step
        if self._run is not None:
            for line in entry.facts["lines"]:
                self._run.append_metrics(line)

    def evaluated(self, step: int, metrics: dict[str, float], best: bool) -> None:
        """Notes an evaluation of the trunk among the metrics."""
        self._progress.evaluated(step, metrics, best)
        if self._run is not None:
            epoch = step / self._plan.steps_per_epoch
            self._run.append_metrics({"step": step, "epoch": round(epoch, 6), **metrics})

    def stepped(self, step: Step, outcome: Outcome) -> None:
        """Shows a step."""
        self._shown.add(outcome)
        self._progress.step(
            Update(
                step=step.number,
                total_steps=self._plan.total_steps,
                epoch=step.epoch,
                loss=outcome.loss,
                learning_rate=outcome.learning_rate,
                tokens_per_s=self._shown.tokens_per_s,
                time_left_s=self._left(step.number) * self._seconds_per_run(),
                part=self._part,
            )
        )

    def _left(self, step: int) -> float:
        """Plain runs still to be made, in a step of one of them.

        Whole runs are counted, and where the cost of all is known, its rest is. Otherwise the rest
        of the training that is delivered takes at most its share of the budget, for the tests
        beside it are bounded by that.
        """
        if self._run_number:
            later = max(0, self._runs - self._run_number)
            return later + 1 - min(1.0, step / self._plan.total_steps)
        if self._most is not None:
            return max(0.0, self._most - self._spent())
        trunk = 1 - min(1.0, max(self.trunk_step, 0) / self._plan.total_steps)
        return max(trunk, min(self._budget * trunk, self._budget - self._spent()))

    def _spent(self) -> float:
        """Plain runs, the steps since the last booking included."""
        going_on = Cost.of(trained=self._shown.tokens - self._booked)
        return self._ledger.runs() + self._ledger.runs(going_on)

    def _seconds_per_run(self) -> float:
        """As fast as everything so far; at first, as the steps so far."""
        runs = self._ledger.runs()
        if runs > RELIABLE:
            return self._ledger.total.time_s / runs
        return self._ledger.unit.trained / max(self._shown.tokens_per_s, 1e-9)


class Line(TypedDict):
    """A line of ``metrics.jsonl``; means are over the steps since the line before.

    Attributes:
        step: Optimizer step.
        epoch: Passes over the training examples.
        train_loss: Mean, nats per unit.
        learning_rate: Of the step.
        grad_norm: Before clipping; ``None``: not measured.
        tokens_per_s: Real tokens a second.
        peak_memory_bytes: Of the GPU, or without one of the process.
    """

    step: int
    epoch: float
    train_loss: float
    learning_rate: float
    grad_norm: float | None
    tokens_per_s: float
    peak_memory_bytes: int


def metrics_line(step: Step, outcome: Outcome, window: Tally) -> Line:
    """A line of ``metrics.jsonl``.

    Args:
        step: The last of the window.
        outcome: Its.
        window: The steps since the line before.
    """
    return {
        "step": step.number,
        "epoch": round(step.epoch, 6),
        "train_loss": window.loss,
        "learning_rate": outcome.learning_rate,
        "grad_norm": outcome.grad_norm,
        "tokens_per_s": window.tokens_per_s,
        "peak_memory_bytes": peak_memory_bytes(),
    }

"""Keeps the books of a run: metrics.jsonl, the trackers, and what is shown meanwhile."""

from __future__ import annotations

import math
import time

from lorafit.machine.memory import peak_memory_bytes
from lorafit.run import RunWriter
from lorafit.training.progress import Progress, Update
from lorafit.training.state import Tally, TrainState
from lorafit.training.steps import StepPlan
from lorafit.training.taken import Taken
from lorafit.training.trackers import Trackers

_SMOOTHING = 0.9


class Reporter:
    """Reports the steps that are taken.

    Args:
        state: Where training stands; its time goes on, and its lines of the metrics are counted.
        plan: Says which steps end a line of the metrics.
        run: Where ``metrics.jsonl`` is; ``None``: nowhere.
        trackers: Get the same lines.
        progress: Gets every step.
    """

    def __init__(
        self,
        state: TrainState,
        plan: StepPlan,
        run: RunWriter | None,
        trackers: Trackers,
        progress: Progress,
    ) -> None:
        self._state = state
        self._plan = plan
        self._run = run
        self._trackers = trackers
        self._progress = progress
        self._began = time.perf_counter()
        self._time_before = state.time_s
        self._step_before = state.step
        self._smooth: float | None = None

    def report(self, taken: Taken) -> None:
        """Shows a step, and ends a line of the metrics where one is due."""
        elapsed = self._tick()
        self._show(taken, elapsed)
        if taken.metrics:
            self._progress.evaluated(taken.step.number, taken.metrics, taken.best)
        if self._plan.logs(taken.step.number):
            self._line(taken)

    def _show(self, taken: Taken, elapsed: float) -> None:
        step, outcome = taken.step, taken.outcome
        loss = outcome.loss
        smooth = loss if self._smooth is None else self._smooth
        self._smooth = _SMOOTHING * smooth + (1 - _SMOOTHING) * loss
        done, left = step.number - self._step_before, self._plan.total_steps - step.number
        self._progress.step(
            Update(
                step=step.number,
                total_steps=self._plan.total_steps,
                epoch=step.epoch,
                loss=self._smooth,
                learning_rate=outcome.learning_rate,
                tokens_per_s=self._state.total.tokens_per_s,
                time_left_s=elapsed / done * left,
            )
        )

    def _line(self, taken: Taken) -> None:
        step, outcome, state = taken.step, taken.outcome, self._state
        line = {
            "step": step.number,
            "epoch": round(step.epoch, 6),
            "train_loss": state.window.loss,
            **{name: _finite(value) for name, value in taken.metrics.items()},
            "learning_rate": outcome.learning_rate,
            "grad_norm": outcome.grad_norm,
            "tokens_per_s": state.window.tokens_per_s,
            "time_s": state.time_s,
            "peak_memory_bytes": peak_memory_bytes(),
        }
        state.window = Tally()
        if self._run is not None:
            self._run.append_metrics(line)
            state.metrics_lines += 1
        self._trackers.log({k: v for k, v in line.items() if v is not None}, step.number)

    def _tick(self) -> float:
        """Brings the state's time up to date; returns the seconds since `fit` began."""
        elapsed = time.perf_counter() - self._began
        self._state.time_s = self._time_before + elapsed
        return elapsed


def _finite(value: float) -> float | None:
    """JSON has no NaN; a metric that is not defined is null."""
    return value if math.isfinite(value) else None

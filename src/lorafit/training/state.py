"""The numbers that a run carries from step to step, and through a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lorafit.evidence.json import Json

if TYPE_CHECKING:
    from lorafit.training.stepper import Outcome


@dataclass
class Tally:
    """Sums over some steps.

    Attributes:
        loss_sum: Summed training losses, nats.
        units: How many losses.
        tokens: Real tokens.
        time_s: Time spent in steps, evaluations and checkpoints not counted.
    """

    loss_sum: float = 0.0
    units: float = 0.0
    tokens: float = 0.0
    time_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Counts one step."""
        self.loss_sum += outcome.loss_sum
        self.units += outcome.units
        self.tokens += outcome.tokens
        self.time_s += outcome.time_s

    @property
    def loss(self) -> float:
        """Mean loss, nats per unit."""
        return self.loss_sum / self.units if self.units else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Real tokens per second of training."""
        return self.tokens / self.time_s if self.time_s else 0.0


@dataclass
class TrainState:
    """Where a run stands after some optimizer step.

    Attributes:
        step: Optimizer steps taken.
        best_step: Step of the lowest validation loss, ``None`` before the first evaluation.
        best_eval_loss: That loss, nats per example.
        evals_since_best: Evaluations since then, for early stopping.
        metrics_lines: Lines in ``metrics.jsonl``.
        time_s: Wall-clock time over all sessions of the run.
        total: Sums since the start.
        window: Sums since the last line of the metrics.
        evaluated: Step and validation loss of each evaluation.
        parts: How many each micro batch is computed in: more than one after memory ran out.
    """

    step: int = 0
    best_step: int | None = None
    best_eval_loss: float | None = None
    evals_since_best: int = 0
    metrics_lines: int = 0
    time_s: float = 0.0
    total: Tally = field(default_factory=Tally)
    window: Tally = field(default_factory=Tally)
    evaluated: list[tuple[int, float]] = field(default_factory=list)
    parts: int = 1

    def count(self, step: int, outcome: Outcome) -> None:
        """Counts the step that was just taken."""
        self.step = step
        self.total.add(outcome)
        self.window.add(outcome)

    def judge(self, eval_loss: float) -> bool:
        """Notes a validation loss and returns whether it is the best so far."""
        self.evaluated.append((self.step, eval_loss))
        if self.best_eval_loss is None or eval_loss < self.best_eval_loss:
            self.best_step, self.best_eval_loss, self.evals_since_best = self.step, eval_loss, 0
            return True
        self.evals_since_best += 1
        return False

    def to_dict(self) -> Json:
        """JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainState:
        """Inverse of `to_dict`."""
        tallies = {name: Tally(**values[name]) for name in ("total", "window")}
        evaluated = [(int(step), float(loss)) for step, loss in values.get("evaluated", ())]
        return cls(**{**values, **tallies, "evaluated": evaluated})

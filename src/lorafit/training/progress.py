"""What training reports while it goes on; how it is shown is the console's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Update:
    """The state of training after one step.

    Attributes:
        step: Optimizer steps taken.
        total_steps: Of how many.
        epoch: Passes over the data.
        loss: Running mean of the training loss, nats per unit.
        learning_rate: Rate of this step.
        tokens_per_s: Real tokens per second of training.
        time_left_s: Estimate, evaluations included, until all of the training is over.
        part: Which of several trainings this is, such as ``run 2 of 3, learning rate 0.0007``;
            ``""``: there is one. The steps are those of this part.
    """

    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    tokens_per_s: float
    time_left_s: float
    part: str = ""


class Progress(Protocol):
    """What `fit` reports to. Implement it to show progress in your own way."""

    def start(self, step: int, total_steps: int) -> None:
        """Training begins after ``step`` steps (above 0 when resumed)."""

    def phase(self, name: str, runs: float, time_s: float) -> None:
        """A phase of a search begins or goes on.

        Args:
            name: Such as ``"learning rate"``.
            runs: What it has cost so far, in plain runs.
            time_s: The same in seconds.
        """

    def step(self, update: Update) -> None:
        """One optimizer step is done."""

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """One evaluation is done; ``metrics`` has ``eval_loss``, ``eval_accuracy``, ..."""

    def stop(self) -> None:
        """Training is over, with or without an error. Called once."""


class QuietProgress:
    """Shows nothing."""

    def start(self, step: int, total_steps: int) -> None:
        """Shows nothing."""

    def phase(self, name: str, runs: float, time_s: float) -> None:
        """Shows nothing."""

    def step(self, update: Update) -> None:
        """Shows nothing."""

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """Shows nothing."""

    def stop(self) -> None:
        """Shows nothing."""

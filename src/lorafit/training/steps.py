"""Which examples each optimizer step sees, and when evaluations and checkpoints are due."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from datasets import Dataset

from lorafit.config import Config
from lorafit.data.batches import BatchOrder, lengths
from lorafit.errors import DataError
from lorafit.evidence import Course
from lorafit.training.ending import (
    EVALUATIONS,
    Evaluated,
    epochs_of,
    is_open,
    judged,
    most_steps,
    still_falling,
)


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        number: Counted from 1: the number of steps taken once it is done.
        epoch: Passes over the data once it is done, e.g. 0.25.
        batches: Example indices of this process's micro batches.
    """

    number: int
    epoch: float
    batches: list[list[int]]


class StepPlan:
    """All steps of a run; a pure function of the settings, so that any step can be resumed at.

    Args:
        train: The encoded training examples.
        config: Batch size, accumulation, epochs, seed.
        rank: This process's number among ``size``.
        size: Number of processes; each step takes this many times more batches.

    Raises:
        DataError: There are no examples.
    """

    def __init__(self, train: Dataset, config: Config, rank: int = 0, size: int = 1) -> None:
        if len(train) == 0:
            raise DataError("there are no training examples")
        settings = self._settings = config.train
        self._order = BatchOrder(lengths(train), settings.per_device_train_batch_size, config.seed)
        self._rank, self._size = rank, size
        self._per_step = settings.gradient_accumulation_steps * size
        self.steps_per_epoch = math.ceil(len(self._order) / self._per_step)
        self.open = is_open(settings, self.steps_per_epoch)
        """Whether the number of steps is left to the validation loss."""
        self.total_steps = most_steps(settings, self.steps_per_epoch)
        """Optimizer steps; the most, where the number is open."""
        between = max(1, round(self.steps_per_epoch / 4))
        if self.open:
            between = max(between, self.total_steps // EVALUATIONS)
        self.eval_steps = settings.eval_steps or between
        self._save_steps = settings.save_steps
        self._logging_steps = settings.logging_steps
        self.expects = {
            "train examples": len(train),
            "train.per_device_train_batch_size": settings.per_device_train_batch_size,
            "train.gradient_accumulation_steps": settings.gradient_accumulation_steps,
            "processes": size,
            "seed": config.seed,
            "total steps": self.total_steps,
        }
        """What must be the same for a checkpoint to be resumed exactly."""

    def steps(self, done: int = 0) -> Iterator[Step]:
        """The steps after the first ``done`` ones."""
        epoch, within = divmod(done, self.steps_per_epoch)
        number = done
        while number < self.total_steps:
            batches = self._order.epoch(epoch)
            for index in range(within, self.steps_per_epoch):
                if number == self.total_steps:
                    return
                number += 1
                chunk = batches[index * self._per_step : (index + 1) * self._per_step]
                yield Step(
                    number=number,
                    epoch=epoch + (index + 1) / self.steps_per_epoch,
                    batches=chunk[self._rank :: self._size],
                )
            epoch, within = epoch + 1, 0

    def evaluates(self, step: int) -> bool:
        """Whether there is an evaluation after this step; after the last there always is."""
        return step % self.eval_steps == 0 or step == self.total_steps

    def course(self, evaluated: Evaluated, steps: int) -> Course:
        """How long a finished training was, and whether that was enough.

        Args:
            evaluated: Step and validation loss of each evaluation; empty: nothing can be said.
            steps: That were taken.
        """
        return Course(
            steps=steps,
            epochs=epochs_of(steps, self.steps_per_epoch),
            most_steps=self.total_steps if self.open else None,
            **still_falling(evaluated, self._settings, steps, self.steps_per_epoch),
        )

    def judged(self, falling: bool | None) -> Course:
        """The course of a whole training of which something else said whether its loss still fell.

        Args:
            falling: Whether it did; ``None``: nobody can tell.
        """
        return replace(
            self.course((), self.total_steps),
            **judged(falling, self._settings, self.total_steps, self.steps_per_epoch),
        )

    def logs(self, step: int) -> bool:
        """Whether this step ends a line of the metrics."""
        return step % self._logging_steps == 0 or self.evaluates(step)

    def saves(self, step: int) -> bool:
        """Whether there is a checkpoint after this step, better or not."""
        if self._save_steps is None:
            return self.evaluates(step)
        return step % self._save_steps == 0 or step == self.total_steps

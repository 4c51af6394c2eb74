"""A training that goes on without learning, because its steps are too large.

A loss that is not finite stops a training (`check_finite`). More often the loss stays finite: it
jumps about at first, and ends at that of answers given without reading, where the model says the
same to every example.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import chain

import numpy as np
import scipy
from datasets import Dataset

from lorafit.config import TrainConfig
from lorafit.tasks.base import Task
from lorafit.training.stepper import Outcome
from lorafit.training.steps import Step

BEGIN = 0.2
"""Share of the steps before which nothing is said: some tasks begin slowly."""
WINDOW, FEWEST = 0.05, 20
"""Share of the steps that is looked at, and the fewest of them."""
ABOVE = 1.1
"""Times the loss of answers given without reading: nothing that learns is so far above."""
CLIPPED = 0.5
"""Share of the gradients that are clipped where the loss is just as high."""


def guessing(task: Task, train: Dataset) -> float | None:
    """The loss of answers given without reading, by how frequent each is: nats per unit.

    Args:
        task: Of one class an example or a token.
        train: Encoded training examples.

    Returns:
        ``None``: the task is another one.
    """
    one_of_many = task.task_type in ("SEQ_CLS", "TOKEN_CLS") and task.loss_name == "nll"
    if not one_of_many or "labels" not in train.column_names:
        return None
    labels = train["labels"][:]
    if task.supervision == "token":
        labels = list(chain.from_iterable(labels))
    counts = Counter(label for label in labels if isinstance(label, int) and label >= 0)
    return float(scipy.stats.entropy(list(counts.values()))) if len(counts) > 1 else None


class Watch:
    """Sees the steps of one training and says once that it diverges.

    Args:
        guess: Loss of answers given without reading, nats per unit; ``None``: it never says so.
        total_steps: Of the training.
        settings: Clipping and the peak rate.
        peak: The peak rate, where it is another one than that of the settings.
        rivals: Whether the training is one of several at different rates, so that the user has
            none to try.
    """

    def __init__(
        self,
        guess: float | None,
        total_steps: int,
        settings: TrainConfig,
        peak: float | None = None,
        *,
        rivals: bool = False,
    ) -> None:
        self._guess = guess
        self._total = total_steps
        self._limit = settings.max_grad_norm or float("inf")
        self._peak = settings.learning_rate if peak is None else peak
        self._rivals = rivals
        self._window = max(FEWEST, round(WINDOW * total_steps))
        self._seen: deque[tuple[float, float]] = deque(maxlen=self._window)
        self._said = False

    def see(self, step: Step, outcome: Outcome) -> str:
        """Looks at a step that was taken.

        Returns:
            What to tell the user; ``""``: nothing.
        """
        self._seen.append((outcome.loss, outcome.grad_norm))
        if self._guess is None or self._said or step.number < BEGIN * self._total:
            return ""
        if len(self._seen) < self._window:
            return ""
        losses, norms = np.array(self._seen).T
        loss = float(losses.mean())
        clipped = float((norms > self._limit).mean()) > CLIPPED
        if loss < self._guess or not (clipped or loss > ABOVE * self._guess):
            return ""
        self._said = True
        return (
            f"after {step.number} of {self._total} steps the training loss ({loss:.3f}) is no "
            f"lower than that of answers given without reading ({self._guess:.3f}): training "
            f"diverges at learning rate {self._peak:.2g}. {self._advice}"
        )

    @property
    def _advice(self) -> str:
        if self._rivals:
            return "The search compares this run with runs at other learning rates"
        return f"Try --learning-rate {self._peak / 4:.2g}"

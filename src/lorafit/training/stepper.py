"""One optimizer step over its micro batches."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lorafit.config import TrainConfig
from lorafit.data.batches import fetch
from lorafit.engine.base import StepResult
from lorafit.training.gradients import GradientCheck, check_finite, clip
from lorafit.training.learner import Learner
from lorafit.training.parallel import Workers
from lorafit.training.parts import fitting, in_parts
from lorafit.training.steps import Step


@dataclass(frozen=True)
class Outcome:
    """What one step did, summed over all processes.

    Attributes:
        loss_sum: Summed loss before the update, nats.
        units: How many losses.
        tokens: Real tokens.
        grad_norm: 2-norm of the gradient of the mean loss, before clipping.
        learning_rate: Rate of the step.
        time_s: How long it took.
    """

    loss_sum: float
    units: float
    tokens: float
    grad_norm: float
    learning_rate: float
    time_s: float

    @property
    def loss(self) -> float:
        """Mean loss before the update, nats per unit."""
        return self.loss_sum / self.units


class Stepper:
    """Takes steps: gradient of the mean loss over the whole effective batch, then AdamW.

    Args:
        learner: Its trainable parameters are trained on its training examples.
        optimizer: Over these parameters.
        schedule: Moved on after each step.
        settings: Clipping and the peak rate.
        fresh: Whether this is the beginning: the first steps are checked for gradients.
    """

    def __init__(
        self,
        learner: Learner,
        optimizer: Optimizer,
        schedule: LRScheduler,
        settings: TrainConfig,
        *,
        fresh: bool = True,
    ) -> None:
        self._engine = learner.engine
        self._train = learner.train
        self._parameters = list(learner.trainable.values())
        self._optimizer = optimizer
        self._schedule = schedule
        self._settings = settings
        self._workers = Workers()
        self.parts = learner.parts
        """How many a micro batch is computed in; it doubles when memory runs out."""
        # Later a gradient may well be zero: of an example that is learned to the last bit.
        self._check = GradientCheck(learner.trainable) if fresh else None

    def take(self, step: Step) -> Outcome:
        """Takes one step.

        Raises:
            DivergenceError: A loss or the gradient is not finite; the weights are as before.
            TrainingError: A parameter gets no gradient.
        """
        started = time.perf_counter()
        engine, workers = self._engine, self._workers
        learning_rate = float(self._optimizer.param_groups[0]["lr"])
        batches = [fetch(self._train, indices) for indices in step.batches]
        (units,) = workers.sum([sum(map(engine.units, batches))])

        def backward(parts: int) -> list[StepResult]:
            self._optimizer.zero_grad(set_to_none=True)
            # Every loss weighs 1 / units, whichever micro batch it is in: the gradient is that of
            # the mean over the effective batch, however uneven its parts.
            return [
                engine.forward_backward(engine.collate(list(rows)), 1 / units)
                for batch in batches
                for rows in in_parts(batch, parts)
            ]

        largest = max(map(len, batches), default=1)
        results, self.parts = fitting(backward, self.parts, largest, step.number)
        workers.sum_gradients(self._parameters)
        norm = clip(self._parameters, self._settings.max_grad_norm)
        # One transfer from the device for all numbers of the step.
        *losses, grad_norm = torch.stack([*(r.loss_sum.to(norm) for r in results), norm]).tolist()
        peak = self._settings.learning_rate
        check_finite(losses, grad_norm, step, learning_rate, peak)
        if self._check is not None:
            self._check()

        self._optimizer.step()
        self._schedule.step()
        loss_sum, tokens = workers.sum([sum(losses), sum(result.tokens for result in results)])
        return Outcome(
            loss_sum=loss_sum,
            units=units,
            tokens=tokens,
            grad_norm=grad_norm,
            learning_rate=learning_rate,
            time_s=time.perf_counter() - started,
        )

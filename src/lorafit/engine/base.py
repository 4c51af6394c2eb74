"""What an engine is: how one batch is collated, computed and differentiated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from lorafit.data.batches import Example
from lorafit.tasks.base import Task

Batch = dict[str, Any]
"""What `Engine.collate` returns and the engine's other methods take.

It always has ``labels``, in the order of the examples."""


@dataclass(frozen=True)
class StepResult:
    """One forward and backward pass.

    Attributes:
        loss_sum: Sum of the losses in nats over the batch, detached, a float32 scalar.
        units: How many losses were summed (examples, or label tokens for language models).
        tokens: Real tokens in the batch, padding not counted.
    """

    loss_sum: torch.Tensor
    units: int
    tokens: int


@dataclass(frozen=True)
class Answers:
    """What a model says of a batch, reduced to numbers of each example.

    Attributes:
        kept: ``(n, ...)``, the first of what `Task.keep` returns.
        labels: ``(n, ...)``, the second.
        losses: ``(n,)``, summed over each example's units, float32.
        units: ``(n,)``, how many losses each sum has, int64.
        finite: ``(n,)``, whether everything the model said is finite, bool.
    """

    kept: np.ndarray
    labels: np.ndarray
    losses: np.ndarray
    units: np.ndarray
    finite: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Answers], order: np.ndarray | None = None) -> Answers:
        """Parts one after the other; ``order`` then picks the examples."""
        found = [
            np.concatenate(columns) if len(columns) > 1 else columns[0]
            for columns in zip(*(vars(part).values() for part in parts), strict=True)
        ]
        return cls(*(found if order is None else [column[order] for column in found]))


def answers_from_logits(task: Task, logits: torch.Tensor, labels: torch.Tensor) -> Answers:
    """Reduces the logits of a batch to what the task needs of them."""
    logits = logits.detach().float()
    labels = torch.as_tensor(labels, device=logits.device)
    finite = logits.reshape(len(logits), -1).isfinite().all(dim=1)
    losses, units = task.losses(logits, labels).detach().float(), task.units(labels)
    return Answers(*task.keep(logits, labels), *_arrays(losses, units, finite))


def answers_from_tokens(
    task: Task, losses: torch.Tensor, right: torch.Tensor, counts: torch.Tensor
) -> Answers:
    """What `answers_from_logits` gives, without the logits of every token at once.

    Args:
        task: A task whose labels are tokens.
        losses: Loss of each labelled token in the order of the examples, ``(tokens,)``.
        right: Whether the likeliest token is the right one, ``(tokens,)``.
        counts: Labelled tokens of each example, ``(n,)`` int64.
    """
    sums = task.token_sums(losses, counts)
    kept = task.keep_tokens(losses, right, counts)
    return Answers(*kept, *_arrays(sums, counts, sums.isfinite()))


def _arrays(*tensors: torch.Tensor) -> list[np.ndarray]:
    return [tensor.cpu().numpy() for tensor in tensors]


def check_training(engine: Any) -> None:
    """Refuses a training step of an engine that was made to answer.

    Raises:
        ValueError: It was: what it would add to the gradients is not that of the adapters.
    """
    if not engine.training:
        raise ValueError(f"the {engine.name} engine was made to answer; it does not train")


class Engine(Protocol):
    """Computes batches; the training loop knows nothing else of the model.

    Randomness (dropout) must be drawn from torch's global generators, directly or as the seed
    of something faster: checkpoints keep their state, and so a resumed run is exact.
    """

    name: str
    reason: str
    """Why this engine was chosen, in one plain sentence."""

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Makes one batch of encoded examples."""

    def units(self, examples: Sequence[Example]) -> int:
        """How many losses these examples have; the loop divides a step's gradient by it."""

    def forward_backward(self, batch: Batch, scale: float) -> StepResult:
        """Adds ``scale`` times the gradient of the summed loss to every trainable ``.grad``."""

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits in evaluation mode without gradients, in the order of the examples."""

    def answers(self, batch: Batch) -> Answers:
        """Losses and what the metrics need, as `logits` would give them.

        An engine that can computes them without holding logits of every token and word.
        """

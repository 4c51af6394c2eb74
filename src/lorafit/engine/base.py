"""What an engine is: how one batch is collated, computed and differentiated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

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


class Engine(Protocol):
    """Computes batches; the training loop knows nothing else of the model.

    Randomness (dropout) must be drawn from torch's global generators, directly or as the seed
    of something faster: checkpoints keep their state, and so a resumed run is exact.
    """

    name: str
    reason: str
    """Why this engine was chosen, in one plain sentence."""

    def collate(self, examples: Sequence[dict[str, Any]]) -> Batch:
        """Makes one batch of encoded examples."""

    def units(self, examples: Sequence[dict[str, Any]]) -> int:
        """How many losses these examples have; the loop divides a step's gradient by it."""

    def forward_backward(self, batch: Batch, scale: float) -> StepResult:
        """Adds ``scale`` times the gradient of the summed loss to every trainable ``.grad``."""

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits in evaluation mode without gradients, in the order of the examples."""

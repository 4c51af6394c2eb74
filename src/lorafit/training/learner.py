"""What learns, and from what: the parts of a training that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datasets import Dataset
from torch import nn
from torch.nn import Parameter

from lorafit.engine.base import Engine
from lorafit.tasks.base import Task


@dataclass(frozen=True, eq=False)
class Learner:
    """A model that learns a task from examples.

    Attributes:
        engine: Computes the batches.
        model: The adapted model; its modules keep their mode (train or eval).
        task: Defines the metrics.
        trainable: The parameters to train, by name.
        train: Encoded training examples.
        validation: Encoded validation examples; they choose the best step.
        parts: How many a micro batch is computed in from the start (`lorafit.training.parts`).
    """

    engine: Engine
    model: nn.Module
    task: Task
    trainable: Mapping[str, Parameter]
    train: Dataset
    validation: Dataset
    parts: int = 1

"""What an arm writes of each of its runs: ``seed-0.json`` and its like."""

from __future__ import annotations

from typing import TypedDict

from lorafit.evaluation.forgetting import Forgotten


class Cost(TypedDict):
    """What a training cost.

    Attributes:
        time_s: Seconds.
        cpu_s: Processor seconds, of all threads.
        tokens_per_s: Real tokens a second.
        peak_memory_bytes: Of the process.
    """

    time_s: float
    cpu_s: float
    tokens_per_s: float
    peak_memory_bytes: int


class Saved(TypedDict, total=False):
    """What only the first run of an arm has.

    Attributes:
        saved_bytes: Size of the adapter's files.
        path: Quality and forgetting with the update scaled by ``c``.
    """

    saved_bytes: int
    path: list[dict[str, float]]


class Measured(Cost, Saved):
    """One run of one method.

    Attributes:
        seed: Added to that of the settings.
        learning_rate: It was trained with.
        steps: Optimizer steps.
        best_step: Whose weights were kept.
        curve: ``eval_loss`` at each ``step`` it was evaluated at.
        train_loss: On a sample of the training rows, nats per unit.
        validation_loss: On the validation rows.
        trainable_parameters: Numbers that were trained.
        engine: Which engine trained.
        forgetting: How far its reading of general text moved.
        metric: The headline metric on the test split.
    """

    seed: int
    learning_rate: float
    steps: int
    best_step: int
    curve: list[dict[str, float]]
    train_loss: float
    validation_loss: float
    trainable_parameters: int
    engine: str
    forgetting: Forgotten
    metric: float


class Failure(TypedDict):
    """Why an arm failed: ``failed.json``.

    Attributes:
        error: Name of the exception.
        message: Its message.
    """

    error: str
    message: str

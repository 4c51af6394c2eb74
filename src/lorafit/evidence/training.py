"""What a training came to, and what choosing cost: parts of ``eval.json`` and ``choices.json``.

A file of another version may lack some fields, or have more: those stay as they are.
"""

from __future__ import annotations

from pydantic import ConfigDict, with_config

# pydantic reads this one; on Python 3.11 not typing's.
from typing_extensions import TypedDict

from lorafit.evidence.interval import Number

MORE = ConfigDict(extra="allow")
"""Fields that are not named here are kept."""


@with_config(MORE)
class Training(TypedDict, total=False):
    """What a training came to, and the sizes of what was trained and of its data.

    Attributes:
        steps: Optimizer steps taken, over all sessions of the run.
        best_step: Step of the lowest validation loss.
        best_eval_loss: That loss, nats per example.
        train_loss: Mean training loss over all steps, nats per unit.
        tokens_per_s: Real tokens per second of training, evaluations not counted.
        peak_memory_bytes: Of the GPU, or without one of the process.
        time_s: Wall-clock time in seconds, evaluations and checkpoints included.
        stopped: Why training ended, in a few words.
        trainable_parameters: Numbers that were trained.
        total_parameters: Those of the whole model.
        rows: Examples of each split.
    """

    steps: Number | None
    best_step: Number | None
    best_eval_loss: Number | None
    train_loss: Number | None
    tokens_per_s: Number | None
    peak_memory_bytes: Number | None
    time_s: Number | None
    stopped: str | None
    trainable_parameters: Number | None
    total_parameters: Number | None
    rows: dict[str, Number]


@with_config(MORE)
class Phase(TypedDict, total=False):
    """What a phase of choosing cost.

    Attributes:
        runs: In plain runs, by the operations.
        trained_tokens: Real tokens that went forward and backward.
        evaluated_tokens: Real tokens that went forward only.
        time_s: Seconds.
    """

    runs: Number
    trained_tokens: Number
    evaluated_tokens: Number
    time_s: Number


@with_config(MORE)
class ChoosingCost(TypedDict, total=False):
    """What choosing and training cost.

    Attributes:
        runs: In plain runs, by the operations.
        runs_by_the_clock: In plain runs, by the time.
        flops: Floating-point operations.
        time_s: Seconds.
        phases: Cost of each phase, in the order they began.
        budget: The most that was allowed, in plain runs.
    """

    runs: Number
    runs_by_the_clock: Number
    flops: Number
    time_s: Number
    phases: dict[str, Phase]
    budget: Number

"""What a strategy is: from a bench, settings that were measured and a trained adapter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from lorafit.evidence import Course
from lorafit.evidence.json import Json
from lorafit.run import Choice
from lorafit.tune.bench.bench import Bench
from lorafit.tune.bench.state import State

CHOOSABLE = (
    "train.learning_rate",
    "adapter.r",
    "adapter.lora_alpha",
    "adapter.target_modules",
)
"""The settings that are measured unless the user sets them."""

EPOCHS = "train.num_train_epochs"
"""Measured too, where it is ``auto`` and the usual epochs are few steps."""


@dataclass
class Found:
    """What a strategy found.

    Attributes:
        state: The trained adapter.
        values: The chosen settings by key, such as ``adapter.r``.
        choices: By the last part of the key, each with its reason and evidence.
        best_step: Step after which the state was captured.
        eval_loss: Its loss on the selection set, nats per example.
        train_loss: Mean training loss of the lineage, nats per unit.
        stopped: Why training ended, in a few words.
        course: How long the training was; ``None``: as long as the bench's plan says.
    """

    state: State
    values: Json
    choices: dict[str, Choice]
    best_step: int
    eval_loss: float
    train_loss: float
    stopped: str = "all steps are done"
    course: Course | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    """More for ``choices.json``, such as curves."""


class Strategy(ABC):
    """Chooses settings and trains. One file in ``tune/``, registered by its name."""

    @abstractmethod
    def search(self, bench: Bench) -> Found:
        """Chooses what is open on the bench, and trains.

        It may use the training and the validation split only, and has to be a function of
        what `Bench` returns: then a killed search goes on as if nothing had happened.

        Raises:
            TrainingError: Nothing that was tried trains.
        """

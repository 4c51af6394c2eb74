"""How many steps a training takes, and whether its loss was still falling at the end.

Three epochs of 300 rows are 30 steps: enough for two classes, far too few for twenty. So where
nobody said how many epochs it should be and three are fewer than 300 steps, the number is open: 300
at most, and a search finds out how many (`lorafit.tune.rise.short`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

from lorafit.config import TrainConfig

USUAL_EPOCHS = 3.0
"""Where data are large enough."""
MOST_STEPS = 300
"""Below this many steps in the usual epochs the end is open; it is also the most there are."""
EVALUATIONS = 20
"""Of the most steps: a quarter of a small epoch is a step or two."""

LEVEL = 0.5
"""Share of the peak above which a rate that falls all the time counts as level."""
LATE = 1 / 3
"""Last share of the steps with level rate, over which it is asked whether the loss still falls."""
FALLING = 0.1
"""Share of the whole fall that has to be in there."""
FEWEST_EVALUATIONS = 3
"""With fewer nothing can be said of a curve."""
LONGER = 3.0
"""Times the epochs to try where it does."""
NICE = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0)

Evaluated = Sequence[tuple[int, float]]
"""Step and validation loss of each evaluation so far, in order."""


def steps_of(epochs: float, steps_per_epoch: int) -> int:
    """Optimizer steps of some epochs; a part of a step is a step."""
    return math.ceil(epochs * steps_per_epoch)


def epochs_of(steps: int, steps_per_epoch: int) -> float:
    """The epochs of a number of steps, to four places: `steps_of` leads back."""
    parts = math.floor(1e4 * steps / steps_per_epoch)
    exact = steps_of(parts / 1e4, steps_per_epoch) == steps
    return (parts if exact else parts - 1) / 1e4  # 16.6 * 15 is more than 249 in floats


def is_open(settings: TrainConfig, steps_per_epoch: int) -> bool:
    """Whether the number of steps is left to the validation loss."""
    if settings.max_steps is not None or settings.num_train_epochs != "auto":
        return False
    return steps_of(USUAL_EPOCHS, steps_per_epoch) < MOST_STEPS


def most_steps(settings: TrainConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of a run; at most, where the end is open."""
    if settings.max_steps is not None:
        return settings.max_steps
    if is_open(settings, steps_per_epoch):
        return MOST_STEPS
    epochs = settings.num_train_epochs
    return steps_of(USUAL_EPOCHS if epochs == "auto" else epochs, steps_per_epoch)


class Falling(TypedDict, total=False):
    """Fields of a `Course`; none: there were too few evaluations to say.

    Attributes:
        falling: Whether the validation loss was still falling; ``None``: nobody can tell.
        setting: Name of the setting to try then.
        value: The value to try.
    """

    falling: bool | None
    setting: str
    value: float


def still_falling(
    evaluated: Evaluated, settings: TrainConfig, steps: int, steps_per_epoch: int
) -> Falling:
    """Whether the validation loss was still falling at the end, and what to try then.

    Asked of the part with level learning rate: where the rate falls the loss falls too, however
    long a training is.

    Args:
        evaluated: Of the whole run.
        settings: It was trained with.
        steps: Optimizer steps it took.
        steps_per_epoch: Of an epoch.

    Returns:
        What a `Course` says of it.
    """
    linear = settings.lr_scheduler_type == "linear"
    share = 1.0 - LEVEL if linear else 1.0 - settings.decay_ratio
    level = [e for e in evaluated if e[0] <= share * steps]
    if len(level) < FEWEST_EVALUATIONS:
        return {}
    (begin, first), (end, last) = level[0], level[-1]
    lowest = min(loss for _, loss in level)
    early = [loss for step, loss in level if step <= max((1.0 - LATE) * end, begin)]
    fall, late = first - lowest, min(early) - last
    # The falling rate should have lowered it further.
    rose = evaluated[-1][1] > min(loss for _, loss in evaluated[:-1])
    fell = last == lowest and late > FALLING * fall > 0
    return judged(fell and not rose, settings, steps, steps_per_epoch)


def judged(
    falling: bool | None, settings: TrainConfig, steps: int, steps_per_epoch: int
) -> Falling:
    """The fields of a `Course` that say whether the loss was still falling, and what to try.

    Args:
        falling: Whether it was; ``None``: nobody can tell.
        settings: It was trained with.
        steps: Optimizer steps it took.
        steps_per_epoch: Of an epoch.
    """
    if not falling:
        return {"falling": falling}
    epochs = steps / steps_per_epoch
    number = settings.max_steps is not None
    setting, value = ("max_steps", steps) if number else ("num_train_epochs", epochs)
    return {"falling": True, "setting": setting, "value": longer(value)}


def longer(number: float) -> float:
    """A round number, about three times as large."""
    wanted = LONGER * number
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(nice * power for nice in NICE if nice * power >= wanted * (1 - 1e-9))

"""Learning-rate schedules: pure functions from the step to a factor of the peak rate.

A step is an optimizer step, counted from 0. The warm-up gives step 0 a rate above zero:
LoRA's ``B`` is zero at the start, so a first step at rate zero would leave ``A`` without a
gradient in the second step too, and waste both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lorafit.config import TrainConfig

Factor = Callable[[int], float]
"""Step to factor in [0, 1]."""


def linear(total_steps: int, warmup_steps: int) -> Factor:
    """Rises over ``warmup_steps``, then falls linearly to 0 at ``total_steps``."""
    return warmup_stable_decay(total_steps, warmup_steps, total_steps - warmup_steps)


def warmup_stable_decay(total_steps: int, warmup_steps: int, decay_steps: int) -> Factor:
    """Rises over ``warmup_steps``, stays at 1, falls linearly over the last ``decay_steps``.

    The factor is 1 at the first step of the decay and would be 0 at ``total_steps``, one
    after the last step. Where warm-up and decay overlap, the smaller factor holds.
    """

    def factor(step: int) -> float:
        rising = (step + 1) / warmup_steps if warmup_steps else 1.0
        falling = (total_steps - step) / decay_steps if decay_steps else 1.0
        return max(0.0, min(1.0, rising, falling))

    return factor


def make_factor(settings: TrainConfig, total_steps: int) -> Factor:
    """The schedule that the settings ask for."""
    warmup_steps = math.ceil(settings.warmup_ratio * total_steps)
    if settings.lr_scheduler_type == "linear":
        return linear(total_steps, warmup_steps)
    decay_steps = math.ceil(settings.decay_ratio * total_steps)
    return warmup_stable_decay(total_steps, warmup_steps, decay_steps)


def make_schedule(optimizer: Optimizer, factor: Factor, step: int = 0) -> LambdaLR:
    """Attaches a schedule; the next optimizer step is number ``step``.

    Args:
        optimizer: Its groups' ``lr`` is the peak rate.
        factor: The schedule.
        step: Optimizer steps already taken; above 0 when resuming.
    """
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    # LambdaLR counts one up when it is made.
    return LambdaLR(optimizer, factor, last_epoch=step - 1)

"""Whether the validation loss was still falling, from what a search has measured anyway.

A plain run asks it of its evaluations at level rate: whether the last third of those steps has a
tenth of the whole fall (`lorafit.training.ending`). A search evaluates the trunk in its decay only,
but its branches decay too, all alike, so their ends lie on one curve: that of a training that is
ended earlier. Two pairs of points are looked at: two of these ends, and the last of them with the
end of the training. A loss that goes on falling does so about with the logarithm of the steps, so
its slope over that tells what the last third of the steps has. Both pairs have to be as steep as
the plain run's threshold, and certain.

The end of the trunk decays for longer than a branch, which makes its fall a little larger. Where
the branches fall no more, that is not counted as falling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorafit.training.ending import FALLING, LATE
from lorafit.tune.decide import gain

EARLIEST = 1 / 3
"""Share of the steps before which no branch says anything of the end."""


@dataclass(frozen=True, eq=False)
class Ended:
    """A state after a decay, on the selection set.

    Attributes:
        step: Steps it was trained for, the decay included.
        losses: Of each example, ``(n,)``, nats.
    """

    step: int
    losses: np.ndarray

    @property
    def loss(self) -> float:
        """The mean."""
        return float(self.losses.mean())


def still_falling(untuned: np.ndarray, branches: Sequence[Ended], end: Ended) -> bool | None:
    """Whether a longer training is likely to be better.

    Args:
        untuned: Losses of the examples before the first step, ``(n,)``, nats.
        branches: The ends of branches that lie on the trunk, in the order of the steps.
        end: The end of the training.

    Returns:
        ``None``: there are too few branches, or too early ones, to say.
    """
    if not branches or branches[-1].step < EARLIEST * end.step:
        return None
    last = branches[-1]
    early = [one for one in branches if one.step <= (1.0 - LATE) * last.step]
    if not early:
        return None
    fall = float(untuned.mean()) - min(one.loss for one in (*branches, end))
    needed = FALLING * fall / -math.log(1.0 - LATE)
    return fall > 0 and all(_steep(a, b, needed) for a, b in ((early[-1], last), (last, end)))


def _steep(before: Ended, after: Ended, needed: float) -> bool:
    """Whether a loss certainly falls, and over the logarithm of the steps as fast as needed."""
    found = gain(before.losses, after.losses)
    return found.low > 0 and found.mean > needed * math.log(after.step / before.step)

"""How much a search in a short run trains, in steps: what `plan` says and the search keeps to.

Below 300 steps shares of a run mean nothing: a twentieth of thirty steps is one or two. So rates
are tried for a number of steps, and where the length of the run is open too, a few lengths are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lorafit.training.steps import StepPlan

FEWEST_STEPS = 300
"""Below this branches are too short to tell anything."""
FACTORS = (1.0, 3.0, 1 / 3)
"""Times the method's usual rate, in the order a budget pays for them."""
TRIAL = 60
"""Steps for which a rate is tried, its decay included."""
WHOLE = 90
"""Runs of no more steps than these are tried whole: it costs little more."""
LENGTHS = (60, 135, 300)
"""Lengths that are tried where the length is open; each about twice the one before."""
DECAY = 0.25
"""Share of a length over which the learning rate falls to zero."""
EVALUATED = (1 / 3, 1 / 2)
"""Bounds of what a token costs to evaluate, of what one costs in training: the frozen weights take
2 and 4 operations for each parameter, the adapter's 2 and 6."""


@dataclass(frozen=True)
class Tokens:
    """What steps and evaluations of a run read.

    Attributes:
        trained: ``trained[n]``: real tokens of the first ``n`` steps.
        evaluated: Of one evaluation.
        evaluations: Of a plain run.
        head: That are read before the first step, for a new head.
    """

    trained: Sequence[int]
    evaluated: int
    evaluations: int
    head: int = 0

    @classmethod
    def of(
        cls, plan: StepPlan, trained: Sequence[int], evaluated: Sequence[int], head: int = 0
    ) -> Tokens:
        """Counts.

        Args:
            plan: Of the run.
            trained: Tokens of each training example.
            evaluated: Tokens of each validation example.
            head: Tokens that are read for a new head.
        """
        sums = [0]
        for step in plan.steps():
            sums.append(sums[-1] + sum(trained[i] for batch in step.batches for i in batch))
        evaluations = sum(plan.evaluates(n + 1) for n in range(plan.total_steps))
        return cls(sums, sum(evaluated), evaluations, head)

    def runs(self, trained: int, evaluations: int) -> float:
        """The most that something and the beginning of the head cost, in plain runs.

        Args:
            trained: Tokens.
            evaluations: How many.
        """
        return max(
            (trained + share * (self.head + evaluations * self.evaluated))
            / max(self.trained[-1] + share * (self.head + self.evaluations * self.evaluated), 1.0)
            for share in EVALUATED
        )


def level_steps(length: int) -> int:
    """The steps of a length before its learning rate falls."""
    return length - math.ceil(DECAY * length)


@dataclass(frozen=True)
class Size:
    """What a short search trains.

    Attributes:
        rates: How many learning rates are tried.
        lengths: Of the training that is delivered: the one number of steps, or those that are
            tried one after the other until a longer one is no better.
        trial: Steps for which each rate is tried; the whole run, or fewer.
        runs: What it costs at most, in plain runs.
    """

    rates: int
    lengths: tuple[int, ...]
    trial: int
    runs: float


def sized(plan: StepPlan, tokens: Tokens, open_rate: bool, budget: float | None) -> Size:
    """The largest search that a budget pays for.

    Args:
        plan: Of the run.
        tokens: Of its steps.
        open_rate: Whether the learning rate is to be chosen.
        budget: In plain runs; ``None``: as much as is useful.
    """
    counts = range(len(FACTORS) if open_rate else 1, 0, -1)
    make = _open if plan.open else _given
    sizes = [make(plan.total_steps, tokens, count) for count in counts]
    if plan.open:
        most = range(LENGTHS[-1] - 1, LENGTHS[0] - 1, -1)
        sizes += [_open(steps, tokens, 1) for steps in most]
    affordable = (size for size in sizes if budget is None or size.runs <= budget + 1e-9)
    return next(affordable, sizes[-1])


def _open(most: int, tokens: Tokens, rates: int) -> Size:
    """Lengths up to a most; each rate is tried at the first, and the best one goes on."""
    lengths = (*(length for length in LENGTHS if length < most), most)
    first = lengths[0]
    trained = tokens.trained
    own = trained[level_steps(most)]
    decays = sum(trained[length] - trained[level_steps(length)] for length in lengths)
    beside = (rates - 1) * trained[first]
    runs = tokens.runs(own + decays + beside, rates - 1 + len(lengths))
    return Size(rates, lengths, first, runs)


def _given(steps: int, tokens: Tokens, rates: int) -> Size:
    """A number of steps that somebody gave; each rate is tried, and the best one is trained."""
    if rates == 1:
        return Size(1, (steps,), steps, 1.0)
    if steps <= WHOLE:
        return Size(rates, (steps,), steps, float(rates))
    tried = tokens.runs(rates * tokens.trained[TRIAL], rates)
    return Size(rates, (steps,), TRIAL, 1.0 + tried)

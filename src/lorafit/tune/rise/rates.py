"""Phase 1: the learning rate, from short runs on the same batches from the same start.

A few rates run at once and are compared by their *prequential* loss: the loss of each batch
before the model is updated on it, averaged over the second half, so that nothing is held out
and nothing has to be evaluated. At a constant rate that misjudges large ones, which a falling
rate makes up for at the end. So the two best go on, both decay to zero for a moment, and the
selection set decides. The trunk goes on from one of the two as it was before its decay: the one
whose rate is nearer to the one that was found.

Shorter runs prefer larger rates; the rate for the whole run is

    lr(1) = lr(t) * t ** 0.1,        t = share of the run that was tried, its decay included.

Whole runs at a level rate up to their last quarter would want an exponent of 0 to .4, .35 as a
compromise. Here the rate falls from where the trials end, so that on average it is two thirds of
what was chosen: that leaves .1 (docs/explanation/tuning.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorafit.errors import TrainingError
from lorafit.evidence.measurements import Evidence, RateTried
from lorafit.run import Choice
from lorafit.tune.bench.bench import Bench, Scored, Trained
from lorafit.tune.bench.state import State
from lorafit.tune.decide import gain
from lorafit.tune.prior.centre import first
from lorafit.tune.rise.course import Ended
from lorafit.tune.rise.trunk import BRANCH, branch

HORIZON = 0.1
FACTOR = 2.0
"""Between neighbouring rates. With 3 one of two neighbours is often too low and the other diverges
(docs/log.md)."""
SHORT, LONG = 0.03, 0.10
"""Shares of the run after which rates are compared: all of them, then the two best."""
FEWEST = 20
"""Steps of the shortest comparison: fewer are mostly warm-up and noise."""
FEWEST_EXAMPLES = 320
"""Examples of the shortest comparison: with small batches twenty steps see too few."""
USUAL_BATCH = 32
"""The batch that the methods' usual rates are for; Adam wants ``sqrt(batch)`` of it below."""
EXTRA = 3
"""Rates added at an edge."""


@dataclass(frozen=True)
class Rate:
    """The outcome.

    Attributes:
        value: For the whole run, constant.
        state: Where the trunk goes on: of one of the finalists.
        trunk: Its pieces of work, so far the trunk's.
        choice: With its reason and evidence.
        ended: The end of the branch that decayed from ``state``; ``None``: it diverged.
    """

    value: float
    state: State
    trunk: list[Trained]
    choice: Choice
    ended: Ended | None


def warmup(bench: Bench, short: int) -> int:
    """Steps over which a rate rises: those of a plain run, which the first comparison outlasts."""
    return min(bench.steps(bench.config.train.warmup_ratio), short // 2)


def warmed(rate: float, warmup: int) -> Any:
    """A constant rate after a linear warm-up of some steps."""
    return lambda step: rate * min(1.0, (step + 1) / max(warmup, 1))


def choose(bench: Bench, start: State) -> Rate:
    """Measures the learning rate.

    Raises:
        TrainingError: Every rate diverges.
    """
    settings = bench.config.train
    batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    examples = math.ceil(FEWEST_EXAMPLES / batch)
    short = max(bench.steps(SHORT), FEWEST, min(examples, bench.steps(LONG)))
    long = max(bench.steps(LONG), 2 * short)
    half = short // 2
    reached = long + bench.steps(BRANCH)
    shrink = (reached / bench.total_steps) ** HORIZON
    # Not higher, as the first comparison finds larger rates by itself, but never smaller ones.
    begun = first(bench, settings.learning_rate * math.sqrt(min(1.0, batch / USUAL_BATCH)))
    centre = begun.learning_rate
    # The two best from where the first comparison ends; one of them is the trunk's beginning.
    beyond = 2 * (long - short) + 2 * bench.steps(BRANCH) - long
    tried = _tried(bench, start, centre, short, beyond)
    scores = _scores(tried, half)
    finalists = {
        rate: _longer(bench, rate, tried[rate], short, long)
        for rate in _finalists(tried, scores, centre, half)
    }
    decayed = {rate: _decayed(bench, rate, piece) for rate, piece in finalists.items()}
    scored = {rate: found for rate, (_, found) in decayed.items() if found is not None}
    flat = _flat(tried, half) and not any(
        gain(one.losses, other.losses).certain
        for one, other in itertools.combinations(scored.values(), 2)
    )
    best = centre if flat else between(scored, next(iter(finalists)), scores)
    # Earlier runs tell the best rate of trials; the usual one is for whole runs.
    value = settings.learning_rate if flat and not begun.near else best * shrink
    # The trunk goes on at this rate, so from the state that was trained most like it.
    whole = [rate for rate, piece in finalists.items() if not piece.diverged]
    origin = min(whole or finalists, key=lambda rate: abs(math.log(rate / value)))
    pieces = [tried[origin], *([finalists[origin]] if origin in whole else [])]
    state = pieces[-1].state
    assert state is not None
    branched = [piece for piece, _ in decayed.values() if piece is not None]
    for piece in (*tried.values(), *finalists.values(), *branched):
        if piece not in pieces:
            bench.journal.forget(piece.entry)
    evidence: Evidence = {
        "tried": [line_of(rate, short, scores.get(rate)) for rate in sorted(tried)]
        + [
            line_of(rate, reached, scored[rate].nll if rate in scored else None, decayed=True)
            for rate in sorted(finalists)
        ],
        "best_after": {"steps": reached, "learning_rate": best},
        "horizon_exponent": HORIZON,
    }
    if flat:
        reason = (
            f"it hardly matters here: short trials of {reached} steps cannot tell {len(scores)} "
            f"rates from {min(scores):.1g} to {max(scores):.1g} apart; {value:.3g} is "
            f"{'taken' if begun.near else 'usual'}"
        )
        evidence["flat"] = True
    else:
        reason = (
            f"in short trials of {len(tried)} rates {best:.2g} was best for {reached} steps; "
            f"longer training needs smaller ones, {bench.total_steps} steps {value:.2g}"
        )
    if begun.near:
        evidence["prior"] = begun.evidence
    ended = Ended(reached, scored[origin].losses) if origin in scored else None
    return Rate(
        value, state, pieces, Choice(float(f"{value:.3g}"), reason + begun.said, evidence), ended
    )


def _tried(
    bench: Bench, start: State, centre: float, short: int, beyond: int
) -> dict[float, Trained]:
    """Rates around a centre, each trained for some steps from the start.

    Args:
        bench: Trains.
        start: Where each begins.
        centre: The middle one.
        short: Steps of each.
        beyond: Steps that the comparison of the best will take, beside the trunk's own.

    Raises:
        TrainingError: Every rate diverges.
    """
    tried: dict[float, Trained] = {}
    half = short // 2

    def try_(rate: float) -> None:
        tried[rate] = bench.train(
            f"lr-{rate:.3g}-{short}",
            "learning rate",
            start,
            short,
            warmed(rate, warmup(bench, short)),
            learning_rate=rate,
        )

    for rate in (centre / FACTOR, centre, centre * FACTOR):
        try_(rate)
    for _ in range(EXTRA):
        scores = _scores(tried, half)
        if not scores:
            try_(min(tried) / FACTOR**3)
            continue
        if not bench.affords(start, short + beyond, 2):
            break
        edge = min(scores, key=lambda rate: scores[rate])
        inner = [rate for rate in scores if edge in (min(scores), max(scores)) and rate != edge]
        # Only an edge that is really better is followed: among equals the prior is kept.
        if not all(_better(tried[edge], tried[rate], half) for rate in inner) or not inner:
            break
        try_(edge / FACTOR if edge == min(scores) else edge * FACTOR)
    if not _scores(tried, half):
        rates = ", ".join(f"{rate:.2g}" for rate in sorted(tried))
        raise TrainingError(
            f"every learning rate that was tried ({rates}) diverges. Look at the data with "
            "`lorafit preview`, or set train.bf16=false, or a learning rate of your own."
        )
    return tried


def _finalists(
    tried: Mapping[float, Trained], scores: Mapping[float, float], centre: float, half: int
) -> list[float]:
    """The best rate and the better of its neighbours, or the usual rate if it is as good."""
    curve = sorted(scores)
    best = min(curve, key=lambda rate: scores[rate])
    at = curve.index(best)
    beside = [rate for rate in curve[max(at - 1, 0) : at + 2] if rate != best]
    if centre in scores and centre != best and not _better(tried[best], tried[centre], half):
        beside = [centre]
    return [best, *sorted(beside, key=lambda rate: scores[rate])[:1]]


def _longer(bench: Bench, rate: float, piece: Trained, short: int, long: int) -> Trained:
    """A finalist, trained on."""
    assert piece.state is not None
    return bench.train(
        f"lr-{rate:.3g}-{long}",
        "learning rate",
        piece.state,
        long,
        warmed(rate, warmup(bench, short)),
        learning_rate=rate,
    )


def _decayed(bench: Bench, rate: float, piece: Trained) -> tuple[Trained | None, Scored | None]:
    """A finalist after a decay, and its scores; ``None`` where it diverged."""
    if piece.state is None:
        return None, None
    return branch(bench, f"lr-{rate:.3g}-decayed", "learning rate", piece.state, rate)


def line_of(rate: float, steps: int, loss: float | None, decayed: bool = False) -> RateTried:
    """A rate as evidence; ``None`` for the loss: it diverged."""
    line: RateTried = {
        "learning_rate": rate,
        "steps": steps,
        "loss": loss,
        "diverged": loss is None,
    }
    if decayed:
        line["decayed"] = True
    return line


def _scores(tried: dict[float, Trained], first: int) -> dict[float, float]:
    """Mean prequential loss from a step on, of the rates that did not diverge."""
    return {
        rate: float(piece.losses[first:].mean())
        for rate, piece in tried.items()
        if not piece.diverged
    }


def between(scored: Mapping[float, Scored], first: float, scores: Mapping[float, float]) -> float:
    """The best rate between the finalists: the bottom of a parabola in log(rate).

    Its slope comes from their losses after the decay, its curvature from the first comparison.
    Where that shows none, the finalists' difference is held against its error: the better one if
    it is certain, the middle if they are equal. Rates outside are not measured so far, so none
    of them is the best. If both diverged in the decay, the winner of the first comparison.
    """
    if len(scored) < 2:
        return next(iter(scored), first)
    low, high = sorted(scored)
    lost = gain(scored[high].losses, scored[low].losses)  # what the higher one loses
    apart = math.log(high / low)
    curvature = 2 * lost.se / apart**2
    if len(scores) > 2:
        curve = sorted(scores)
        losses = [scores[rate] for rate in curve]
        curvature = max(curvature, float(np.polyfit(np.log(curve), losses, 2)[0]))
    if curvature <= 0:
        return min(scored, key=lambda rate: scored[rate].nll)
    best = math.log(low * high) / 2 - lost.mean / (2 * curvature * apart)
    return math.exp(min(max(best, math.log(low)), math.log(high)))


def _better(one: Trained, other: Trained, first: int) -> bool:
    """Whether the losses of one are lower by more than a standard error, from a step on."""
    return other.diverged or gain(other.losses[first:], one.losses[first:]).pays


def _flat(tried: dict[float, Trained], first: int) -> bool:
    """Whether no two rates can be told apart from a step on: then none of them is a choice."""
    runs = [piece.losses[first:] for piece in tried.values() if not piece.diverged]
    if len(runs) < 2 or len(runs) < len(tried) or len(runs[0]) < 4:
        return False
    best = min(runs, key=lambda losses: float(losses.mean()))
    return all(not gain(losses, best).certain for losses in runs if losses is not best)

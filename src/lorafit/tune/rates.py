"""Phase 1: the learning rate, from short runs on the same batches from the same start.

The score of a rate is its *prequential* loss: the loss of each batch before the model is
updated on it, averaged over the second half of the run, so that nothing is held out and
nothing has to be evaluated. Shorter runs prefer larger rates; the rate for the whole run is

    lr(1) = lr(t) * t ** 0.35,        t = share of the run that was tried.

The exponent was measured on a small encoder (docs/explanation/tuning.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorafit.errors import TrainingError
from lorafit.run import Choice
from lorafit.tune.bench import Bench, Trained
from lorafit.tune.decide import gain, vertex
from lorafit.tune.state import State

HORIZON = 0.35
FACTOR = 3.0
"""Between neighbouring rates."""
SHORT, LONG = 0.03, 0.10
"""Shares of the run after which rates are compared: all of them, then the two best."""
FEWEST = 20
"""Steps of the shortest comparison: fewer are mostly warm-up and noise."""
FEWEST_EXAMPLES = 320
"""Examples of the shortest comparison: with small batches twenty steps see too few."""
USUAL_BATCH = 32
"""The batch that the methods' usual rates are for; Adam wants ``sqrt(batch)`` of it below."""
EXTRA = 2
"""Rates added at an edge."""


@dataclass(frozen=True)
class Rate:
    """The outcome.

    Attributes:
        value: For the whole run, constant.
        state: Of the survivor, where the trunk goes on.
        trunk: The survivor's pieces of work, so far the trunk's.
        choice: With its reason and evidence.
    """

    value: float
    state: State
    trunk: list[Trained]
    choice: Choice


def warmed(rate: float, warmup: int, start: int = 0) -> Any:
    """A constant rate after a linear warm-up of some steps."""
    return lambda step: rate * min(1.0, (step - start + 1) / max(warmup, 1))


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
    half, later = short // 2, (long - short) // 2
    prior = settings.learning_rate * math.sqrt(min(1.0, batch / USUAL_BATCH))
    centre = prior / (long / bench.total_steps) ** HORIZON
    tried = _tried(bench, start, centre, short)
    scores = _scores(tried, half)
    ranked = sorted(scores, key=lambda rate: scores[rate])
    if centre in ranked[2:] and not _better(tried[ranked[0]], tried[centre], half):
        ranked.remove(centre)
        ranked.insert(1, centre)
    finalists = {rate: _longer(bench, rate, tried[rate], short, long) for rate in ranked[:2]}
    last = _scores(finalists, later) or {ranked[0]: scores[ranked[0]]}
    survivor = min(last, key=lambda rate: last[rate])
    pieces = [tried[survivor]]
    if not finalists[survivor].diverged:
        pieces.append(finalists[survivor])
    state = pieces[-1].state
    assert state is not None
    flat = _flat(tried, half) and _flat(finalists, later)
    best = centre if flat else _between(last, survivor, scores)
    shrink = (state.step / bench.total_steps) ** HORIZON
    value = settings.learning_rate if flat else best * shrink
    for piece in (*tried.values(), *finalists.values()):
        if piece not in pieces:
            bench.journal.forget(piece.entry)
    evidence = {
        "tried": [
            _line(rate, short, scores.get(rate), tried[rate].diverged) for rate in sorted(tried)
        ]
        + [
            _line(rate, long, last.get(rate), finalists[rate].diverged)
            for rate in sorted(finalists)
        ],
        "best_after": {"steps": state.step, "learning_rate": best},
        "horizon_exponent": HORIZON,
    }
    if flat:
        reason = (
            f"training is insensitive to it: {len(scores)} rates from {min(scores):.1g} to "
            f"{max(scores):.1g} cannot be told apart after {long} steps; {value:g} is usual"
        )
    else:
        reason = (
            f"of {len(tried)} rates the loss falls fastest at {best:.2g} over {state.step} steps; "
            f"a run of {bench.total_steps} steps wants {value:.2g}"
        )
    return Rate(value, state, pieces, Choice(float(f"{value:.3g}"), reason, evidence))


def _tried(bench: Bench, start: State, centre: float, short: int) -> dict[float, Trained]:
    """Rates around a centre, each trained for some steps from the start.

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
            warmed(rate, short // 3),
            learning_rate=rate,
        )

    for rate in (centre / FACTOR, centre, centre * FACTOR):
        try_(rate)
    for _ in range(EXTRA):
        scores = _scores(tried, half)
        if not scores:
            try_(min(tried) / FACTOR**2)
            continue
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


def _longer(bench: Bench, rate: float, piece: Trained, short: int, long: int) -> Trained:
    """A finalist, trained on."""
    assert piece.state is not None
    return bench.train(
        f"lr-{rate:.3g}-{long}",
        "learning rate",
        piece.state,
        long,
        warmed(rate, short // 3),
        learning_rate=rate,
    )


def _line(rate: float, steps: int, loss: float | None, diverged: bool) -> dict[str, Any]:
    return {"learning_rate": rate, "steps": steps, "loss": loss, "diverged": diverged}


def _scores(tried: dict[float, Trained], first: int) -> dict[float, float]:
    """Mean prequential loss from a step on, of the rates that did not diverge."""
    return {
        rate: float(piece.losses[first:].mean())
        for rate, piece in tried.items()
        if not piece.diverged
    }


def _between(last: dict[float, float], survivor: float, scores: dict[float, float]) -> float:
    """The best rate between and around the finalists, within half a factor of the survivor.

    The curvature in log(rate) comes from the first comparison, the slope from the last. Rates
    beyond those that were tried are not measured at all, so none of them is the best.
    """
    curve = sorted(scores)
    losses = [scores[rate] for rate in curve]
    if len(last) < 2 or vertex(np.log(curve), np.array(losses)) is None:
        return survivor
    curvature = float(np.polyfit(np.log(curve), losses, 2)[0])
    (x1, y1), (x2, y2) = sorted((math.log(rate), loss) for rate, loss in last.items())
    best = (x1 + x2) / 2 - (y2 - y1) / (2 * curvature * (x2 - x1))
    reach = math.log(FACTOR) / 2
    lowest = max(math.log(survivor) - reach, math.log(min(scores)))
    highest = min(math.log(survivor) + reach, math.log(max(scores)))
    return math.exp(min(max(best, lowest), highest))


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

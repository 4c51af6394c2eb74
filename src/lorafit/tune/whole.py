"""Whole runs, for the strategies that compare nothing shorter.

Each is what a plain run is: all steps, the schedule of the settings, evaluations where a
plain run makes them, the best state kept. It costs 1 U.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorafit.errors import TrainingError
from lorafit.evidence.json import Json
from lorafit.evidence.measurements import Rival
from lorafit.run import Choice
from lorafit.training.schedule import make_factor
from lorafit.tune.base import Found
from lorafit.tune.bench.bench import Bench, Scored, Trained
from lorafit.tune.bench.state import State
from lorafit.tune.decide import Gain, gain

RANKS = (1, 4, 16)
RATE_FACTORS = (1 / 9, 1 / 3, 1.0, 3.0)
"""Times the method's usual rate."""
ATTENTION, ALL = "attention", "all-linear"


@dataclass(frozen=True)
class Point:
    """The settings of one whole run.

    Attributes:
        learning_rate: Peak rate.
        r: Rank; ``None``: the method has none.
        target_modules: Names of the adapted modules; ``None``: as configured.
    """

    learning_rate: float
    r: int | None = None
    target_modules: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """Unique among the points of one search."""
        modules = "" if self.target_modules is None else f"-{len(self.target_modules)}-modules"
        return f"run-{self.learning_rate:.4g}{'' if self.r is None else f'-r{self.r}'}{modules}"

    @property
    def said(self) -> str:
        """What is special about it, in words."""
        words = [f"learning rate {self.learning_rate:.3g}"]
        if self.r is not None:
            words.append(f"r {self.r}")
        if self.target_modules is not None:
            words.append(f"{len(self.target_modules)} kinds of modules")
        return ", ".join(words)

    def to_dict(self) -> Json:
        """JSON values, of what varies."""
        modules = None if self.target_modules is None else list(self.target_modules)
        values = {"learning_rate": self.learning_rate, "r": self.r, "target_modules": modules}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Outcome:
    """A whole run.

    Attributes:
        point: Its settings.
        pieces: Its pieces of work.
        best: The best state, its step and its scores; ``None``: it diverged.
        evaluated: Step and loss on the selection set of each evaluation.
    """

    point: Point
    pieces: Sequence[Trained]
    best: tuple[State, int, Scored] | None
    evaluated: Sequence[tuple[int, float]] = ()

    @property
    def nll(self) -> float:
        """Loss of the best state on the selection set; infinite if the run diverged."""
        return float("inf") if self.best is None else self.best[2].nll


def ranks(bench: Bench, most: Sequence[int] = RANKS) -> list[int | None]:
    """The ranks to try: those of ``most`` that the layers have room for."""
    if "adapter.r" not in bench.open:
        return [None]
    return [r for r in most if r <= bench.tunable.largest_rank()] or [1]


def rates(bench: Bench, factors: Sequence[float] = RATE_FACTORS) -> list[float]:
    """The learning rates to try: the method's usual one times these factors."""
    prior = bench.config.train.learning_rate
    if "train.learning_rate" not in bench.open:
        return [prior]
    return [prior * factor for factor in factors]


def module_sets(bench: Bench) -> list[tuple[str, ...] | None]:
    """The sets of modules to try: those of attention, and all that the adapter stands on."""
    if "adapter.target_modules" not in bench.open:
        return [None]
    sites = [site for site in bench.tunable.adapters.sites["default"] if site.is_layer]
    every = {site.name for site in sites}
    attention = {site.name for site in sites if site.role == ATTENTION}
    # A name that is also used outside attention cannot be asked for alone.
    attention -= {site.name for site in sites if site.role != ATTENTION}
    sets = [attention, every] if attention and attention != every else [every]
    return [tuple(sorted(names)) for names in sets]


def run(bench: Bench, point: Point) -> Outcome:
    """Makes one whole run; of its states only the best is kept."""
    bench.notes.begin_run(point.said)
    settings: Json = {}
    if point.r is not None:
        settings["r"] = point.r
    if point.target_modules is not None:
        settings["target_modules"] = sorted(point.target_modules)
    state = bench.fresh(f"{point.name}-start", **settings)
    factor = make_factor(bench.config.train, bench.total_steps)
    pieces: list[Trained] = []
    best: tuple[State, int, Scored] | None = None
    kept: Trained | None = None
    evaluated: list[tuple[int, float]] = []
    for until in range(1, bench.total_steps + 1):
        if not bench.plan.evaluates(until):
            continue
        piece = bench.train(
            f"{point.name}-{until}",
            "whole runs",
            state,
            until,
            lambda step: point.learning_rate * factor(step),
            **point.to_dict(),
        )
        if pieces and pieces[-1] is not kept:
            bench.journal.forget(pieces[-1].entry)
        pieces.append(piece)
        if piece.state is None:
            return Outcome(point, pieces, None)
        state = piece.state
        scored = bench.score(f"{point.name}-{until}-score", "whole runs", state)
        evaluated.append((until, scored.nll))
        if best is None or scored.nll < best[2].nll:
            if kept is not None and kept is not pieces[-1]:
                bench.journal.forget(kept.entry)
            best, kept = (state, until, scored), piece
    return Outcome(point, pieces, best, evaluated)


def drop_losers(bench: Bench, outcomes: Sequence[Outcome]) -> None:
    """Lets go of the states of all runs but the best."""
    best = min(outcomes, key=lambda outcome: outcome.nll)
    for outcome in outcomes:
        if outcome is not best:
            for piece in outcome.pieces:
                bench.journal.forget(piece.entry)


def found(bench: Bench, outcomes: Sequence[Outcome], how: str) -> Found:
    """The best of the runs, as every strategy returns it.

    Args:
        bench: Where they were made.
        outcomes: All runs.
        how: How they were chosen, for the reasons: ``"of a grid"``.

    Raises:
        TrainingError: All of them diverged.
    """
    winner = min(outcomes, key=lambda outcome: outcome.nll)
    if winner.best is None:
        tried = ", ".join(f"{o.point.learning_rate:.2g}" for o in outcomes)
        raise TrainingError(
            f"every run diverged (learning rates {tried}). Look at the data with "
            "`lorafit preview`, or set a learning rate with --learning-rate."
        )
    state, step, scored = winner.best
    bench.adopt([piece.entry for piece in winner.pieces], bench.total_steps)
    bench.notes.evaluated(step, scored.metrics, True)
    settings = dict(state.shape.settings)
    chosen = {"learning_rate": winner.point.learning_rate, **settings}
    choices: dict[str, Choice] = {}
    for name in ("learning_rate", "r", "lora_alpha", "target_modules"):
        section = "train" if name == "learning_rate" else "adapter"
        if f"{section}.{name}" not in bench.open or name not in chosen:
            continue
        rivals = _rivals(outcomes, winner, name)
        reason = _reason(how, len(outcomes), name, rivals, bench.tunable.keeps_scaling)
        choices[name] = Choice(
            chosen[name], reason, {"rivals": [_beside(value, lost) for value, lost in rivals]}
        )
    losses = [float(x) for piece in winner.pieces for x in piece.losses]
    values = {"train.learning_rate": winner.point.learning_rate}
    return Found(
        state=state,
        values=values | {f"adapter.{name}": value for name, value in settings.items()},
        choices=choices,
        best_step=step,
        eval_loss=float(scored.raw.mean()),
        train_loss=sum(losses) / max(1, len(losses)),
        course=bench.plan.course(winner.evaluated, bench.total_steps),
        extra={
            "whole_runs": [
                o.point.to_dict() | {"loss": None if o.best is None else o.nll} for o in outcomes
            ]
        },
    )


def _rivals(outcomes: Sequence[Outcome], winner: Outcome, name: str) -> list[tuple[object, Gain]]:
    """For every other value of a setting what the winner has over its best run, paired."""
    assert winner.best is not None
    best: dict[Any, Outcome] = {}
    for outcome in outcomes:
        value = getattr(outcome.point, name, None)
        if value == getattr(winner.point, name, None) or outcome.best is None:
            continue
        if value not in best or outcome.nll < best[value].nll:
            best[value] = outcome
    return [
        (value, gain(outcome.best[2].losses, winner.best[2].losses))
        for value, outcome in sorted(best.items(), key=lambda item: item[1].nll)
        if outcome.best is not None
    ]


def _beside(value: object, lost: Gain) -> Rival:
    plain = list(value) if isinstance(value, tuple) else value
    return {"value": plain, "gain": lost.to_dict()}


def _reason(
    how: str, count: int, name: str, rivals: Sequence[tuple[object, Gain]], keeps_scaling: bool
) -> str:
    """One sentence for one setting."""
    first = f"best of {count} whole runs {how} on the validation rows"
    if name == "lora_alpha":
        same = "the scaling" if keeps_scaling else "it"
        return f"{first}; {same} was the same in all of them"
    if not rivals:
        return first
    shown, lost = rivals[0]
    shown = f"{shown:.2g}" if isinstance(shown, float) else shown
    shown = f"{len(shown)} modules" if isinstance(shown, tuple) else shown
    sure = "" if lost.low > 0 else ", which may be chance"
    return f"{first}; with {shown} at best, the validation loss differs by {lost}{sure}"

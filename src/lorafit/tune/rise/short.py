"""Short runs: too few steps for short trials from a trunk, and often their number is open, too.

Rates are tried for a number of steps, each with a decay at its end, and the one with the lowest
loss on the validation rows is taken. Where somebody gave the number of steps, it is then trained
whole. Where the number is open, its training goes on at the level rate from before the decay, and
at each length of `size.LENGTHS` a branch decays and is scored: once a longer one is no better, the
best branch so far is the result. That costs little beside the longest, because the level part is
shared; and losses after a decay tell far more than those at the level rate, which jump about on
small data (docs/explanation/tuning.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lorafit.data.batches import lengths
from lorafit.errors import TrainingError
from lorafit.evidence import Course
from lorafit.evidence.measurements import Evidence, RateTried
from lorafit.run import Choice
from lorafit.training.ending import epochs_of, longer
from lorafit.tune import whole
from lorafit.tune.base import EPOCHS, Found
from lorafit.tune.bench.bench import Bench, Scored, Trained
from lorafit.tune.bench.state import State
from lorafit.tune.decide import gain
from lorafit.tune.prior.centre import first
from lorafit.tune.rise.rates import line_of, warmed
from lorafit.tune.rise.size import FACTORS, FEWEST_STEPS, Size, Tokens, level_steps, sized
from lorafit.tune.whole import Point

WARMUP = 6
"""Steps over which a rate rises."""
PHASE = "learning rate"


@dataclass(frozen=True, eq=False)
class Tried:
    """A training of some length, with its decay.

    Attributes:
        length: In steps.
        piece: Its decay.
        scored: Its end on the selection set.
    """

    length: int
    piece: Trained
    scored: Scored


@dataclass(eq=False)
class Growing:
    """The training at one rate, as far as it has got.

    Attributes:
        rate: Level learning rate.
        state: Where it stands, at the level rate; ``None``: it diverged.
        pieces: At the level rate, in order.
        tried: The lengths that were tried, in order.
    """

    rate: float
    state: State | None
    pieces: list[Trained] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)

    @property
    def nll(self) -> float:
        """Loss of the best length; infinite if there is none."""
        return min((one.scored.nll for one in self.tried), default=float("inf"))

    @property
    def best(self) -> Tried:
        """The length with the lowest loss; the shortest of equal ones."""
        return min(self.tried, key=lambda one: one.scored.nll)

    def grow(self, bench: Bench, length: int, phase: str) -> bool:
        """Trains up to a length, decays and scores.

        Returns:
            Whether it did, without diverging.
        """
        if self.state is None:
            return False
        level, rate = level_steps(length), self.rate
        name = f"lr-{rate:.3g}-{length}"
        piece = bench.train(
            f"{name}-level", phase, self.state, level, warmed(rate, WARMUP), learning_rate=rate
        )
        if self.pieces:
            bench.journal.forget(self.pieces[-1].entry)
        self.pieces.append(piece)
        self.state = piece.state
        if piece.state is None:
            return False
        decayed = bench.train(
            f"{name}-decayed",
            phase,
            piece.state,
            length,
            lambda step: warmed(rate, WARMUP)(step) * (length - step) / (length - level),
            learning_rate=rate,
        )
        if decayed.state is None:
            return False
        scored = bench.score(f"{name}-score", phase, decayed.state)
        self.tried.append(Tried(length, decayed, scored))
        for one in self.tried:
            if one is not self.best:
                bench.journal.forget(one.piece.entry)
        return True

    def forget(self, bench: Bench) -> None:
        """Lets go of all its states."""
        for piece in (*self.pieces, *(one.piece for one in self.tried)):
            bench.journal.forget(piece.entry)


def applies(bench: Bench) -> bool:
    """Whether a run is a short one."""
    return bench.plan.open or bench.total_steps < FEWEST_STEPS


def choose(bench: Bench) -> Found:
    """Chooses the learning rate and, where it is open, the number of steps; the rest is default.

    Raises:
        TrainingError: All that is tried diverges.
    """
    trained, evaluated = (lengths(split) for split in (bench.train_set, bench.selection))
    tokens = Tokens.of(bench.plan, trained, evaluated, bench.head_tokens)
    open_rate = "train.learning_rate" in bench.open
    size = sized(bench.plan, tokens, open_rate, bench.budget)
    bench.notes.expect_cost(size.runs)
    begun = first(bench, bench.config.train.learning_rate) if open_rate else None
    centre = bench.config.train.learning_rate if begun is None else begun.learning_rate
    rates = [centre * factor for factor in FACTORS[: size.rates]]
    if not bench.plan.open and size.trial == bench.total_steps:
        few = f"{bench.total_steps} steps are too few for short trials"
        bench.say(f"{few}: {len(rates)} whole run{'s' * (len(rates) > 1)}")
        found = _whole(bench, rates)
    else:
        grown = _trials(bench, rates, size)
        best = min(grown, key=lambda one: one.nll)
        for one in grown:
            if one is not best:
                one.forget(bench)
        if bench.plan.open:
            found = _open(bench, best, size)
        else:
            best.forget(bench)
            bench.say(f"learning rate {best.rate:.3g} is the best; with it the whole run")
            found = _whole(bench, [best.rate])
        evidence: Evidence = {"tried": [_line(one, size.trial) for one in sorted(grown, key=_rate)]}
        reason = _why(grown, best, size, bench)
        rate = Choice(float(f"{best.rate:.3g}"), reason, evidence)
        found = replace(found, choices=found.choices | {"learning_rate": rate})
    chosen = found.choices.get("learning_rate")
    if begun is not None and begun.near and chosen is not None:
        evidence = {**chosen.evidence, "prior": begun.evidence}
        said = Choice(chosen.value, chosen.reason + begun.said, evidence)
        found = replace(found, choices=found.choices | {"learning_rate": said})
    return _described(bench, found)


def _trials(bench: Bench, rates: list[float], size: Size) -> list[Growing]:
    """Each rate, trained for as long as a trial is.

    Raises:
        TrainingError: All diverge.
    """
    if len(rates) > 1:
        bench.say(f"{len(rates)} learning rates, each for {size.trial} steps")
    start = bench.start()
    grown = [Growing(rate, start) for rate in rates]
    for one in grown:
        one.grow(bench, size.trial, PHASE)
    if not any(one.tried for one in grown):
        tried = ", ".join(f"{rate:.2g}" for rate in rates)
        raise TrainingError(
            f"every run diverged (learning rates {tried}). Look at the data with "
            "`lorafit preview`, or set a learning rate with --learning-rate."
        )
    return grown


def _open(bench: Bench, growing: Growing, size: Size) -> Found:
    """Trains on, from length to length, until a longer one is no better."""
    for length in size.lengths[1:]:
        before = growing.nll
        if not growing.grow(bench, length, "length") or growing.nll >= before:
            break
        bench.say(f"{length} steps are better: validation loss {growing.nll:.4f}")
    best = growing.best
    assert best.piece.state is not None
    until = growing.tried.index(best) + 1
    pieces = [*growing.pieces[:until], best.piece]
    bench.adopt([piece.entry for piece in pieces], best.length)
    bench.notes.evaluated(best.length, best.scored.metrics, True)
    losses = [float(x) for piece in pieces for x in piece.losses]
    course = _course(bench, growing, size)
    return Found(
        state=best.piece.state,
        values={"train.learning_rate": growing.rate, EPOCHS: course.epochs}
        | {f"adapter.{name}": v for name, v in best.piece.state.shape.settings.items()},
        choices={
            "num_train_epochs": Choice(
                course.epochs,
                _length_reason(growing, size),
                {
                    "lengths": [
                        {"steps": one.length, "loss": one.scored.nll} for one in growing.tried
                    ],
                    "most_steps": size.lengths[-1],
                },
            )
        },
        best_step=best.length,
        eval_loss=float(best.scored.raw.mean()),
        train_loss=sum(losses) / max(1, len(losses)),
        course=course,
    )


def _course(bench: Bench, growing: Growing, size: Size) -> Course:
    """How long the training was, and whether a longer one is likely to be better."""
    steps, most = growing.best.length, size.lengths[-1]
    per_epoch = bench.plan.steps_per_epoch
    course = Course(steps, epochs_of(steps, per_epoch), most_steps=most)
    if len(growing.tried) < 2:
        return course
    if steps < most:
        return replace(course, falling=False)
    before, last = growing.tried[-2:]
    if not gain(before.scored.losses, last.scored.losses).pays:
        return replace(course, falling=False)
    wanted = longer(steps / per_epoch)
    return replace(course, falling=True, setting="num_train_epochs", value=wanted)


def _length_reason(growing: Growing, size: Size) -> str:
    """Why training was as long as it was."""
    best, last = growing.best, growing.tried[-1]
    if last is not best:
        lost = gain(last.scored.losses, best.scored.losses)
        return (
            f"the validation loss stops falling: {last.length} steps are no better than "
            f"{best.length} (from there it changes by {lost})"
        )
    if len(growing.tried) < 2:
        if best.length < size.lengths[-1]:
            return f"{best.length} steps; training diverges in a longer run"
        return f"{best.length} steps are what the budget pays for"
    before = growing.tried[-2]
    won = gain(before.scored.losses, best.scored.losses)
    if best.length < size.lengths[-1]:
        return f"{best.length} steps; training diverges in a longer run"
    return (
        f"{best.length} steps, the most, are better than {before.length}: "
        f"the validation loss changes by {won.change}"
    )


def _why(grown: Sequence[Growing], best: Growing, size: Size, bench: Bench) -> str:
    """Why the learning rate is what it is."""
    if len(grown) == 1:
        return f"default; the budget of {bench.budget:g} runs pays for no other rate"
    others = [one for one in grown if one is not best and one.tried]
    first = f"of {len(grown)} rates the best after {size.trial} steps"
    if not others:
        return f"{first}; training diverges at the others"
    second = min(others, key=lambda one: one.tried[0].scored.nll)
    lost = gain(second.tried[0].scored.losses, best.tried[0].scored.losses)
    sure = "" if lost.certain else ", which may be chance"
    return f"{first}; with {second.rate:.2g} the validation loss differs by {lost}{sure}"


def _rate(growing: Growing) -> float:
    return growing.rate


def _line(growing: Growing, steps: int) -> RateTried:
    """A tried rate, as evidence."""
    loss = growing.tried[0].scored.nll if growing.tried else None
    return line_of(growing.rate, steps, loss)


def _whole(bench: Bench, rates: Sequence[float]) -> Found:
    """Whole runs at some rates, the best of which is kept."""
    few = f"{bench.total_steps} steps are too few for short trials"
    bench.notes.expect_runs(len(rates))
    outcomes: list[whole.Outcome] = []
    for rate in rates:
        outcomes.append(whole.run(bench, Point(rate)))
        whole.drop_losers(bench, outcomes)
    found = whole.found(bench, outcomes, "at other learning rates")
    choices: dict[str, Choice] = {}
    measured = found.choices.get("learning_rate")
    if measured is not None:
        why = measured.reason
        if len(rates) == 1:
            why = f"default; the budget of {bench.budget:g} runs pays for no other rate"
        lines = [
            line_of(
                outcome.point.learning_rate,
                bench.total_steps,
                None if outcome.best is None else outcome.nll,
            )
            for outcome in sorted(outcomes, key=lambda outcome: outcome.point.learning_rate)
        ]
        choices["learning_rate"] = Choice(
            float(f"{measured.value:.3g}"), f"{few}: {why}", {**measured.evidence, "tried": lines}
        )
    return replace(found, choices=choices)


def _described(bench: Bench, found: Found) -> Found:
    """With the reasons of what was open and not measured."""
    few = f"{bench.total_steps} steps are too few to measure it"
    names = [key.rpartition(".")[2] for key in bench.open if key.startswith("adapter.")]
    settings = found.state.shape.settings
    defaults = {
        name: Choice(settings[name], f"default; {few}")
        for name in ("r", "lora_alpha", "target_modules")
        if name in names and name in settings
    }
    wanted = {key.rpartition(".")[2] for key in bench.open}
    kept = {name: choice for name, choice in found.choices.items() if name in wanted}
    return replace(found, choices=kept | defaults)

"""The training that runs through a search: it goes on piece by piece and keeps its best state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lorafit.errors import TrainingError
from lorafit.tune.bench.bench import CHUNK, Bench, Rate, Scored, Trained
from lorafit.tune.bench.state import State
from lorafit.tune.rise.course import Ended

WARMUP = 0.02
"""Share of the steps over which the rate rises where nothing was tried before."""
BRANCH = 0.05
"""Length of a branch, as a share of the steps."""
RETRIES = 3
"""How often the trunk goes back and halves the rate when it diverges."""
LEARNED, LOST = 0.85, 1.0
"""Shares of the first steps' loss: once below the one and then above the other is a collapse."""


@dataclass(frozen=True)
class Best:
    """The best scored state.

    Attributes:
        state: It.
        scored: Its scores.
        rate: Learning rate that it was trained with before it decayed.
        changes: What became of the measured rate on the way, in words.
    """

    state: State
    scored: Scored
    rate: float
    changes: tuple[str, ...]


@dataclass
class Trunk:
    """The training that runs through.

    Attributes:
        state: Where it stands.
        rate: Learning rate, before it falls.
        falls_from: Step from which the rate falls, linearly to zero at the end of the run.
        changes: What became of the measured rate, in words.
        pieces: Its pieces of work so far.
        best: The best scored state.
        ended: The ends of the branches that it might have ended with.
    """

    state: State
    rate: float
    falls_from: int
    changes: tuple[str, ...] = ()
    pieces: list[Trained] = field(default_factory=list)
    best: Best | None = None
    ended: list[Ended] = field(default_factory=list)

    def judge(self, state: State, scored: Scored) -> bool:
        """Keeps a scored state if it is the best so far."""
        if self.best is not None and scored.nll >= self.best.scored.nll:
            return False
        self.best = Best(state, scored, self.rate, self.changes)
        return True

    def collapses(self, piece: Trained) -> bool:
        """Whether a piece loses what was learned: finite, but back at the loss of the start."""
        if not self.pieces:
            return False
        start = float(self.pieces[0].losses[:3].mean())
        learned = min(float(p.losses.mean()) for p in self.pieces)
        return learned < LEARNED * start and float(piece.losses.mean()) > LOST * start

    @property
    def train_loss(self) -> float:
        """Mean training loss over all steps."""
        total = sum(float(piece.losses.sum()) for piece in self.pieces)
        return total / max(1, sum(len(piece.losses) for piece in self.pieces))


def begun(bench: Bench, state: State, rate: float, pieces: Sequence[Trained] = ()) -> Trunk:
    """A trunk that goes on from a state: with the schedule of the settings, less what is past.

    Args:
        bench: Has the settings.
        state: Where it stands.
        rate: The peak.
        pieces: Its pieces of work so far.
    """
    settings = bench.config.train
    if settings.lr_scheduler_type == "linear":
        falls_from = max(state.step, bench.steps(WARMUP))
    else:
        falls_from = bench.total_steps - bench.steps(settings.decay_ratio)
    return Trunk(state, rate, falls_from, pieces=list(pieces))


def advance(bench: Bench, trunk: Trunk, until: int) -> None:
    """Trains the trunk on, piece by piece; a piece that diverges is repeated more slowly."""
    while trunk.state.step < until:
        chunk = min(until, trunk.state.step + bench.steps(CHUNK))
        before = trunk.pieces[-1] if trunk.pieces else None
        attempts = RETRIES if "train.learning_rate" in bench.open else 0
        for attempt in range(attempts + 1):
            rate = falling(bench, trunk)
            piece = bench.train(
                f"trunk-{chunk}-{attempt}",
                "trunk",
                trunk.state,
                chunk,
                rate,
                learning_rate=rate(trunk.state.step),
                r=trunk.state.shape.settings.get("r"),
            )
            last = attempt == attempts
            # Short pieces late in a run are noise: where the rate has fallen nothing diverges.
            steep = rate(trunk.state.step) >= trunk.rate / 2
            if not piece.diverged and (last or not (steep and trunk.collapses(piece))):
                break
            if last:
                raise TrainingError(
                    f"training diverges at learning rate {trunk.rate:.2g}. Set a lower one "
                    "with --learning-rate, or train.bf16=false."
                )
            trunk.rate /= 2
            trunk.changes += (f"halved after step {trunk.state.step}, where training diverged",)
            bench.journal.forget(piece.entry)
            bench.say(
                f"training diverges after step {trunk.state.step}: repeated at half the rate, "
                f"{trunk.rate:.2g}"
            )
        assert piece.state is not None
        trunk.state = piece.state
        trunk.pieces.append(piece)
        bench.adopt([piece.entry], chunk)
        # The best state so far may be the one the run ends with.
        if before is not None and (trunk.best is None or trunk.best.state is not before.state):
            bench.journal.forget(before.entry)


def branch(
    bench: Bench, name: str, phase: str, state: State, rate: float
) -> tuple[Trained, Scored | None]:
    """A short training beside the trunk with decay to zero, scored at its end.

    Returns:
        The training and its scores; ``None`` if it diverged.
    """
    length = bench.steps(BRANCH)
    first = state.step
    piece = bench.train(
        name,
        phase,
        state,
        first + length,
        lambda step: rate * (1.0 - (step - first) / length),
        r=state.shape.settings.get("r"),
        learning_rate=rate,
    )
    if piece.state is None:
        return piece, None
    return piece, bench.score(f"{name}-score", phase, piece.state)


def falling(bench: Bench, trunk: Trunk) -> Rate:
    """Warm-up at the very start, then constant, then linearly to zero at the end of the run."""
    peak, falls_from = trunk.rate, trunk.falls_from
    warmup, total = bench.steps(WARMUP), bench.total_steps

    def at(step: int) -> float:
        rising = (step + 1) / warmup
        return peak * min(1.0, rising, (total - step) / max(1, total - falls_from))

    return at


def current(bench: Bench, trunk: Trunk) -> float:
    """The learning rate of the trunk's next step."""
    return falling(bench, trunk)(trunk.state.step)

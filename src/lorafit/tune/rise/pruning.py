"""Phase 5: how much of what was trained is needed, by forward passes on the selection set.

The trained adapter is cut to smaller ranks (the best approximation of its outputs,
`lorafit.methods.lora.truncate`), then one kind of module is left out at a time. The smallest rank,
and the set without those kinds, is delivered that is *not worse*: the whole interval of the paired
difference of the loss is within a margin. All of that costs at most `PRUNING` plain runs, so in
short runs fewer examples are looked at, and the ranks are searched by halving.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from lorafit.evidence.measurements import Evidence, KindLeftOut, RankKept
from lorafit.run import Choice
from lorafit.tune.bench.bench import PRUNING, Bench, Scored, spread
from lorafit.tune.bench.state import State
from lorafit.tune.bench.truncation import kept_share
from lorafit.tune.decide import Gain, gain
from lorafit.tune.rise import modules

PHASE = "pruning"
LOSABLE = 0.01
"""Nats: the most that the validation loss may rise by a smaller rank and fewer modules."""
SHARE = 0.1
"""Of what training gained: where that is little, the margin is."""
FEWEST, ENOUGH = 32, 64
"""Examples of a comparison: with fewer than the first nothing is told; with fewer than the second
modules are not looked at, so that there are more for the ranks."""
NOTHING_GAINED = "training gained nothing on the validation rows"


@dataclass(frozen=True)
class Cut:
    """The trained adapter at a smaller rank.

    Attributes:
        r: The rank.
        gain: Of it over the whole adapter: as a rule below zero.
        energy: Share of the update's energy that it keeps.
    """

    r: int
    gain: Gain
    energy: float

    def to_dict(self) -> RankKept:
        """JSON values."""
        return {"r": self.r, "energy": round(self.energy, 4), "gain": self.gain.to_dict()}


@dataclass(frozen=True)
class Size:
    """How much is scored.

    Attributes:
        share: Of the selection set.
        whole: Whether every rank is; otherwise they are searched by halving.
        kinds: Whether modules are looked at.
    """

    share: float
    whole: bool
    kinds: bool


@dataclass
class Pruned:
    """The outcome.

    Attributes:
        state: What is delivered.
        trained: Its rank before; ``None``: the rank is not to be chosen.
        every: All kinds of modules, by name.
        scored: What is delivered, on `Bench.scale_share` of the selection set; ``None``: the
            trained state as it was.
        cuts: The ranks that were looked at, smallest first.
        shares: Each kind of module's share of the update's energy, the largest first.
        kinds: What leaving a kind out changes, by its name.
        dropped: Kinds that are left out.
        joint: Of what is delivered over the trained state; ``None``: nothing was cut.
        margin: Nats.
        skipped: Why nothing (more) was looked at; empty: all was.
        refused: What the last look at all of it said no to; empty: nothing.
    """

    state: State
    trained: int | None
    every: list[str]
    scored: Scored | None = None
    cuts: list[Cut] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, Gain] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    joint: Gain | None = None
    margin: float = 0.0
    skipped: str = ""
    kinds_skipped: str = ""
    refused: str = ""

    @property
    def r(self) -> int:
        """The rank of what is delivered."""
        return int(self.state.shape.settings["r"])


def smaller_ranks(r: int) -> list[int]:
    """The powers of two below a rank, smallest first.

    >>> smaller_ranks(16), smaller_ranks(1)
    ([1, 2, 4, 8], [])
    """
    return [2**k for k in range(r.bit_length()) if 2**k < r]


def halvings(count: int) -> int:
    """Comparisons that finding the smallest good one of ``count`` ranks takes at most."""
    return math.ceil(math.log2(count + 1))


def sized(bench: Bench, state: State, ranks: int, kinds: int) -> Size | str:
    """As much as can be paid; or why nothing is.

    Args:
        bench: Has the budget.
        state: To be pruned.
        ranks: How many there are to be scored.
        kinds: The same of kinds of modules.
    """
    examples = len(bench.selection)
    if examples < FEWEST:
        return f"{examples} validation rows are too few"
    once = max(bench.pass_runs(state), 1e-12)
    most = bench.scale_share
    room = min(PRUNING, bench.spare(state)) / once - most  # passes; the last look is one, too
    for passes, whole, modules_too, least in (
        (ranks + kinds, True, True, most),
        (halvings(ranks) + kinds, False, True, min(most, ENOUGH / examples)),
        (halvings(ranks), False, False, FEWEST / examples),
    ):
        share = min(most, room / max(passes, 1))
        if passes and share >= least:
            return Size(share, whole, modules_too)
    return f"the budget of {bench.budget:g} runs left no room for scoring any"


def choose(bench: Bench, state: State, whole: Scored, untuned: Scored) -> Pruned:
    """Cuts what is not needed and not the user's.

    Args:
        bench: Scores.
        state: The trained state.
        whole: Its scores on all of the selection set.
        untuned: Those of the model before training.
    """
    ranked = "adapter.r" in bench.open
    moduled = "adapter.target_modules" in bench.open
    sites = [site for site in bench.tunable.adapters.sites["default"] if site.is_layer]
    trained = int(state.shape.settings["r"]) if ranked else None
    found = Pruned(state, trained, sorted({site.name for site in sites}))
    if not (ranked or moduled):
        return found
    if bench.spare(state) < 0:
        found.skipped = f"the budget of {bench.budget:g} runs left no room for scoring any"
        return found
    looked_at = bench.looked_at("moments", PHASE, state)
    found.shares = modules.shares(looked_at.totals)
    gained = gain(untuned.losses, whole.losses)
    if gained.low <= 0:
        found.skipped = NOTHING_GAINED
        return found
    found.margin = min(LOSABLE, SHARE * gained.mean)
    ranks = smaller_ranks(found.trained) if found.trained else []
    # The kind that does most is never left out: something has to stay.
    kinds = list(found.shares)[:0:-1] if moduled else []
    size = sized(bench, state, len(ranks), len(kinds))
    if isinstance(size, str):
        found.skipped = size
        return found
    judge = _Judge(bench, state, whole, looked_at.moments, size.share)
    if ranks:
        r = _smallest(judge, found, ranks, size.whole, looked_at.energies)
    else:
        r = int(state.shape.settings["r"])
    names: list[str] = []
    if kinds and not size.kinds:
        found.kinds_skipped = f"the budget of {bench.budget:g} runs left no room for scoring more"
    elif kinds:
        names = _needless(judge, found, r, kinds)
    _deliver(judge, found, r, names)
    return found


@dataclass
class _Judge:
    """Scores what is made of the trained state, on some examples of the selection set."""

    bench: Bench
    state: State
    whole: Scored
    moments: Mapping[str, Tensor]
    share: float
    losses: dict[tuple[int, tuple[str, ...]], np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at = int(self.state.shape.settings["r"]), ()
        self.losses[at] = self.whole.losses[spread(len(self.whole.losses), self.share)]

    def made(self, r: int, names: Sequence[str]) -> State:
        """The trained state at rank ``r``, without kinds of modules."""
        tunable, state = self.bench.tunable, self.state
        if r < int(state.shape.settings["r"]):
            state = tunable.cut(state, self.moments, r)
        return tunable.without(state, frozenset(names)) if names else state

    def score(self, r: int, names: Sequence[str], share: float, name: str) -> Scored:
        """At the temperature of the trained state, which was fitted to all examples."""
        name = "-".join([name, str(r), *names])
        sharpness = self.whole.sharpness
        return self.bench.score_made(name, PHASE, lambda: self.made(r, names), share, sharpness)

    def gain(self, r: int, names: Sequence[str], over: tuple[int, tuple[str, ...]]) -> Gain:
        """Of rank ``r`` without kinds of modules over another such state, which was scored."""
        self.losses[r, tuple(names)] = self.score(r, names, self.share, "cut").losses
        return gain(self.losses[over], self.losses[r, tuple(names)])


def _smallest(
    judge: _Judge,
    found: Pruned,
    ranks: Sequence[int],
    whole: bool,
    energy: Mapping[str, list[float]],
) -> int:
    """The smallest rank that is not worse."""
    assert found.trained is not None
    trained = found.trained, ()

    def enough(r: int) -> bool:
        change = judge.gain(r, (), trained)
        found.cuts.append(Cut(r, change, kept_share(energy, r)))
        return change.not_worse(found.margin)

    if whole:
        good = [r for r in ranks if enough(r)]
    else:
        low, high = 0, len(ranks)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(ranks[middle]) else (middle + 1, high)
        good = list(ranks[high:])
    found.cuts.sort(key=lambda cut: cut.r)
    return min(good, default=found.trained)


def _needless(judge: _Judge, found: Pruned, r: int, kinds: Sequence[str]) -> list[str]:
    """The kinds without each of which the state of rank ``r`` is not worse."""
    for name in kinds:
        found.kinds[name] = judge.gain(r, (name,), (r, ()))
    return [name for name, change in found.kinds.items() if change.not_worse(found.margin)]


def _deliver(judge: _Judge, found: Pruned, r: int, names: Sequence[str]) -> None:
    """Looks once more at all that is cut, on more examples; what is worse there is kept."""
    bench, whole = judge.bench, judge.whole
    share = bench.scale_share
    rows = spread(len(whole.losses), share)
    before = int(judge.state.shape.settings["r"])
    attempts = [(r, tuple(names))] if names or r < before else []
    if names and r < before:
        attempts.append((r, ()))
    for attempt in attempts:
        if bench.spare(judge.state) < share * bench.pass_runs(judge.state):
            found.refused = "the budget left no room for confirming it"
            return
        scored = judge.score(*attempt, share, "pruned")
        change = gain(whole.losses[rows], scored.losses)
        risen = float((scored.raw - whole.raw[rows]).mean())
        if risen <= found.margin and (not attempt[1] or change.not_worse(found.margin)):
            found.state = bench.made("pruned", functools.partial(judge.made, *attempt))
            found.scored, found.joint, found.dropped = scored, change, list(attempt[1])
            return
        found.refused = f"on {change.n:,} rows the validation loss changes by {change.change}"


# In words


def rank_choice(found: Pruned, base: Choice, above: str) -> Choice:
    """The choice of the rank with its curve.

    Args:
        found: What was pruned.
        base: The choice of the rank that was trained.
        above: What is to be said of larger ranks.
    """
    if found.trained is None or found.skipped == NOTHING_GAINED or found.trained == 1:
        return base
    evidence: Evidence = {**base.evidence, "ranks": [cut.to_dict() for cut in found.cuts]}
    evidence |= {"trained": found.trained, "margin": found.margin}
    if found.skipped:
        reason = f"{base.reason}; smaller ones were not tried: {found.skipped}"
        return Choice(base.value, reason, base.evidence)
    chosen = next((cut for cut in found.cuts if cut.r == found.r), None)
    if chosen is not None:
        reason = (
            f"rank {chosen.r} of the {found.trained} trained does the same: the validation loss "
            f"changes by {chosen.gain.change}"
        )
        return Choice(chosen.r, f"{reason}; {above}" if above else reason, evidence)
    good = [cut for cut in found.cuts if cut.gain.not_worse(found.margin)]
    if good:
        reason = f"r={good[0].r} seemed to be enough, but {found.refused}"
        return Choice(base.value, f"{base.reason}; {reason}", evidence)
    largest = found.cuts[-1]
    says = "is worse" if largest.gain.below(0) else "is not surely as good"
    reason = f"r={largest.r} {says}: cut to it, the validation loss changes by"
    return Choice(base.value, f"{base.reason}; {reason} {largest.gain.change}", evidence)


def modules_choice(found: Pruned, base: Choice | None) -> Choice:
    """The choice of the modules, with what leaving each kind out changes.

    Args:
        found: What was pruned.
        base: What trials during training came to; ``None``: there were none.
    """
    every = found.every if base is None else list(base.value)
    reason = "all linear layers" if base is None else base.reason
    evidence: Evidence = modules.evidence(found.shares) if base is None else {**base.evidence}
    if not found.kinds:
        why = found.skipped or found.kinds_skipped
        return Choice(every, f"{reason}; none was left out on trial: {why}", evidence)
    left_out: list[KindLeftOut] = [
        {"name": name, "gain": change.to_dict()} for name, change in found.kinds.items()
    ]
    evidence |= {"kinds": left_out, "margin": found.margin}
    if found.dropped:
        assert found.joint is not None
        names = ", ".join(found.dropped)
        kept = [name for name in every if name not in found.dropped]
        evidence |= {"without": found.dropped, "gain": found.joint.to_dict()}
        reason = f"without {names} the validation loss changes by {found.joint.change}: not worse"
        return Choice(kept, reason, evidence)
    if any(change.not_worse(found.margin) for change in found.kinds.values()):
        names = ", ".join(n for n, c in found.kinds.items() if c.not_worse(found.margin))
        return Choice(every, f"{reason}; without {names} {found.refused}", evidence)
    name, least = max(found.kinds.items(), key=lambda item: item[1].mean)
    return Choice(
        every,
        f"{reason}; of the kinds of modules {name} matters least: without it the validation loss "
        f"changes by {least.change}",
        evidence,
    )

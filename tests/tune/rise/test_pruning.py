"""What is delivered is the smallest rank and the fewest modules that are not worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from lorafit.run import Choice
from lorafit.training.generators import generator_states
from lorafit.tune.bench.bench import PRUNING, Bench, LookedAt, Scored, spread
from lorafit.tune.bench.state import Shape, State
from lorafit.tune.bench.truncation import energies
from lorafit.tune.rise import pruning
from lorafit.tune.rise.pruning import NOTHING_GAINED, Pruned, smaller_ranks

N = 256
KINDS = ("dense", "key", "query", "value")
BASE = Choice(16, "where a search begins; larger ones are tested from 1.5 on", {"tests": []})


def trained(r: int) -> State:
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for size, kind in zip((4.0, 3.0, 2.0, 1.0), KINDS, strict=True):
        tensors[f"weight/layer.{kind}.lora_A.default.weight"] = torch.randn(r, 40)
        tensors[f"weight/layer.{kind}.lora_B.default.weight"] = size * torch.randn(30, r)
    return State.of(100, Shape({"r": r, "lora_alpha": r}), tensors, generator_states()[0])


@dataclass
class FakeBench:
    """A bench whose states lose what the test says.

    Attributes:
        loss: Of rank and left-out kinds to the rise of the loss, nats.
        room: Plain runs that are left.
        once: Plain runs of scoring the whole selection set.
    """

    loss: Callable[[int, frozenset[str]], float]
    r: int = 16
    room: float = 1.0
    once: float = 0.005
    open: frozenset[str] = frozenset({"adapter.r", "adapter.target_modules"})
    noise: float = 0.01
    scored: list[tuple[int, frozenset[str], float]] = field(default_factory=list)
    budget: float = 1.25
    scale_share: float = 1.0
    selection: range = range(N)

    def __post_init__(self) -> None:
        sites = [SimpleNamespace(name=kind, is_layer=True) for kind in KINDS]
        self.tunable = SimpleNamespace(
            adapters=SimpleNamespace(sites={"default": sites}),
            cut=lambda state, moments, r: self.changed(state, r=r),
            without=lambda state, names: self.changed(state, gone=names),
        )

    def changed(self, state: State, **settings: Any) -> State:
        shape = state.shape.with_(**settings)
        return replace(state, shape=shape)

    def spare(self, state: State) -> float:
        return self.room

    def pass_runs(self, state: State) -> float:
        return self.once

    def looked_at(self, name: str, phase: str, state: State) -> LookedAt:
        paths = [f"layer.{kind}" for kind in KINDS]
        moments = {path: torch.eye(self.r, dtype=torch.float64) for path in paths}
        return LookedAt(moments, energies(state, moments))

    def score_made(
        self, name: str, phase: str, make: Callable[[], State], share: float, sharpness: float
    ) -> Scored:
        settings = make().shape.settings
        r, gone = settings["r"], frozenset(settings.get("gone", ()))
        self.scored.append((r, gone, share))
        self.room -= share * self.once
        rows = spread(N, share)
        seed = [r, *sorted(map(KINDS.index, gone))]
        differs = np.random.default_rng(seed).normal(size=N)[rows]
        differs = self.noise * (differs - differs.mean())
        losses = whole().losses[rows] + self.loss(r, gone) + differs
        return Scored(losses, losses, {}, sharpness)

    def made(self, name: str, make: Callable[[], State]) -> State:
        return make()

    def prune(self, gained: float = 1.0) -> Pruned:
        untuned = Scored(whole().losses + gained, whole().losses + gained, {})
        return pruning.choose(cast(Bench, self), trained(self.r), whole(), untuned)


def whole() -> Scored:
    losses = np.random.default_rng(0).exponential(size=N)
    return Scored(losses, losses, {}, 1.1)


def needs(r: int, *kinds: str) -> Callable[[int, frozenset[str]], float]:
    """A loss that rises below a rank and without kinds of modules."""
    return lambda rank, gone: 0.1 * max(0, r - rank) + 0.1 * len(gone & frozenset(kinds))


@pytest.mark.parametrize("wanted", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("once", [0.005, 0.012], ids=["every rank", "halving"])
def test_the_smallest_rank_that_is_not_worse_is_delivered(wanted: int, once: float) -> None:
    bench = FakeBench(needs(wanted, *KINDS), once=once)
    found = bench.prune()
    assert found.r == wanted
    looked = [r for r, gone, _ in bench.scored if not gone and r < 16]
    assert len(set(looked)) == (4 if once == 0.005 else len(found.cuts)) <= 4
    if wanted == 16:
        assert found.scored is None
    else:
        assert found.scored is not None
        choice = pruning.rank_choice(found, BASE, "larger ones are tested from 1.5 on")
        assert choice.value == wanted
        assert choice.reason.startswith(f"rank {wanted} of the 16 trained does the same: the vali")
        assert [cut["r"] for cut in choice.evidence["ranks"]] == sorted({*looked})


def test_kinds_that_nothing_needs_are_left_out_together() -> None:
    found = FakeBench(needs(4, "dense", "query")).prune()
    assert (found.r, found.dropped) == (4, ["value", "key"])
    choice = pruning.modules_choice(found, None)
    assert choice.value == ["dense", "query"]
    assert choice.reason.endswith("not worse")
    assert {one["name"] for one in choice.evidence["kinds"]} == {"value", "key", "query"}


def test_the_kind_that_does_most_stays_even_if_nothing_is_needed() -> None:
    found = FakeBench(lambda r, gone: 0.0).prune()
    assert found.r == 1
    assert pruning.modules_choice(found, None).value == ["dense"]


def test_what_is_harmless_alone_and_harmful_together_is_kept() -> None:
    found = FakeBench(lambda r, gone: 0.2 if len(gone) > 1 else 0.0).prune()
    assert (found.r, found.dropped) == (1, [])
    choice = pruning.modules_choice(found, None)
    assert choice.value == list(KINDS)
    assert "on 256 rows the validation loss changes by +0.2" in choice.reason


def test_the_last_look_keeps_the_whole_adapter_if_a_small_sample_was_wrong() -> None:
    """Half of the rows cannot see what the other half loses."""

    class Unlucky(FakeBench):
        def score_made(self, *args: Any) -> Scored:
            scored = super().score_made(*args)
            return scored if args[3] < 1 else Scored(scored.losses, scored.raw + 0.05, {}, 1.1)

    bench = Unlucky(needs(2, *KINDS), once=0.02)
    found = bench.prune()
    assert bench.scored[0][2] < 1
    assert (found.r, found.scored) == (16, None)
    choice = pruning.rank_choice(found, BASE, "")
    assert choice.value == 16
    assert "r=2 seemed to be enough, but on 256 rows" in choice.reason


def test_uncertain_is_not_the_same() -> None:
    found = FakeBench(lambda r, gone: 0.0, noise=0.2).prune()
    assert found.r == 16
    choice = pruning.rank_choice(found, BASE, "")
    assert "r=8 is not surely as good" in choice.reason
    assert choice.reason.startswith(BASE.reason)


@pytest.mark.parametrize(
    ("opened", "r", "dropped"),
    [
        ({"adapter.r"}, 1, []),
        ({"adapter.target_modules"}, 16, ["value", "query", "key"]),
        ({"train.learning_rate"}, 16, []),
    ],
)
def test_what_the_user_set_is_kept(opened: set[str], r: int, dropped: list[str]) -> None:
    found = FakeBench(lambda r, gone: 0.0, open=frozenset(opened)).prune()
    assert (found.r, found.dropped) == (r, dropped)


@pytest.mark.parametrize("room", [-0.1, 0.0, 0.01, 0.03, 0.05, 0.08, 0.5])
@pytest.mark.parametrize("once", [0.001, 0.01, 0.05, 0.3])
def test_it_never_costs_more_than_what_is_left(room: float, once: float) -> None:
    bench = FakeBench(needs(4, *KINDS), room=room, once=once)
    found = bench.prune()
    assert bench.room >= min(room, 0.0) - 1e-9
    assert room - bench.room <= PRUNING + once + 1e-9
    if not bench.scored:
        reason = pruning.rank_choice(found, BASE, "").reason
        assert "smaller ones were not tried: the budget of 1.25 runs" in reason
        assert "none was left out on trial: the bud" in pruning.modules_choice(found, None).reason


def test_few_rows_tell_nothing() -> None:
    bench = FakeBench(needs(1), selection=range(20))
    assert "20 validation rows are too few" in bench.prune().skipped
    assert not bench.scored


def test_where_nothing_was_learned_no_rank_is_told_from_another() -> None:
    bench = FakeBench(needs(1))
    found = bench.prune(gained=0.0)
    assert (found.skipped, found.r, bench.scored) == (NOTHING_GAINED, 16, [])
    assert pruning.rank_choice(found, BASE, "") == BASE


def test_a_small_gain_is_not_given_away() -> None:
    """A rank that costs .008 nats is cut to where training gained one nat, not .02."""

    def loses(rank: int, gone: frozenset[str]) -> float:
        return 0.008 if rank < 16 or gone else 0.0

    assert FakeBench(loses, noise=1e-3).prune(gained=1.0).r == 1
    little = FakeBench(loses, noise=1e-3).prune(gained=0.02)
    assert little.margin == pytest.approx(0.002)
    assert little.r == 16


@pytest.mark.parametrize(("r", "ranks"), [(1, []), (2, [1]), (12, [1, 2, 4, 8]), (64, 6)])
def test_the_curve_has_the_powers_of_two_below(r: int, ranks: list[int] | int) -> None:
    found = smaller_ranks(r)
    assert len(found) == ranks if isinstance(ranks, int) else found == ranks
    assert 2 ** pruning.halvings(len(found)) > len(found)

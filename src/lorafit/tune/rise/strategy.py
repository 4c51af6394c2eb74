"""RISE: start with a modest rank and let it rise while that measurably pays.

One training, the *trunk*, runs through; beside it short branches answer one question each:

1. learning rate: a few short runs from the start; the survivor goes on as the trunk;
2. rank: at 20, 35 and 50 % of the steps two branches start from the trunk's state, on the
   same batches, and decay to zero within 5 % of the steps: *stay* and *grow* (four times the
   rank, twice where the budget pays for no more; the same function). The trunk grows if the
   paired gain on the selection set exceeds its standard error and is not certainly smaller than
   a margin;
3. modules: at 60 %, *all* against *without* the kinds of modules that hold little of the
   update's energy;
4. decay: the last quarter of the steps, the best state on the selection set is kept;
5. pruning: the smallest rank and the fewest kinds of modules that do the same, by forward passes;
6. scale: how much of the update is best, by forward passes.

What is tried beside the trunk is bounded by the budget: a test that cannot be paid is left
out, and that is said. The branches are the evidence: for every rank the measured gain of
going on. Rising beats training a large rank from the start on some tasks and is no worse on
others (docs/explanation/tuning.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lorafit.evidence.json import Json
from lorafit.evidence.measurements import Evidence, RankTested
from lorafit.run import Choice
from lorafit.tune import strategies
from lorafit.tune.base import Found, Strategy
from lorafit.tune.bench.bench import Bench, Scored, Trained, spread
from lorafit.tune.bench.state import State
from lorafit.tune.decide import Gain, gain
from lorafit.tune.rise import modules, pruning, rates, scale, short
from lorafit.tune.rise.course import Ended, still_falling
from lorafit.tune.rise.pruning import Pruned
from lorafit.tune.rise.trunk import BRANCH, Trunk, advance, begun, branch, current

FIRST_RANK = 16
"""Where it begins. In the grids of whole runs none smaller is better at its best rate, and a
language model loses .1 nats with 4; from 1 or 2 the losses on news (20 classes) were higher,
whatever became of the learning rate (docs/explanation/tuning.md)."""
SCALING = 1.0
"""Where nobody has set it; the rates are for it."""
GROWTH = 4
RATE_EXPONENT = 0.5
"""At the same scaling a rank k times as large takes the learning rate divided by k to this power:
under Adam that is the same as keeping ``lora_alpha``. With the full rate, news (20 classes) ended
at a loss of .997 instead of .904 (docs/explanation/tuning.md)."""
TESTS = (0.20, 0.35, 0.50)
"""Where the rank is tested, as shares of the steps."""
ROOM = 1.5
"""Budget in plain runs from which the rank and the modules are tested. On the pairs of
benchmarks/tuning the tests change the result by less than its noise
(docs/explanation/tuning.md)."""
LITTLE = 0.01
"""Nats: a gain certainly below is not worth four times the rank."""
MODULES_AT = 0.60
MARGIN = 0.01
"""Share of the gain over the untuned model that may be lost by leaving modules out."""


@dataclass(frozen=True)
class RankTest:
    """One pair of branches.

    Attributes:
        r: Rank of *stay*.
        grown: Rank of *grow*.
        step: Where they began.
        gain: Of growing.
    """

    r: int
    grown: int
    step: int
    gain: Gain

    @property
    def grows(self) -> bool:
        """Whether more pays, and not certainly little.

        Without the margin a task of two classes once rose to 384, on gains of .002 to .008 nats.
        """
        return self.gain.pays and not self.gain.below(LITTLE)

    def to_dict(self) -> RankTested:
        """JSON values."""
        return {"r": self.r, "against": self.grown, "step": self.step, "gain": self.gain.to_dict()}


@strategies.register("rise")
class Rise(Strategy):
    """The default strategy."""

    def search(self, bench: Bench) -> Found:
        """Trains once, choosing on the way."""
        if short.applies(bench):
            return short.choose(bench)
        choices: dict[str, Choice] = {}
        ranked = "adapter.r" in bench.open
        if ranked:
            first = min(FIRST_RANK, bench.tunable.largest_rank())
            bench.tunable.begin_with(first, SCALING)
        start = bench.start()
        untuned = bench.score("untuned", "start", start)
        trunk = _begin(bench, start, choices)
        tests: list[RankTest] = []
        skipped = ""
        if ranked:
            skipped = _rise(bench, trunk, tests)
        if "adapter.target_modules" in bench.open and bench.budget >= ROOM:
            _without_weak(bench, trunk, untuned, choices)
        end = _decay(bench, trunk)
        assert trunk.best is not None
        falling = still_falling(untuned.losses, trunk.ended, end)
        pruned = pruning.choose(bench, trunk.best.state, trunk.best.scored, untuned)
        if ranked:
            base = _rank_choice(trunk, tests, skipped, untuned)
            choices["r"] = pruning.rank_choice(pruned, base, base.reason if tests else skipped)
            bench.say(f"r {choices['r'].value}: {choices['r'].reason}")
        if "adapter.target_modules" in bench.open:
            choice = pruning.modules_choice(pruned, choices.get("target_modules"))
            choices["target_modules"] = choice
            bench.say(f"target_modules: {choice.reason}")
        found = _finish(bench, trunk, pruned, choices)
        return replace(found, course=bench.plan.judged(falling))


def _begin(bench: Bench, start: State, choices: dict[str, Choice]) -> Trunk:
    """Phase 1, or a trunk at the user's rate."""
    if "train.learning_rate" not in bench.open:
        return begun(bench, start, bench.config.train.learning_rate)
    found = rates.choose(bench, start)
    choices["learning_rate"] = found.choice
    bench.say(f"learning_rate {found.choice.value:g}: {found.choice.reason}")
    bench.adopt([piece.entry for piece in found.trunk], found.state.step)
    trunk = begun(bench, found.state, found.choice.value, found.trunk)
    trunk.ended = [] if found.ended is None else [found.ended]
    return trunk


def _rise(bench: Bench, trunk: Trunk, tests: list[RankTest]) -> str:
    """Phase 2. Returns why the last test was not made, or ``""``."""
    refused = 0
    if bench.budget < ROOM:
        return f"larger ones are tested from a budget of {ROOM:g} runs on (--budget {ROOM:g})"
    for share in TESTS:
        advance(bench, trunk, bench.steps(share))
        r = int(trunk.state.shape.settings["r"])
        largest = bench.tunable.largest_rank()
        if largest <= r:
            return f"the layers allow no more than {r}"
        bigger = next_rank(bench, trunk.state, r, largest)
        if bigger is None:
            return f"the budget of {bench.budget:g} runs allowed no further test"
        rate = current(bench, trunk)
        stay, stayed = branch(bench, f"stay-{r}-{share}", "rank", trunk.state, rate)
        tall = bench.grow(trunk.state, bigger)
        less = (r / bigger) ** RATE_EXPONENT if bench.tunable.keeps_scaling else 1.0
        grow, grew = branch(bench, f"grow-{bigger}-{share}", "rank", tall, rate * less)
        if stayed is None or grew is None:
            return "a trial diverged"
        test = RankTest(r, bigger, trunk.state.step, gain(stayed.losses, grew.losses))
        tests.append(test)
        pays = test.grows
        _keep_if_best(bench, trunk, stay, stayed)
        if not pays:
            bench.journal.forget(grow.entry)
        else:
            if less != 1.0:
                trunk.rate *= less
                trunk.changes += (f"{trunk.rate:.2g} from r={bigger} on",)
            _keep_if_best(bench, trunk, grow, grew)
        bench.say(
            f"rank {bigger} instead of {r} at step {test.step} changes the validation loss by "
            f"{test.gain.change}: " + (f"{bigger} is taken" if pays else f"{r} is kept")
        )
        ended = grew if pays else stayed
        trunk.ended.append(Ended(trunk.state.step + bench.steps(BRANCH), ended.losses))
        if pays:
            trunk.state = tall
        else:
            refused += 1
            # A stop at the very first test deserves a second look: later, updates are larger.
            if len(tests) > 1 or refused > 1:
                return ""
    return "still rising at the last test" if tests and tests[-1].grows else ""


def next_rank(bench: Bench, state: State, r: int, largest: int) -> int | None:
    """The rank to test against ``r``; ``None``: the budget pays for none.

    Small models are at times too small for four times the rank: there the factors are a good
    part of the model.
    """
    steps = 2 * bench.steps(BRANCH)
    ranks = (min(r * growth, largest) for growth in (GROWTH, 2))
    return next((rank for rank in ranks if bench.affords(state, steps, 2, rank)), None)


def _keep_if_best(bench: Bench, trunk: Trunk, piece: Trained, scored: Scored) -> None:
    """Judges the end of a branch; its state goes if it is not the best."""
    assert piece.state is not None
    if not trunk.judge(piece.state, scored):
        bench.journal.forget(piece.entry)


def _rank_choice(trunk: Trunk, tests: list[RankTest], skipped: str, untuned: Scored) -> Choice:
    """The chosen rank in one sentence, with the gain of going on at each rank."""
    assert trunk.best is not None
    r = int(trunk.best.state.shape.settings["r"])
    evidence: Evidence = {"tests": [test.to_dict() for test in tests]}
    if tests and not gain(untuned.losses, trunk.best.scored.losses).low > 0:
        return Choice(
            r,
            "training gained nothing on the validation rows, so no rank can be told from another",
            evidence,
        )
    last = next((test for test in reversed(tests) if test.r == r), None)
    if last is None:
        bought = next((test for test in reversed(tests) if test.grown == r), None)
        if bought is None:
            skipped = skipped or "nothing was tested"
            return Choice(r, f"where a search begins; {skipped}", evidence)
        return Choice(
            r,
            f"going from {bought.r} to {r} changed the validation loss by {bought.gain.change}; "
            f"{skipped or 'larger ones were not tried'}",
            evidence,
        )
    if last.grows:
        reason = (
            f"the lowest validation loss in the end, although a short trial with {last.grown} "
            f"changed it by {last.gain.change}"
        )
    elif last.gain.below(LITTLE):
        reason = (
            f"more does not help: r={last.grown} changes the validation loss by "
            f"{last.gain.change}, and certainly lowers it by less than {LITTLE:g}"
        )
    else:
        reason = (
            f"{last.gain.n:,} examples cannot tell whether r={last.grown} is better: it changes "
            f"the validation loss by {last.gain.change}; the smaller one is kept"
        )
    return Choice(r, reason, evidence)


def _without_weak(bench: Bench, trunk: Trunk, untuned: Scored, choices: dict[str, Choice]) -> None:
    """Phase 3."""
    advance(bench, trunk, bench.steps(MODULES_AT))
    state = trunk.state
    found = modules.shares(bench.looked_at(f"moments-{state.step}", "modules", state).totals)
    evidence = modules.evidence(found)
    every = sorted(found)
    weakest = modules.weak(found)
    reason = "all linear layers: each kind of module holds a good share of the update"
    if weakest:
        names = ", ".join(weakest)
        held = sum(found[name] for name in weakest)
        if not bench.affords(trunk.state, 2 * bench.steps(BRANCH), 2):
            reason = (
                f"all linear layers; {names} hold {held:.1%} of the change to the weights, "
                "but the budget allowed no test without them"
            )
        else:
            rate = current(bench, trunk)
            full, scored = branch(bench, "modules-all", "modules", trunk.state, rate)
            less = bench.leave_out(trunk.state, weakest)
            part, scored_less = branch(bench, "modules-less", "modules", less, rate)
            if scored is None or scored_less is None:
                reason = "all linear layers: a trial diverged"
            else:
                assert full.state is not None
                assert part.state is not None
                difference = gain(scored.losses, scored_less.losses)
                margin = MARGIN * max(0.0, untuned.nll - scored.nll)
                evidence |= {"without": weakest, "gain": difference.to_dict(), "margin": margin}
                trunk.judge(full.state, scored)
                ended = scored
                if difference.not_worse(margin):
                    ended, trunk.state = scored_less, less
                    every = [name for name in every if name not in weakest]
                    reason = (
                        f"without {names}, which {_hold(weakest)} {held:.1%} of the change to the "
                        f"weights, the validation loss changes by {difference.change}: not worse"
                    )
                else:
                    reason = (
                        f"all linear layers: {names} {_hold(weakest)} only {held:.1%} of the "
                        f"change to the weights, but without {_them(weakest)} the validation loss "
                        f"changes by {difference.change}"
                    )
                trunk.ended.append(Ended(trunk.state.step + bench.steps(BRANCH), ended.losses))
    choices["target_modules"] = Choice(every, reason, evidence)


def _hold(names: Sequence[str]) -> str:
    return "holds" if len(names) == 1 else "hold"


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _decay(bench: Bench, trunk: Trunk) -> Ended:
    """Phase 4: to the end; evaluations where a plain run makes them, once the rate is small."""
    late = bench.late_from
    for point in [n for n in range(late + 1, bench.total_steps + 1) if bench.plan.evaluates(n)]:
        advance(bench, trunk, point)
        scored = bench.score(f"decay-{point}", "decay", trunk.state)
        kept = trunk.judge(trunk.state, scored)
        bench.notes.evaluated(point, scored.metrics, kept)
    return Ended(bench.total_steps, scored.losses)


def _finish(bench: Bench, trunk: Trunk, pruned: Pruned, choices: dict[str, Choice]) -> Found:
    """Phase 6, and what was found."""
    assert trunk.best is not None
    best = trunk.best
    state, scored = pruned.state, best.scored
    settings = dict(state.shape.settings)
    rate = float(f"{best.rate:.3g}")
    values: Json = {"train.learning_rate": rate}
    chosen = choices.get("learning_rate")
    if chosen is not None and best.changes:
        reason = "; ".join([chosen.reason, *best.changes])
        choices["learning_rate"] = Choice(rate, reason, chosen.evidence)
    eval_loss = float(scored.raw.mean())
    one = scored.raw[spread(len(scored.raw), bench.scale_share)]
    if pruned.scored is not None:
        eval_loss += float((pruned.scored.raw - one).mean())
        one = pruned.scored.raw
    if "adapter.lora_alpha" in bench.open:
        found = scale.choose(bench, state, one)
        alpha = settings["lora_alpha"] * found.factor
        alpha = int(alpha) if float(alpha).is_integer() else float(f"{alpha:.4g}")
        s = alpha / bench.tunable.size(int(settings["r"]))
        if found.factor == 1.0:
            reason = (
                f"scaling {s:.4g}, as trained: no other strength of the update is clearly better "
                f"(the best changes the validation loss by {found.gain.change})"
            )
        else:
            eval_loss -= found.gain.mean
            reason = (
                f"scaling {s:.4g}: the validation loss is lowest with the update at "
                f"{found.factor:.0%} of its trained strength, which changes it by "
                f"{found.gain.change}"
            )
        choices["lora_alpha"] = Choice(
            alpha,
            reason,
            {"curve": [{"factor": c, "loss": v} for c, v in found.curve.items()]},
        )
        settings["lora_alpha"] = alpha
        state = replace(state, shape=state.shape.with_(lora_alpha=alpha))
    values |= {f"adapter.{name}": value for name, value in settings.items()}
    return Found(
        state=state,
        values=values,
        choices=choices,
        best_step=state.step,
        eval_loss=eval_loss,
        train_loss=trunk.train_loss,
    )

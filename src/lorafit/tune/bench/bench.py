"""The bench a strategy works at: train from a state, score a state, grow it; all of it noted.

Each piece of work has a name, is noted in the journal, and costs what the ledger counts.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lorafit.adapt.moments import collecting
from lorafit.data.batches import fetch, lengths
from lorafit.engine.eager import EagerEngine
from lorafit.errors import DivergenceError, RunError
from lorafit.evaluation.score import Scores, score
from lorafit.methods.lora import LoraEmbedding, LoraLinear
from lorafit.pipeline.job import Job
from lorafit.run import Choice
from lorafit.run.commands import resume_command
from lorafit.training import head
from lorafit.training.diverging import Watch, guessing
from lorafit.training.interrupt import Interruptible
from lorafit.training.progress import Progress
from lorafit.training.schedule import make_schedule
from lorafit.training.state import Tally, TrainState
from lorafit.training.stepper import Stepper
from lorafit.training.steps import StepPlan
from lorafit.training.taken import steps_taken
from lorafit.tune.bench.adamw import RowAdamW
from lorafit.tune.bench.journal import START, Entry, Facts, HeadInit, Journal
from lorafit.tune.bench.ledger import Cost, Ledger
from lorafit.tune.bench.notes import Line, Notes, metrics_line
from lorafit.tune.bench.rules import Rules
from lorafit.tune.bench.state import State
from lorafit.tune.bench.truncation import energies
from lorafit.tune.bench.tunable import Tunable
from lorafit.tune.decide import at_sharpness, sharpened
from lorafit.tune.prior.lessons import Lesson

log = logging.getLogger(__name__)

Rate = Callable[[int], float]
"""Step, counted from 0, to learning rate."""

SCALE_PASSES, SCALE_EXAMPLES = 4, 256
"""Evaluations that the search for the scale takes at most, and the examples of each."""

HEAD = "head"
"""Name and phase of the piece of work that a new head begins by."""

METERED_BATCHES = 4
"""Training batches over which the inputs of the sites are looked at."""

LATE = 0.125
"""Share of the steps at the end over which states are scored."""

CHUNK = 0.05
"""Share of the steps after which a long training is noted: what a kill costs at most."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A training that was noted.

    Attributes:
        state: Where it ended; ``None`` if it diverged.
        losses: Mean training loss of each step before its update, nats per unit.
        entry: In the journal.
    """

    state: State | None
    losses: np.ndarray
    entry: Entry

    @property
    def diverged(self) -> bool:
        """Whether a loss or gradient was not finite."""
        return self.state is None


@dataclass(frozen=True, eq=False)
class Scored:
    """A state's answers on the selection set.

    Attributes:
        losses: ``(n,)`` nats, freed of a common factor of the logits. Where an example has
            several losses (one a token), their sum over the mean number of losses, so that the
            mean is the loss of a token.
        raw: ``(n,)``, the same without freeing them of the factor.
        metrics: ``eval_loss``, ``eval_accuracy``, ...
        sharpness: The common factor of the logits that ``losses`` are at.
    """

    losses: np.ndarray
    raw: np.ndarray
    metrics: dict[str, float]
    sharpness: float = 1.0

    @property
    def nll(self) -> float:
        """Mean of ``losses``."""
        return float(self.losses.mean())


@dataclass(frozen=True, eq=False)
class LookedAt:
    """What passes the adapted layers, by their paths.

    Attributes:
        moments: Sums of ``(A x)(A x)^T`` ``(r, r)`` over tokens.
        energies: Of each direction of the update; see `lorafit.tune.bench.truncation.energies`.
    """

    moments: dict[str, Tensor]
    energies: dict[str, list[float]]

    @property
    def totals(self) -> dict[str, float]:
        """The energy of each layer's update."""
        return {path: sum(values) for path, values in self.energies.items()}


class Bench:
    """Does and notes the pieces of work of one search.

    Only the training and the validation split are here: the test split cannot be looked at.

    Args:
        job: The task, the model with a fresh adapter, the starting values of the settings, and
            the run where everything is noted (``None``: nowhere).
        names: The settings to be chosen, among `lorafit.tune.base.CHOOSABLE`.
        budget: Most that may be spent, in U.
        progress: What to show.
        prior: What earlier searches found; ``None``: nobody asked for it.
    """

    rules: ClassVar[Rules] = Rules()
    """The numbers that the search goes by."""

    def __init__(
        self,
        job: Job,
        names: frozenset[str],
        budget: float,
        progress: Progress,
        prior: Sequence[Lesson] | None = None,
    ) -> None:
        run, subject, config = job.run, job.subject, job.config
        self.task = job.task
        self.subject = subject
        self.config = config
        self.open = names
        self.prior = prior
        self.run = run
        self._how_to_resume = "" if run is None else f" Go on with: {resume_command(run.path)}"
        self.journal = Journal(run)
        self.budget = self.journal.begin(budget)
        self.train_set = subject.encoded["train"]
        self.selection = subject.encoded["validation"]
        self.plan = StepPlan(self.train_set, config)
        self.total_steps = self.plan.total_steps
        self._eval_tokens = sum(lengths(self.selection))
        self.head_tokens = head.tokens_read(
            subject.learner(self.task), config, subject.loaded.new_modules
        )
        """Tokens that are read for a new head."""
        late = range(self.late_from, self.total_steps)
        self._late_evaluations = max(1, sum(self.plan.evaluates(step + 1) for step in late))
        rows = fetch(self.selection, list(range(len(self.selection))))
        self._mean_units = max(1.0, self.task.count(rows) / len(rows))
        # Where the user has set the learning rate, lora_alpha takes its place: it stays when r
        # grows, which under Adam is the same as a lower rate.
        free = {"adapter.lora_alpha", "train.learning_rate"} <= names
        self.tunable = Tunable(subject.adapters, config, keeps_scaling=free)
        frozen = block_parameters(subject.model) - self.tunable.factors()
        self.ledger = Ledger(frozen, self._unit())
        self.notes = Notes(run, progress, self.ledger, self.plan, self.budget)
        self._signals = Interruptible(enabled=False)
        self._guess = guessing(self.task, self.train_set)
        self._watch: Watch | None = None

    # What a plain run costs

    def _unit(self) -> Cost:
        tokens = lengths(self.train_set)
        trained = sum(
            tokens[i] for step in self.plan.steps() for batch in step.batches for i in batch
        )
        evaluations = sum(self.plan.evaluates(n + 1) for n in range(self.total_steps))
        factors = self.tunable.factors()
        evaluated = evaluations * self._eval_tokens + self.head_tokens
        return Cost.of(trained, evaluated, factors=factors)

    def affords(self, state: State, steps: float, evaluations: float, r: int | None = None) -> bool:
        """Whether something optional can be paid, with the rest of the trunk still to come.

        A function of the journal alone: operations, never the clock, and what a state says of
        itself, never its tensors.

        Args:
            state: Where the trunk stands.
            steps: Training steps it takes.
            evaluations: Passes over the selection set it takes.
            r: Rank that the trunk may go on with afterwards; ``None``: as it is.
        """
        left = max(0, self.total_steps - state.step)
        evaluations += self._late_evaluations
        if "adapter.lora_alpha" in self.open:
            evaluations += SCALE_PASSES * self.scale_share
        evaluated = evaluations * self._eval_tokens
        if "adapter.target_modules" in self.open:
            evaluated += METERED_BATCHES * self.notes.trained_per_step
        reserve = self.rules.pruning if {"adapter.r", "adapter.target_modules"} & self.open else 0.0
        trained = (steps + left) * self.notes.trained_per_step
        factors = state.factors if r is None else state.factors_at(r)
        cost = Cost.of(trained, evaluated, factors=factors)
        return self.ledger.runs(self.ledger.total + cost) + reserve <= self.budget

    def pass_runs(self, state: State) -> float:
        """What scoring a state on all of the selection set costs, in U."""
        return self.ledger.runs(Cost.of(evaluated=self._eval_tokens, factors=state.factors))

    def spare(self, state: State) -> float:
        """U that a finished training leaves for scoring it, the search for the scale paid."""
        left = self.budget - self.ledger.runs()
        if "adapter.lora_alpha" in self.open:
            left -= SCALE_PASSES * self.scale_share * self.pass_runs(state)
        metered = METERED_BATCHES * self.notes.trained_per_step
        return left - self.ledger.runs(Cost.of(evaluated=metered, factors=state.factors))

    @property
    def late_from(self) -> int:
        """Step after which the training that is delivered is scored: before, the rate is high."""
        return self.total_steps - self.steps(LATE)

    @property
    def scale_share(self) -> float:
        """Share of the selection set that the search for the scale looks at."""
        return min(1.0, SCALE_EXAMPLES / max(1, len(self.selection)))

    def steps(self, share: float) -> int:
        """A share of the run in steps, at least one."""
        return max(1, round(share * self.total_steps))

    # Pieces of work

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C inside stops at a step; what was noted stays."""
        self._signals = Interruptible(enabled=self.run is not None)
        with self._signals:
            yield

    def begin_head(self) -> Choice | None:
        """A new head begins as the best linear layer, if it is to; what that came to."""
        learner = self.subject.learner(self.task)
        new = self.subject.loaded.new_modules
        if not head.wanted(learner, self.config, new):
            return None

        def work() -> Entry:
            found = head.begin(learner, self.config, new)
            cost = Cost.of(evaluated=found.tokens, time_s=found.time_s)
            choice = found.choice
            told: HeadInit = {
                "value": choice.value,
                "reason": choice.reason,
                "evidence": choice.evidence,
            }
            return Entry("", {"cost": asdict(cost), "head": told}, dict(found.weights))

        entry, cost = self._paid(HEAD, HEAD, work)
        self.notes.trial(HEAD, HEAD, cost)
        self.tunable.begin_head(entry.arrays)
        return Choice(**entry.facts["head"])

    def start(self) -> State:
        """The fresh adapter, before any step."""
        return self._kept(START, self.tunable.start)

    def fresh(self, name: str, **settings: Any) -> State:
        """A fresh adapter with other settings, before any step; seeded as the first one was.

        Args:
            name: Of the piece of work, unique.
            **settings: ``r``, ``target_modules``; ``lora_alpha`` goes with r, so that the
                scaling stays, unless the user has set it or the learning rate.
        """
        shape = self.tunable.shape
        if "r" in settings:
            shape = self.tunable.of_rank(shape, settings["r"])
        return self._kept(name, lambda: self.tunable.fresh(shape.with_(**settings)))

    def train(
        self,
        name: str,
        phase: str,
        state: State,
        until: int,
        rate: Rate,
        **about: Any,
    ) -> Trained:
        """Trains from a state.

        Args:
            name: Of the piece of work, unique.
            phase: What the cost is booked on.
            state: Where to begin; it stays as it is.
            until: Step to end after.
            rate: Learning rate of each step.
            **about: What to note of it in ``trials.jsonl``.
        """
        watch = self._watched(phase, state, about)

        def work() -> Entry:
            return self._train(state, until, rate, watch)

        entry, cost = self._paid(name, phase, work)
        losses = entry.arrays["losses"].numpy()
        self.notes.trial(
            name,
            phase,
            cost,
            **about,
            steps=[state.step, until],
            train_loss=float(losses[-max(1, len(losses) // 2) :].mean()) if len(losses) else None,
            diverged=entry.facts["diverged"],
        )
        diverged = entry.facts["diverged"]
        return Trained(None if diverged else entry.kept, losses, entry)

    def score(self, name: str, phase: str, state: State, share: float = 1.0) -> Scored:
        """Scores a state on the selection set.

        Args:
            name: Of the piece of work, unique.
            phase: What the cost is booked on.
            state: What to score.
            share: Of the selection set's examples, evenly spread.
        """

        def work() -> Entry:
            self._load(state)
            return self._score(share)

        return self._scored(name, phase, work)

    def score_made(
        self, name: str, phase: str, make: Callable[[], State], share: float, sharpness: float
    ) -> Scored:
        """Scores a state that is made for this only.

        Args:
            name: Of the piece of work, unique.
            phase: What the cost is booked on.
            make: Makes it.
            share: Of the selection set's examples, evenly spread.
            sharpness: Factor of the logits of ``losses``.
        """

        def work() -> Entry:
            self._load(make())
            return self._score(share, sharpness)

        return self._scored(name, phase, work)

    def score_scaled(
        self, name: str, phase: str, state: State, scale: float, share: float = 1.0
    ) -> Scored:
        """Scores a state whose update is multiplied by a factor."""

        def work() -> Entry:
            self._load(state)
            with self.tunable.scaled(scale):
                return self._score(share)

        return self._scored(name, phase, work)

    def grow(self, state: State, r: int) -> State:
        """The state with factors of rank ``r`` that compute the same; costs nothing.

        ``lora_alpha`` grows with r, so that the scaling stays, unless the user has set it or the
        learning rate.
        """
        return self._kept(
            f"rank-{r}-{state.step}", lambda: self.tunable.grown(self._whole(state), r)
        )

    def leave_out(self, state: State, names: Sequence[str]) -> State:
        """The state without the adapters on the layers of these names; costs nothing."""
        gone = frozenset(names)
        return self._kept(
            f"without-{'-'.join(names)}", lambda: self.tunable.without(self._whole(state), gone)
        )

    def made(self, name: str, make: Callable[[], State]) -> State:
        """Keeps a state that is made of others under a name of its own; costs nothing."""
        return self._kept(name, make)

    def looked_at(self, name: str, phase: str, state: State) -> LookedAt:
        """What passes a state's layers, over a few training batches.

        Args:
            name: Of the piece of work, unique.
            phase: What the cost is booked on.
            state: Whose layers.
        """

        def work() -> Entry:
            began = time.perf_counter()
            self._load(state)
            device = self.subject.model.device
            engine = EagerEngine(self.subject.model, self.task, self.subject.tokenizer, device)
            adapters = self.tunable.adapters
            sites = [site.path for site in adapters.sites["default"]]
            kinds = (LoraLinear, LoraEmbedding)
            paths = [p for p in sites if isinstance(adapters.model.get_submodule(p), kinds)]
            tokens = 0
            done = max(0, min(state.step, self.total_steps - METERED_BATCHES))
            with collecting(adapters, paths) as found:
                for step in self.plan.steps(done=done):
                    rows = fetch(self.train_set, step.batches[0])
                    batch = engine.collate(rows)
                    found.mask = batch.get("attention_mask")
                    engine.logits(batch)
                    tokens += sum(len(row["input_ids"]) for row in rows)
                    if step.number >= done + METERED_BATCHES:
                        break
            cost = self._cost(evaluated=float(tokens), began=began)
            return Entry("", {"cost": cost, "energies": energies(state, found.sums)}, found.sums)

        entry, cost = self._paid(name, phase, work)
        self.notes.trial(name, phase, cost)
        return LookedAt(entry.arrays, entry.facts["energies"])

    def adopt(self, entries: Sequence[Entry], step: int) -> None:
        """Makes pieces of work part of the lineage that is delivered: they go to the metrics."""
        for entry in entries:
            self.notes.adopt(entry, step)

    # Inside

    def _kept(self, name: str, make: Callable[[], State]) -> State:
        entry = self._once(name, lambda: Entry(name, {}, kept=make()))
        assert entry.kept is not None
        return entry.kept

    def _paid(self, name: str, phase: str, work: Callable[[], Entry]) -> tuple[Entry, Cost]:
        """A piece of work that costs something, booked on its phase."""
        self.notes.book(phase)
        entry = self._once(name, work)
        cost = Cost(**entry.facts["cost"])
        self.notes.book(phase, cost)
        return entry, cost

    def _once(self, name: str, work: Callable[[], Entry]) -> Entry:
        """A piece of work, done unless it is noted; Ctrl-C stops once it is noted."""
        entry = self.journal.once(name, work)
        self._stop_if_asked()
        return entry

    def _stop_if_asked(self) -> None:
        if self._signals.requested:
            raise self._signals.stopped(f"stopped while choosing.{self._how_to_resume}")

    def _whole(self, state: State) -> State:
        """The state, which has to have its tensors.

        Raises:
            RunError: They are gone from the run folder.
        """
        if not state.tensors:
            raise RunError(
                f'"{self.journal.folder}" lacks the weights of step {state.step}, which the search '
                "goes on from: a file was deleted. Delete the folder to search again from the "
                "beginning."
            )
        return state

    def _load(self, state: State) -> RowAdamW:
        """Leaves a state in the model; its optimizer."""
        return self.tunable.load(self._whole(state))

    def _watched(self, phase: str, state: State, about: Mapping[str, Any]) -> Watch | None:
        """What looks whether a training that is long enough diverges; trials may.

        A trunk whose rate is open needs none: it goes back and takes a lower one.
        """
        whole, searched = phase == "whole runs", "train.learning_rate" in self.open
        if not whole and (phase != "trunk" or searched):
            return None
        if state.step == 0 or self._watch is None:
            peak = about.get("learning_rate") if whole else None
            self._watch = Watch(
                self._guess, self.total_steps, self.config.train, peak, rivals=searched
            )
        return self._watch

    def _train(self, state: State, until: int, rate: Rate, watch: Watch | None) -> Entry:
        began = time.perf_counter()
        optimizer = self._load(state)
        schedule = make_schedule(optimizer, rate, state.step)
        learner = self.subject.learner(self.task)
        settings = self.config.train
        stepper = Stepper(learner, optimizer, schedule, settings, fresh=state.step == 0)
        count = TrainState(step=state.step)
        losses: list[float] = []
        lines: list[Line] = []
        diverged = False
        self.subject.model.train()
        try:
            for taken in steps_taken(stepper, self.plan, count, until=until):
                losses.append(taken.outcome.loss)
                self.notes.stepped(taken.step, taken.outcome)
                if watch is not None and (diverges := watch.see(taken.step, taken.outcome)):
                    log.warning("%s", diverges)
                if self.plan.logs(count.step) or taken.stopped:
                    lines.append(metrics_line(taken.step, taken.outcome, count.window))
                    count.window = Tally()
                self._stop_if_asked()
        except DivergenceError as error:
            log.info("%s", str(error).partition(".")[0])
            diverged = True
        finally:
            self.subject.model.train(False)
        cost = self._cost(trained=count.total.tokens, began=began)
        facts: Facts = {"cost": cost, "diverged": diverged, "lines": lines}
        kept = None if diverged else self.tunable.captured(until, state.shape, optimizer)
        return Entry("", facts, {"losses": torch.tensor(losses, dtype=torch.float64)}, kept)

    def _score(self, share: float, factor: float | None = None) -> Entry:
        began = time.perf_counter()
        rows = self.selection
        if share < 1.0:
            rows = rows.select(spread(len(rows), share))
        try:
            found = score(self.subject.engine, rows, self.config.train.per_device_eval_batch_size)
        except DivergenceError:
            # So far off that it is no candidate; a number keeps the comparison going.
            nothing = torch.full((len(rows),), 1e6, dtype=torch.float64)
            failed: Facts = {"cost": {}, "metrics": {"eval_loss": 1e6}, "sharpness": 1.0}
            return Entry("", failed, {"losses": nothing, "raw": nothing})
        if factor is None:
            sharp, sharpness = sharpened(found, self.task)
        else:
            sharp, sharpness = at_sharpness(found, self.task, factor), factor
        losses, raw = (x.astype(np.float64) / self._mean_units for x in (sharp, found.losses))
        tokens = sum(lengths(rows))
        cost = self._cost(evaluated=float(tokens), began=began)
        metrics = {"eval_loss": float(raw.mean())}
        metrics |= self._metrics(found)
        facts: Facts = {"cost": cost, "metrics": metrics, "sharpness": sharpness}
        arrays = {"losses": torch.from_numpy(losses), "raw": torch.from_numpy(raw)}
        return Entry("", facts, arrays)

    def _cost(self, began: float, trained: float = 0.0, evaluated: float = 0.0) -> dict[str, float]:
        """Of the adapter that is on the model, since a moment of the clock."""
        time_s = time.perf_counter() - began
        return asdict(Cost.of(trained, evaluated, time_s, self.tunable.factors()))

    def _metrics(self, found: Scores) -> dict[str, float]:
        values = {
            f"eval_{name}": float(metric(found.logits, found.labels))
            for name, metric in self.task.metrics.items()
        }
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _scored(self, name: str, phase: str, work: Callable[[], Entry]) -> Scored:
        entry, cost = self._paid(name, phase, work)
        metrics, sharpness = entry.facts["metrics"], entry.facts["sharpness"]
        self.notes.trial(name, phase, cost, **metrics, sharpness=sharpness)
        losses, raw = (entry.arrays[kind].numpy() for kind in ("losses", "raw"))
        return Scored(losses, raw, metrics, sharpness)

    def say(self, text: str) -> None:
        """Tells the user something that was found."""
        log.info("%s", text)


def spread(count: int, share: float) -> list[int]:
    """Evenly spread indices: the first ones could be of one label, for files are often sorted."""
    wanted = max(2, round(share * count))
    indices: list[int] = np.linspace(0, count - 1, wanted).astype(int).tolist()
    return indices


def block_parameters(model: torch.nn.Module) -> int:
    """Parameters every token is multiplied by: all outside the embeddings."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    return sum(p.numel() for p in model.parameters() if id(p) not in tables)

"""The bench a strategy works at: train from a state, score a state, grow it; all of it noted.

Each piece of work has a name, is noted in the journal, and costs what the ledger counts.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lorafit.adapt import Adapters
from lorafit.config import Config
from lorafit.engine.eager import EagerEngine
from lorafit.errors import DivergenceError
from lorafit.evaluation.score import Scores, score
from lorafit.methods.base import MethodConfig
from lorafit.methods.lora import LoraLayer
from lorafit.pipeline import Problem, Subject
from lorafit.run import Run
from lorafit.training.adamw import RowAdamW
from lorafit.training.generators import generator_states, restore_generators
from lorafit.training.interrupt import Interruptible
from lorafit.training.memory import peak_memory_bytes
from lorafit.training.optim import parameter_groups
from lorafit.training.parallel import Workers
from lorafit.training.progress import Progress, Update
from lorafit.training.schedule import make_schedule
from lorafit.training.seed import seed_everything
from lorafit.training.state import Tally
from lorafit.training.stepper import Outcome, Stepper
from lorafit.training.steps import Step, StepPlan, lengths
from lorafit.training.validate import fetch
from lorafit.tune.decide import sharpened
from lorafit.tune.journal import Entry, Journal
from lorafit.tune.ledger import Cost, Ledger
from lorafit.tune.modules import collecting
from lorafit.tune.state import Shape, State, capture, grown, put_back, rank_dimension, without

log = logging.getLogger(__name__)

Rate = Callable[[int], float]
"""Step, counted from 0, to learning rate."""

NOTHING = Cost()

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
    """

    losses: np.ndarray
    raw: np.ndarray
    metrics: dict[str, float]

    @property
    def nll(self) -> float:
        """Mean of ``losses``."""
        return float(self.losses.mean())


class Bench:
    """Does and notes the pieces of work of one search.

    Only the training and the validation split are here: the test split cannot be looked at.

    Args:
        problem: The task.
        subject: The model with a fresh adapter, the engine, the encoded splits.
        config: Its starting values.
        open: The settings to be chosen, among `lorafit.tune.base.CHOOSABLE`.
        budget: Most that may be spent, in U.
        run: Where everything is noted; ``None``: nowhere.
        progress: What to show.
    """

    def __init__(
        self,
        problem: Problem,
        subject: Subject,
        config: Config,
        open: frozenset[str],
        budget: float,
        run: Run | None,
        progress: Progress,
    ) -> None:
        self.task = problem.task
        self.subject = subject
        self.config = config
        self.open = open
        self.run = run
        self.progress = progress
        self.journal = Journal(run)
        # A budget in minutes was measured: a resumed search keeps the number it began with.
        noted = self.journal.once("budget", lambda: Entry("budget", {"runs": budget}))
        self.budget = float(noted.facts["runs"])
        self.train_set = subject.encoded["train"]
        self.selection = subject.encoded["validation"]
        self.plan = StepPlan(self.train_set, config)
        self.total_steps = self.plan.total_steps
        self._workers = Workers()
        self._eval_tokens = sum(lengths(self.selection))
        rows = fetch(self.selection, range(len(self.selection)))
        self._mean_units = max(1.0, self.task.count(rows) / len(rows))
        self.ledger = Ledger(block_parameters(subject.model), self._unit())
        self.trials: list[dict[str, Any]] = []
        self._signals = Interruptible(enabled=False)
        self._clock = time.perf_counter()
        self._shown = Tally()
        own = subject.adapters.configs["default"]
        self.shape = Shape(
            {
                name: sorted(value) if isinstance(value := getattr(own, name), set) else value
                for name in ("r", "lora_alpha", "target_modules")
                if hasattr(own, name)
            }
        )
        self._shape: Shape | None = self.shape
        self._fresh = own
        if run is not None:
            run.truncate_metrics(0)
            run.write_trials([])

    # What a plain run costs

    def _unit(self) -> Cost:
        tokens = lengths(self.train_set)
        trained = sum(
            tokens[i] for step in self.plan.steps() for batch in step.batches for i in batch
        )
        evaluations = sum(self.plan.evaluates(n + 1) for n in range(self.total_steps))
        return Cost(trained, evaluations * self._eval_tokens)

    def affords(self, steps: float, evaluations: float = 0.0) -> bool:
        """Whether something optional can be paid, with the rest of the trunk still to come.

        Args:
            steps: Training steps it takes.
            evaluations: Passes over the selection set it takes.
        """
        per_step = self.ledger.unit.trained / self.total_steps
        cost = Cost(steps * per_step, evaluations * self._eval_tokens)
        rest = Cost(max(0, self.total_steps - self.trunk_step) * per_step, 4 * self._eval_tokens)
        return self.ledger.runs(self.ledger.total + cost + rest) <= self.budget

    trunk_step = 0
    """How far the trunk has come, for `affords`."""

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

    def start(self) -> State:
        """The fresh adapter, before any step."""

        def work() -> Entry:
            optimizer = self._optimizer()
            return Entry("start", {}, kept=self._capture(0, self.shape, optimizer))

        return self._state(self.journal.once("start", work))

    def fresh(self, name: str, **settings: Any) -> State:
        """A fresh adapter with other settings, before any step; seeded as the first one was.

        Args:
            name: Of the piece of work, unique.
            **settings: ``r``, ``target_modules``; ``lora_alpha`` goes with r, so that the
                scaling stays, unless the user has set it.
        """
        own = self._of_rank(self.shape, settings["r"]) if "r" in settings else {}
        shape = self.shape.with_(**own | settings)

        def work() -> Entry:
            seed_everything(self.config.seed, self.config.deterministic)
            self._reshape(shape)
            return Entry(name, {}, kept=self._capture(0, shape, self._optimizer()))

        return self._state(self.journal.once(name, work))

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

        def work() -> Entry:
            return self._train(state, until, rate)

        self._book(phase)
        entry = self.journal.once(name, work)
        cost = Cost(**entry.facts["cost"])
        self._book(phase, cost)
        losses = entry.arrays["losses"].numpy()
        self._note(
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

    def score_scaled(
        self, name: str, phase: str, state: State, scale: float, share: float = 1.0
    ) -> Scored:
        """Scores a state whose update is multiplied by a factor."""

        def work() -> Entry:
            self._load(state)
            with self.scaled(scale):
                return self._score(share)

        return self._scored(name, phase, work)

    def grow(self, state: State, r: int) -> State:
        """The state with factors of rank ``r`` that compute the same; costs nothing.

        ``lora_alpha`` grows with r, so that the scaling stays, unless the user has set it.
        """

        def work() -> Entry:
            settings = self._of_rank(state.shape, r)
            scale = self._scaling(state.shape.settings) / self._scaling(settings)
            shape = Shape(settings)
            torch.manual_seed(self.config.seed * 1_000_003 + state.step * 1_009 + r)
            self._reshape(shape)
            fresh = {n: p.detach().clone() for n, p in self.trainable().items()}
            return Entry("", {}, kept=grown(state, fresh, shape, scale))

        return self._state(self.journal.once(f"rank-{r}-{state.step}", work))

    def _of_rank(self, shape: Shape, r: int) -> dict[str, Any]:
        """Settings with another rank at the same scaling, or with the user's ``lora_alpha``."""
        settings = dict(shape.settings)
        if "adapter.lora_alpha" in self.open:
            factor = self.size(r) / self.size(settings["r"])
            settings["lora_alpha"] = settings["lora_alpha"] * factor
        return settings | {"r": r}

    def leave_out(self, state: State, names: Sequence[str]) -> State:
        """The state without the adapters on the layers of these names; costs nothing."""

        def work() -> Entry:
            sites = [s for s in self.adapters.sites["default"] if s.name not in names]
            kept = sorted(site.path for site in sites)
            gone = {
                name
                for name in state.of_kind("weight")
                if rank_dimension(name) is not None
                and not any(name.startswith(f"{path}.") for path in kept)
            }
            return Entry("", {}, kept=without(state, gone, state.shape.with_(target_modules=kept)))

        return self._state(self.journal.once(f"without-{'-'.join(names)}", work))

    def energies(self, state: State, batches: int) -> dict[str, float]:
        """The energy of each site's update over a few training batches; see `modules`."""

        def work() -> Entry:
            began = time.perf_counter()
            self._load(state)
            engine = EagerEngine(self.subject.model, self.task, self.subject.tokenizer)
            tokens = 0
            with collecting(self.adapters) as found:
                for step in self.plan.steps(done=state.step):
                    rows = fetch(self.train_set, step.batches[0])
                    engine.logits(engine.collate(rows))
                    tokens += sum(len(row["input_ids"]) for row in rows)
                    if step.number >= state.step + batches:
                        break
            cost = {"evaluated": float(tokens), "time_s": time.perf_counter() - began}
            return Entry("", {"cost": cost, "energies": found})

        self._book("modules")
        entry = self.journal.once("energies", work)
        self._book("modules", Cost(**entry.facts["cost"]))
        found: dict[str, float] = entry.facts["energies"]
        return found

    def begin_with(self, r: int) -> None:
        """Takes another rank than the configured one to start with, at the same scaling."""
        self.shape = Shape(self._of_rank(self.shape, r))
        seed_everything(self.config.seed, self.config.deterministic)
        self._reshape(self.shape)

    def largest_rank(self) -> int:
        """The rank above which an update of the narrowest layer is not low-rank."""
        return min(min(s.d_in, s.d_out) for s in self.adapters.sites["default"])

    def adopt(self, entries: Sequence[Entry], step: int) -> None:
        """Makes pieces of work part of the lineage that is delivered: they go to the metrics."""
        for entry in entries:
            self._append_metrics(entry)
        self.trunk_step = step

    def load(self, state: State) -> None:
        """Leaves a state in the model."""
        self._load(state)

    # Inside

    @property
    def adapters(self) -> Adapters:
        """The adapters of the model."""
        return self.subject.adapters

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """What trains now."""
        return self.adapters.trainable()

    def size(self, r: int) -> float:
        """What ``lora_alpha`` is divided by at this rank."""
        return math.sqrt(r) if getattr(self._fresh, "use_rslora", False) else float(r)

    def _scaling(self, settings: Mapping[str, Any]) -> float:
        return float(settings["lora_alpha"]) / self.size(int(settings["r"]))

    def _optimizer(self) -> RowAdamW:
        settings = self.config.train
        return RowAdamW(
            parameter_groups(self.trainable(), settings.weight_decay),
            lr=1.0,
            betas=(settings.adam_beta1, settings.adam_beta2),
            eps=settings.adam_epsilon,
        )

    def _reshape(self, shape: Shape) -> None:
        """Puts a fresh adapter of this shape on the model."""
        values = self._fresh.model_dump() | dict(shape.settings)
        own: MethodConfig = type(self._fresh)(**values)
        self.adapters.delete("default")
        self.adapters.add(own)
        self._shape = shape

    def _load(self, state: State) -> RowAdamW:
        if state.shape != self._shape:
            self._reshape(state.shape)
        optimizer = self._optimizer()
        put_back(state, self.trainable(), optimizer)
        restore_generators(dict(state.generators), state.of_kind("generator"))
        return optimizer

    def _capture(self, step: int, shape: Shape, optimizer: RowAdamW) -> State:
        values, tensors = generator_states()
        generators = {f"generator/{name}": value for name, value in tensors.items()}
        return State(step, shape, capture(self.trainable(), optimizer) | generators, values)

    def _train(self, state: State, until: int, rate: Rate) -> Entry:
        began = time.perf_counter()
        optimizer = self._load(state)
        schedule = make_schedule(optimizer, rate, state.step)
        stepper = Stepper(
            self.subject.engine,
            self.train_set,
            self.trainable(),
            optimizer,
            schedule,
            self.config.train,
            self._workers,
            fresh=state.step == 0,
        )
        losses: list[float] = []
        lines: list[dict[str, Any]] = []
        tokens, window = 0.0, Tally()
        diverged = False
        self.subject.model.train()
        try:
            for step in self.plan.steps(done=state.step):
                if step.number > until:
                    break
                outcome = stepper.take(step)
                loss = outcome.loss_sum / outcome.units
                losses.append(loss)
                tokens += outcome.tokens
                window.add(outcome.loss_sum, outcome.units, outcome.tokens, outcome.time_s)
                self._show(step, outcome)
                if self.plan.logs(step.number) or step.number == until:
                    lines.append(_line(step, outcome, window))
                    window = Tally()
                if self._signals.requested:
                    raise KeyboardInterrupt(self._how_to_resume())
        except DivergenceError as error:
            log.info("%s", str(error).partition(".")[0])
            diverged = True
        finally:
            self.subject.model.train(False)
        cost = {"trained": tokens, "time_s": time.perf_counter() - began}
        facts = {"cost": cost, "diverged": diverged, "lines": lines}
        kept = None if diverged else self._capture(until, state.shape, optimizer)
        return Entry("", facts, {"losses": torch.tensor(losses, dtype=torch.float64)}, kept)

    def _score(self, share: float) -> Entry:
        began = time.perf_counter()
        rows = self.selection
        if share < 1.0:
            rows = rows.select(spread(len(rows), share))
        try:
            found = score(
                self.subject.engine, self.task, rows, self.config.train.per_device_eval_batch_size
            )
        except DivergenceError:
            # So far off that it is no candidate; a number keeps the comparison going.
            nothing = torch.full((len(rows),), 1e6, dtype=torch.float64)
            facts = {"cost": {}, "metrics": {"eval_loss": 1e6}, "sharpness": 1.0}
            return Entry("", facts, {"losses": nothing, "raw": nothing})
        sharp, sharpness = sharpened(found, self.task)
        losses, raw = (x.astype(np.float64) / self._mean_units for x in (sharp, found.losses))
        tokens = sum(lengths(rows))
        cost = {"evaluated": float(tokens), "time_s": time.perf_counter() - began}
        metrics = {"eval_loss": float(raw.mean())}
        metrics |= self._metrics(found)
        facts = {"cost": cost, "metrics": metrics, "sharpness": sharpness}
        arrays = {"losses": torch.from_numpy(losses), "raw": torch.from_numpy(raw)}
        return Entry("", facts, arrays)

    def _metrics(self, found: Scores) -> dict[str, float]:
        values = {
            f"eval_{name}": float(metric(found.logits, found.labels))
            for name, metric in self.task.metrics.items()
        }
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _scored(self, name: str, phase: str, work: Callable[[], Entry]) -> Scored:
        self._book(phase)
        entry = self.journal.once(name, work)
        cost = Cost(**entry.facts["cost"])
        self._book(phase, cost)
        metrics = entry.facts["metrics"]
        self._note(name, phase, cost, **metrics, sharpness=entry.facts["sharpness"])
        return Scored(entry.arrays["losses"].numpy(), entry.arrays["raw"].numpy(), metrics)

    @contextlib.contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """Inside, the update of the adapter is multiplied by a factor."""
        layers = [layer for layer in self.adapters.layers() if isinstance(layer, LoraLayer)]
        for layer in layers:
            layer.scale_layer(factor)
        try:
            yield
        finally:
            for layer in layers:
                layer.unscale_layer()

    def _state(self, entry: Entry) -> State:
        assert entry.kept is not None
        return entry.kept

    # Showing and noting

    def say(self, text: str) -> None:
        """Tells the user something that was found."""
        log.info("%s", text)

    def _book(self, phase: str, cost: Cost = NOTHING) -> None:
        """Counts a cost and shows what its phase has cost so far; without one, that it begins."""
        self.ledger.add(phase, cost)
        spent = self.ledger.phases[phase]
        self.progress.phase(phase, self.ledger.runs(spent), spent.time_s)

    def _note(self, name: str, phase: str, cost: Cost, **about: Any) -> None:
        line = {"trial": name, "phase": phase, **about, "runs": self.ledger.runs(cost)}
        self.trials.append(line | {"time_s": cost.time_s})
        if self.run is not None:
            self.run.append_trial(self.trials[-1])

    def _append_metrics(self, entry: Entry) -> None:
        if self.run is not None:
            for line in entry.facts["lines"]:
                self.run.append_metrics(line)

    def evaluated(self, step: int, scored: Scored, best: bool) -> None:
        """Notes an evaluation of the trunk among the metrics."""
        self.progress.evaluated(step, scored.metrics, best)
        if self.run is not None:
            epoch = step / self.plan.steps_per_epoch
            self.run.append_metrics({"step": step, "epoch": round(epoch, 6), **scored.metrics})

    def _show(self, step: Step, outcome: Outcome) -> None:
        self._shown.add(outcome.loss_sum, outcome.units, outcome.tokens, outcome.time_s)
        spent = self.ledger.total.trained + self._shown.tokens
        left = max(0.0, self.ledger.unit.trained - self.trunk_step * self._per_step())
        self.progress.step(
            Update(
                step=step.number,
                total_steps=self.total_steps,
                epoch=step.epoch,
                loss=outcome.loss_sum / outcome.units,
                learning_rate=outcome.learning_rate,
                tokens_per_s=self._shown.tokens_per_s,
                time_left_s=left / max(self._shown.tokens_per_s, 1e-9) if spent else 0.0,
            )
        )

    def _per_step(self) -> float:
        return self.ledger.unit.trained / self.total_steps

    def _how_to_resume(self) -> str:
        assert self.run is not None
        path = shlex.quote(str(self.run.path))
        return f"stopped while choosing. Go on with: lorafit train --resume {path}"


def _line(step: Step, outcome: Outcome, window: Tally) -> dict[str, Any]:
    return {
        "step": step.number,
        "epoch": round(step.epoch, 6),
        "train_loss": window.loss,
        "learning_rate": outcome.learning_rate,
        "grad_norm": outcome.grad_norm,
        "tokens_per_s": window.tokens_per_s,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def spread(count: int, share: float) -> list[int]:
    """Evenly spread indices: the first ones could be of one label, for files are often sorted."""
    wanted = max(2, round(share * count))
    indices: list[int] = np.linspace(0, count - 1, wanted).astype(int).tolist()
    return indices


def block_parameters(model: torch.nn.Module) -> int:
    """Parameters every token is multiplied by: all outside the embeddings."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    return sum(p.numel() for p in model.parameters() if id(p) not in tables)

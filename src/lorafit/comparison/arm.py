"""One method, measured: the search for its rate, a run a seed, and what they leave behind.

``process.py`` does it in a process of its own, so that the peak of memory is this method's and a
crash is nobody else's. Every finished trial and run is a
file; a second call goes on after the last one.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from datasets import Dataset, DatasetDict

from lorafit import paths, pipeline
from lorafit.comparison import records, yardsticks
from lorafit.comparison.measured import Cost, Measured, Saved
from lorafit.comparison.request import BASE, INSTEAD, Request, arm_folder
from lorafit.comparison.search import chosen, next_rate
from lorafit.config import Config
from lorafit.data.fingerprint import fingerprint
from lorafit.data.read.folder import read_folder
from lorafit.engine.eager import EagerEngine
from lorafit.errors import DivergenceError
from lorafit.evaluation import forgetting, spectrum
from lorafit.evaluation.score import Scores, score
from lorafit.evidence.comparison import Trial
from lorafit.export import peft as peft_format
from lorafit.machine.placement import find_device
from lorafit.model.language import load_language_model
from lorafit.pipeline import unchanged
from lorafit.pipeline.facts import FACTS
from lorafit.pipeline.problem import Problem, identified
from lorafit.pipeline.room import make_room
from lorafit.pipeline.subject import Subject
from lorafit.pipeline.tuned import adapter_facts
from lorafit.run import atomic
from lorafit.settings import LIVE
from lorafit.tasks import stored
from lorafit.training import head
from lorafit.training.head import HeadStart
from lorafit.training.learner import Learner
from lorafit.training.loop import FitResult, fit
from lorafit.training.progress import QuietProgress
from lorafit.trust import NO_TRUST, Trust, granted

SCALES = (0.0, 0.25, 0.5, 0.75)
"""Parts of the update at which forgetting and quality are measured too."""

SAMPLE = 500
"""Training examples on which the fit is measured."""

Say = Callable[[str], None]


@dataclass
class Trained:
    """A subject after training, and what it was before.

    Attributes:
        subject: The trained model.
        result: What training came to.
        start: The trainable parameters before.
        cpu_s: Processor time of the training, all threads.
        curve: ``step`` and ``eval_loss`` of each evaluation.
    """

    subject: Subject
    result: FitResult
    start: dict[str, torch.Tensor]
    cpu_s: float
    curve: list[dict[str, float]]


class Course(QuietProgress):
    """Notes the validation losses of a training."""

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:  # noqa: ARG002
        """Notes one."""
        self.curve.append({"step": step, "eval_loss": metrics["eval_loss"]})


class Arm:
    """One method in one comparison's folder.

    Args:
        folder: The comparison's folder.
        method: The arm's name.
        say: Takes a line for every trial and run.
        trust: What whoever made the call allows; the folder says nothing of that.
    """

    def __init__(self, folder: Path, method: str, say: Say, trust: Trust = NO_TRUST) -> None:
        self.folder, self.method, self.say, self.trust = folder, method, say, trust
        self.request = Request.read(folder)
        self.own = arm_folder(folder, method)
        self.own.mkdir(parents=True, exist_ok=True)
        self._probe: forgetting.Probe | None = None
        self._encoded: dict[str, Dataset] | None = None
        self._heads: dict[tuple[int, bool], HeadStart] = {}

    # What is to be done ----------------------------------------------------------------

    def run(self) -> None:
        """Does what is left to do.

        Raises:
            DataError: The rows in the folder are not those that the comparison began with.
            ModelError: The base model is not.
        """
        self.check_unchanged()
        rate = self.search()
        for seed in range(self.request.seeds):
            if not (self.own / f"seed-{seed}.json").is_file():
                self.measure(seed, rate)
        if self.method in self.request.noise and not (self.own / "noise.json").is_file():
            self.noise(rate)

    def check_unchanged(self) -> None:
        """Refuses what is not what the comparison began with: other arms were measured on that.

        Raises:
            DataError: The rows are not.
            ModelError: The base model is not.
        """
        rows = fingerprint(self.problem.splits)
        again = "Delete the folder, and compare again."
        unchanged.check_rows(self.folder, self.request.data, rows, again)
        config = self.config(1.0, 0, self.request.steps).model
        base = unchanged.Base(config.name_or_path, identified(config, None))
        instead = INSTEAD.format("files")
        unchanged.check_identity(self.folder, self.request.identity, base, instead)
        self.request.check_saved_base(self.folder)

    def search(self) -> float:
        """The rate with the lowest validation loss over a few short runs.

        Raises:
            DivergenceError: All of them diverged.
        """
        file = self.own / "trials.json"
        trials: list[Trial] = []
        if file.is_file():
            trials = cast("list[Trial]", records.read(file)["trials"])

        def tried() -> dict[float, float]:
            losses = ((t["learning_rate"], t["validation_loss"]) for t in trials)
            return {rate: math.inf if loss is None else loss for rate, loss in losses}

        while (rate := next_rate(tried(), self.request.rates[self.method])) is not None:
            steps = self.request.trial_steps
            trial: Trial = {"learning_rate": rate, "steps": steps, "validation_loss": None}
            try:
                trained = self.train(rate, 0, steps)
                loss = trained.result.best_eval_loss
                trial["validation_loss"] = loss
                trial = cast("Trial", {**trial, **_cost(trained)})
                said = f"validation loss {loss:.4f}"
            except DivergenceError as error:
                trial["diverged"] = str(error)
                said = "diverged"
            trials.append(trial)
            records.write(file, {"trials": trials})
            self.say(f"learning rate {rate:.2g}: {said} ({len(trials)})")
        if all(math.isinf(loss) for loss in tried().values()):
            raise DivergenceError(
                f"training diverged at every rate tried ({', '.join(f'{r:.2g}' for r in tried())})."
            )
        return chosen(tried())

    def measure(self, seed: int, rate: float) -> None:
        """Trains once and measures everything; the only place that reads the test split."""
        trained = self.train(rate, seed, self.request.steps)
        subject, task = trained.subject, self.problem.task
        batch = self.request.settings.train.per_device_eval_batch_size
        train = subject.encoded["train"]
        sample = train.select(range(min(SAMPLE, len(train))))
        seen = score(subject.engine, sample, batch)
        held = score(subject.engine, subject.encoded["validation"], batch)
        forgotten = forgetting.measure(subject.adapters, self.probe(subject))
        first: Saved = {}
        if seed == 0:
            saved = self.save(subject)
            first = {"saved_bytes": saved, "path": self.path(trained, held, batch)}
            self.spectra(subject, "update")
        device = find_device(self.request.settings.train.device)
        eager = EagerEngine(subject.model, task, subject.tokenizer, device)
        final = score(eager, subject.encoded["test"], batch)
        units = np.ones(len(final)) if final.units is None else final.units
        arrays = {"logits": final.logits, "labels": final.labels, "losses": final.losses}
        if not (self.own / f"{yardsticks.FILE}.json").is_file():
            self.yardsticks(subject, eager, batch)
        value = float(task.metrics[task.metric](final.logits, final.labels))
        facts: Measured = {
            "seed": seed,
            "learning_rate": rate,
            "steps": trained.result.steps,
            "best_step": trained.result.best_step,
            **_cost(trained),
            "curve": trained.curve,
            "train_loss": mean_loss(seen),
            "validation_loss": mean_loss(held),
            "trainable_parameters": sum(p.numel() for p in self.trainable(subject).values()),
            "engine": subject.engine.name,
            "forgetting": forgotten,
            **first,
            "metric": value,
        }
        records.write(self.own / f"seed-{seed}.json", facts, arrays | {"units": units})
        self.say(f"seed {seed}: test {task.metric.replace('_', ' ')} {value:.3f}")

    def yardsticks(self, subject: Subject, engine: EagerEngine, batch: int) -> None:
        """What answers come to on the test split that need no training, as files."""
        test = subject.encoded["test"]

        def untuned() -> Scores:
            with subject.adapters.disabled():
                return score(engine, test, batch)

        yardsticks.write(self.own, yardsticks.find(self.problem.task, test, untuned))

    def noise(self, rate: float) -> None:
        """The same run on shuffled labels: what an update looks like that learned nothing."""
        trained = self.train(rate, 0, self.request.steps, shuffled=True)
        self.spectra(trained.subject, "noise")
        self.say("shuffled labels")

    # Pieces ----------------------------------------------------------------------------

    @cached_property
    def problem(self) -> Problem:
        """The task and the rows, as every arm reads them."""
        splits = DatasetDict(read_folder(self.folder / "data"))
        return Problem(stored(self.request.task), splits)

    @property
    def base(self) -> str:
        """Where the base model is."""
        live = self.request.base.startswith(LIVE)
        return str(self.folder / BASE) if live else self.request.base

    def config(self, rate: float, seed: int, steps: int) -> Config:
        """The settings of one run."""
        model = granted(self.request.settings.model, self.trust)
        model.name_or_path = self.base
        return self.request.run(self.method, rate, seed, steps, model)

    def train(self, rate: float, seed: int, steps: int, shuffled: bool = False) -> Trained:
        """Trains a fresh subject; the best step's weights are in it afterwards."""
        config = self.config(rate, seed, steps)
        subject = pipeline.prepare(self.problem, config, encoded=self._encoded)
        self._encoded = subject.encoded
        make_room(subject, config.train)
        learner = subject.learner(self.problem.task)
        if shuffled:
            learner = replace(learner, train=with_shuffled_labels(learner.train))
        self._begin_head(learner, config, subject, shuffled)
        start = {name: p.detach().clone() for name, p in learner.trainable.items()}
        cpu, course = time.process_time(), Course()
        result = fit(learner, config, progress=course)
        return Trained(subject, result, start, time.process_time() - cpu, course.curve)

    def _begin_head(
        self, learner: Learner, config: Config, subject: Subject, shuffled: bool
    ) -> None:
        """Has a new head begin as every run's does; solved once for each draw of it."""
        new, key = subject.loaded.new_modules, (config.seed, shuffled)
        if not head.wanted(learner, config, new):
            return
        if key not in self._heads:
            self._heads[key] = head.begin(learner, config, new)
        head.put(learner.trainable, self._heads[key].weights)

    def trainable(self, subject: Subject) -> dict[str, torch.nn.Parameter]:
        """What the method trains, less modules trained whole (a new head): all train those."""
        whole = subject.adapters.configs["default"].modules_to_save or []
        heads = tuple(f"{path}." for path in whole)
        found = subject.adapters.trainable()
        return {n: p for n, p in found.items() if not n.startswith(heads)} or found

    def probe(self, subject: Subject) -> forgetting.Probe:
        """The general text as this model reads it; the same for all of the arm's models."""
        if self._probe is None:
            model, language = subject.model, None
            if not forgetting.has_language_head(model):
                source = str(paths.resolve(self.base) or self.base)
                revision = self.request.settings.model.revision
                language = load_language_model(source, revision, self.trust.remote_code)
            texts = forgetting.general_text(self.folder / "general.txt")
            with subject.adapters.disabled():
                self._probe = forgetting.make_probe(
                    model, subject.tokenizer, texts, self.request.text_length, language
                )
        return self._probe

    def path(self, trained: Trained, held: Scores, batch: int) -> list[dict[str, float]]:
        """Quality and forgetting with parts of the update.

        Parameters are moved back toward where they started; a new head stays as trained.
        """
        subject, task = trained.subject, self.problem.task
        own = self.trainable(subject)
        end = {name: p.detach().clone() for name, p in own.items()}
        points = []
        for c in (*SCALES, 1.0):
            with torch.no_grad():
                for name, p in own.items():
                    p.copy_(trained.start[name].lerp(end[name], c))
            if c < 1.0:
                held = score(subject.engine, subject.encoded["validation"], batch)
            lost = forgetting.measure(subject.adapters, self.probe(subject))
            value = float(task.metrics[task.metric](held.logits, held.labels))
            loss = mean_loss(held)
            points.append({"c": c, "metric": value, "loss": loss, "forgetting": lost["forgetting"]})
        return points

    def spectra(self, subject: Subject, name: str) -> None:
        """Singular values of every weight's update, as a file."""
        found = {p: spectrum.singular_values(delta) for p, delta in subject.adapters.updates()}
        records.write(self.own / f"{name}.json", {}, found)

    def save(self, subject: Subject) -> int:
        """Saves the adapter and returns the bytes of its two files."""
        adapter = self.own / "adapter"
        peft_format.save(subject.adapters, adapter)
        with atomic.writing(adapter, "the tokenizer"):
            subject.tokenizer.save_pretrained(adapter)
        config = self.config(1.0, 0, self.request.steps)
        facts = adapter_facts(subject, self.problem.task, config, identified(config.model, None))
        atomic.write_json(adapter / FACTS, facts)
        kept = ("adapter_model.safetensors", "adapter_config.json")
        return sum((adapter / file).stat().st_size for file in kept)


def mean_loss(scores: Scores) -> float:
    """Nats per unit: example or token."""
    units = len(scores) if scores.units is None else scores.units.sum()
    return float(scores.losses.sum(dtype=np.float64) / units)


def with_shuffled_labels(rows: Dataset) -> Dataset:
    """The same examples, each with the label of another."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    labels = [rows["labels"][index] for index in order]
    features = rows.features["labels"]
    return rows.remove_columns("labels").add_column("labels", labels, feature=features)


def _cost(trained: Trained) -> Cost:
    result = trained.result
    return {
        "time_s": result.time_s,
        "cpu_s": trained.cpu_s,
        "tokens_per_s": result.tokens_per_s,
        "peak_memory_bytes": result.peak_memory_bytes,
    }


def main(folder: str, method: str, trust: str = "{}") -> int:
    """Runs one arm in this process, which holds the lock of its folder.

    Lines go to standard output, everything else to standard error.

    Args:
        folder: The comparison's folder.
        method: The arm's name.
        trust: What the caller allows, `lorafit.trust.Trust` as JSON.
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    logging.getLogger("lorafit").setLevel(logging.INFO)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    own = arm_folder(Path(folder), method)
    atomic.remove([*atomic.unfinished(own), *atomic.unfinished(own / "adapter")])
    (own / "failed.json").unlink(missing_ok=True)
    try:
        Arm(Path(folder), method, say, Trust(**json.loads(trust))).run()
    except Exception as error:
        logging.getLogger("lorafit").exception("the arm failed")
        atomic.write_json(
            own / "failed.json", {"error": type(error).__name__, "message": str(error)}
        )
        return 1
    return 0

"""What a run would do and cost, without training: two measured steps, then arithmetic."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lorafit.config import Config
from lorafit.data.batches import BatchOrder, fetch, lengths
from lorafit.evidence import Choice, markup
from lorafit.machine.memory import peak_memory_bytes
from lorafit.model.sites import Site
from lorafit.pipeline.defaults import made_choices
from lorafit.pipeline.job import Job
from lorafit.pipeline.room import MOMENTS, make_room
from lorafit.pipeline.subject import Subject
from lorafit.settings import Settings
from lorafit.training import head
from lorafit.training.parts import in_parts
from lorafit.training.steps import StepPlan
from lorafit.units import count, duration, size

SAMPLED_BATCHES = 3
"""Batches of typical length that are timed, after one that is not (it warms caches up)."""


@dataclass(frozen=True)
class Plan:
    """What `lorafit plan` shows.

    Attributes:
        settings: The resolved configuration, and where each setting came from.
        task: Name of the task.
        rows: Rows of each split.
        sites: The layers that would be adapted.
        trainable_parameters: Adapter and head.
        total_parameters: All parameters of the adapted model.
        steps: Optimizer steps, if training does not stop early; the most, where ``open_end``.
        time_s: Estimated seconds of one plain run, evaluations included.
        peak_memory_bytes: Memory the measured steps took, and what the optimizer keeps.
        device: Where they were computed, as torch calls it.
        measured: Settings that training would choose, by key; their values are starting values.
        open_end: Whether the number of steps is left to the validation loss.
        budget: Most that choosing and training cost together, in plain runs; ``None``: nothing
            is chosen.
        guessed: What nobody set and was found by looking at the data, by key.
    """

    settings: Settings
    task: str
    rows: dict[str, int]
    sites: list[Site]
    trainable_parameters: int
    total_parameters: int
    steps: int
    time_s: float
    peak_memory_bytes: int
    device: str = "cpu"
    measured: frozenset[str] = frozenset()
    open_end: bool = False
    budget: float | None = None
    guessed: Mapping[str, Choice] = field(default_factory=dict)

    @property
    def most_time_s(self) -> float:
        """Seconds that choosing and training take together, at most, by the operations."""
        return self.time_s * (1.0 if self.budget is None else self.budget)

    def __repr__(self) -> str:
        facts = [self.task.replace("_", " "), *(f"{k} {v}" for k, v in self._facts()[1:])]
        return f"Plan({', '.join(facts)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: what training would take."""
        measured = ", ".join(sorted(key.rpartition(".")[2] for key in self.measured))
        note = f"Chosen by measurement while training: {measured}." if measured else ""
        return markup.table("What training would take", self._facts(), note=note)

    def _facts(self) -> list[tuple[str, str]]:
        """Names and values, in words."""
        trained = f"{count(self.trainable_parameters)} of {count(self.total_parameters)}"
        return [
            ("task", self.task.replace("_", " ")),
            ("trainable parameters", trained),
            ("steps", f"up to {count(self.steps)}" if self.open_end else count(self.steps)),
            ("time of one plain run", f"about {duration(self.time_s)}"),
            ("peak memory", f"about {size(self.peak_memory_bytes)}"),
            ("device", self.device),
        ]

    @property
    def config(self) -> Config:
        """The resolved configuration."""
        return self.settings.config

    @property
    def origins(self) -> dict[str, str]:
        """Where each setting came from."""
        return self.settings.origins


def estimate(job: Job) -> Plan:
    """Times a few forward and backward passes; weights stay as they are.

    The longest batches decide the memory, typical ones the time: one batch of the longest
    examples is run first, then batches as the first epoch would draw them.
    """
    subject, config = job.subject, job.config
    make_room(subject, config.train)
    train, settings = subject.encoded["train"], config.train
    sizes = lengths(train)
    batch = min(settings.per_device_train_batch_size, len(sizes))
    longest = np.argsort(sizes)[-batch:].tolist()
    _step_s(subject, longest)

    batches = BatchOrder(sizes, batch, config.seed).epoch(0)
    sample = batches[:: max(1, len(batches) // SAMPLED_BATCHES)][:SAMPLED_BATCHES]
    tokens = sum(sizes[i] for indices in sample for i in indices)
    seconds = sum(_step_s(subject, indices) for indices in sample)
    per_token_s = seconds / max(tokens, 1)
    trainable = list(subject.adapters.trainable().values())
    for parameter in trainable:
        parameter.grad = None
    moments = MOMENTS * sum(parameter.numel() * parameter.element_size() for parameter in trainable)

    plan = StepPlan(train, config)
    steps = plan.total_steps
    epochs = steps / plan.steps_per_epoch
    evaluations = sum(plan.evaluates(n + 1) for n in range(steps))
    # Frozen weights need no gradient: a step is 2N operations a token forward and 2N back,
    # an evaluation only the first half.
    choices = made_choices(job)
    held_out = sum(lengths(subject.encoded["validation"]))
    learner = subject.learner(job.task)
    read = head.tokens_read(learner, config, subject.loaded.new_modules)
    return Plan(
        settings=job.settings,
        task=job.task.name,
        rows={name: len(rows) for name, rows in subject.encoded.items()},
        sites=subject.adapters.sites["default"],
        trainable_parameters=sum(p.numel() for p in trainable),
        total_parameters=sum(p.numel() for p in subject.model.parameters()),
        steps=steps,
        time_s=per_token_s * (sum(sizes) * epochs + (evaluations * held_out + read) / 2),
        peak_memory_bytes=peak_memory_bytes() + moments,
        device=str(subject.model.device),
        open_end=plan.open,
        guessed={
            key: choices[name]
            for name in job.task.reasons
            if not job.settings.is_set(key := f"data.{name}")
        },
    )


def _step_s(subject: Subject, indices: list[int]) -> float:
    """Seconds of one forward and backward pass over some examples."""
    examples = fetch(subject.encoded["train"], indices)
    start = time.perf_counter()
    subject.model.train()
    for rows in in_parts(examples, subject.parts):
        subject.engine.forward_backward(subject.engine.collate(list(rows)), 1.0 / len(examples))
    subject.model.train(False)
    return time.perf_counter() - start

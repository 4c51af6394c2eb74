"""One training with everything that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lorafit.config import Config
from lorafit.machine import signals
from lorafit.model.identity import Identity
from lorafit.pipeline.problem import Problem
from lorafit.pipeline.subject import Subject, keep_start
from lorafit.run import RunWriter
from lorafit.run.commands import way_back
from lorafit.settings import Settings
from lorafit.tasks.base import Task


@dataclass(frozen=True)
class Job:
    """What is learned, what learns it, by which settings, and where that is kept.

    Attributes:
        problem: The task and its rows.
        subject: The model with its adapter, the encoded rows, and the engine.
        settings: The configuration and the origin of each value.
        run: The run folder; ``None``: there is none (yet), as for a plan.
        base: What the base model is, as of `lorafit.model.identity`; ``None``: not known.
    """

    problem: Problem
    subject: Subject
    settings: Settings
    run: RunWriter | None = None
    base: Identity | None = None

    @property
    def task(self) -> Task:
        """What is learned."""
        return self.problem.task

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.settings.config

    @property
    def folder(self) -> RunWriter:
        """The run folder, for work that leaves something there."""
        assert self.run is not None, "begin the job first"
        return self.run

    def begun(self) -> Job:
        """The same in a run folder: a new one, unless it has one already.

        Raises:
            ConfigError: The run's name is not a plain folder name.
            RunError: The run exists, or the folder cannot be written.
        """
        if self.run is not None:
            return self
        run = RunWriter.create(self.config, origins=self.settings.origins)
        with signals.naming(way_back(run.path)):
            keep_start(run, self.subject)
        return replace(self, run=run)

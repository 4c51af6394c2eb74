"""Keeps a run's best and last state: on disk when there is a run folder, else in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from lorafit.errors import RunError
from lorafit.run import RunWriter, atomic
from lorafit.training import checkpoint as checkpoints
from lorafit.training.generators import generator_states, restore_generators
from lorafit.training.parallel import Workers
from lorafit.training.state import TrainState

log = logging.getLogger(__name__)


class Keeper:
    """Saves, resumes, and brings the best weights back.

    Args:
        run: The run folder; ``None``: only the best weights are kept, in memory.
        trainable: Parameters by name.
        optimizer: Their optimizer.
        expects: What must be the same for an exact resume.
        workers: Only the main process writes.
    """

    def __init__(
        self,
        run: RunWriter | None,
        trainable: Mapping[str, Parameter],
        optimizer: Optimizer,
        expects: Mapping[str, object],
        workers: Workers,
    ) -> None:
        self._run = run
        self._trainable = trainable
        self._optimizer = optimizer
        self._expects = expects
        self._workers = workers
        self._best: dict[str, torch.Tensor] = {}
        self._saved: int | None = None

    def start(self, resume: bool, seed: int) -> TrainState:
        """The state to begin with: fresh, or of the last whole checkpoint.

        Args:
            resume: Whether to go on from a checkpoint.
            seed: With several processes, each gets its own dropout, made from this.

        Raises:
            RunError: There is nothing to resume from, or the run was started with other
                settings; or the run has been trained before and ``resume`` is off.
        """
        if self._workers.size > 1:
            torch.manual_seed(seed + 1_000_003 * self._workers.rank)
        if self._run is None:
            if resume:
                raise RunError("only a run with a folder can be resumed.")
            return TrainState()
        folder = self._run.checkpoints
        if self._workers.main:
            atomic.remove(atomic.unfinished(folder))
        if not resume and checkpoints.steps(folder):
            raise RunError(
                f'"{self._run.path}" has been trained before (checkpoint of step '
                f"{checkpoints.latest_step(folder)}). Resume it, or start a new run."
            )
        found = checkpoints.latest(folder) if resume else None
        self._workers.wait()
        if found is None:
            if resume:
                log.info('"%s" has no checkpoint yet: starting at step 0', self._run.path)
            if self._workers.main:
                self._run.truncate_metrics(0)
            return TrainState()
        return self._load(found)

    def _load(self, found: checkpoints.Checkpoint) -> TrainState:
        assert self._run is not None
        different = [
            f"{name} was {found.expects.get(name)}, now {value}"
            for name, value in self._expects.items()
            if found.expects.get(name) != value
        ]
        if different:
            raise RunError(
                f'"{self._run.path}" cannot be resumed exactly: {"; ".join(different)}. '
                "Resume with the settings and data it was started with, or start a new run."
            )
        checkpoints.load_weights(found, self._trainable)
        checkpoints.load_optimizer(found, self._trainable, self._optimizer)
        prefix = f"generator/{self._workers.rank}/"
        restore_generators(
            found.generators[self._workers.rank],
            {
                name.removeprefix(prefix): tensor
                for name, tensor in found.tensors.items()
                if name.startswith(prefix)
            },
        )
        state = TrainState.from_dict(found.state)
        if self._workers.main:
            self._run.truncate_metrics(state.metrics_lines)
            # What a kill after the last checkpoint left of the earlier ones.
            keep = {state.step, state.best_step or state.step}
            later = {step for step in checkpoints.steps(self._run.checkpoints) if step > state.step}
            checkpoints.prune(self._run.checkpoints, keep | later)
        log.info('resuming "%s" after step %d', self._run.path, state.step)
        self._saved = state.step
        return state

    def save(self, state: TrainState) -> None:
        """Keeps the present state, and of the earlier ones only the best.

        Raises:
            RunError: The disk is full, or permission is missing; earlier checkpoints are whole.
        """
        if self._run is None:
            if state.best_step == state.step:
                self._best = {name: p.detach().clone() for name, p in self._trainable.items()}
            return
        if self._saved == state.step:
            return
        generators = self._workers.gather(generator_states())
        if self._workers.main:
            folder = self._run.checkpoints
            tensors = checkpoints.collect(self._trainable, self._optimizer)
            checkpoints.save(folder, state, tensors, self._expects, generators)
            checkpoints.prune(folder, {state.step, state.best_step or state.step})
        self._saved = state.step
        self._workers.wait()

    def restore_best(self, state: TrainState) -> None:
        """Puts the best weights back into the model.

        Raises:
            RunError: Their checkpoint is damaged.
        """
        if state.best_step is None or state.best_step == state.step:
            return
        if self._run is not None:
            best = checkpoints.read(checkpoints.path_of(self._run.checkpoints, state.best_step))
            checkpoints.load_weights(best, self._trainable)
        else:
            with torch.no_grad():
                for name, parameter in self._trainable.items():
                    parameter.copy_(self._best[name])

    @property
    def hint(self) -> str:
        """How to go on from the last checkpoint, as a sentence; ``""`` without one."""
        if self._run is None or self._saved is None:
            return ""
        return f" The checkpoint of step {self._saved} is kept in {self._run.checkpoints}."

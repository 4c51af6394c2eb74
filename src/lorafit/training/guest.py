"""A call is a guest in the caller's process: what it changes there, it puts back.

Random generators and torch's deterministic mode are one for the whole process, so only one thread
at a time may seed and draw for lorafit: it has the turn. Before it passes the turn on it leaves all
as it found it. A training keeps the turn from its beginning to its end, but lets calls of other
threads (`lorafit.load` in a server) have theirs between two of its steps: because they restore what
they find, it draws the same numbers as alone.

What is restored: the generators of Python, NumPy and torch (all devices), deterministic mode,
``CUBLAS_WORKSPACE_CONFIG``, accelerate's shared state and glibc's thresholds for freed memory. What
other packages show and say is switched in `lorafit.quiet`, and counted there.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from lorafit.errors import TrainingError
from lorafit.machine import allocator
from lorafit.quiet import Switch

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


class _Turn:
    """Who may seed and draw: one thread, which may take its turn more than once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owner: int | None = None
        self._depth = 0
        self._taken = 0
        self.waiting = 0
        """Threads that want the turn."""
        self.trains: int | None = None
        """The thread that trains."""

    def take(self) -> None:
        """Waits for the turn."""
        me = threading.get_ident()
        with self._changed:
            if self._owner != me:
                self.waiting += 1
                try:
                    self._changed.wait_for(lambda: self._owner is None)
                finally:
                    self.waiting -= 1
                self._owner = me
                self._taken += 1
            self._depth += 1

    def give(self) -> None:
        """Ends one taking."""
        with self._changed:
            self._depth -= 1
            if not self._depth:
                self._owner = None
                self._changed.notify_all()

    def pass_on(self) -> None:
        """Lets one that waits have the turn, and takes it again."""
        if not self.waiting or self._owner != threading.get_ident():
            return
        with self._changed:
            depth, taken = self._depth, self._taken
            self._owner, self._depth = None, 0
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._owner is None and (self._taken != taken or not self.waiting)
            )
            self._owner, self._depth = threading.get_ident(), depth

    @contextmanager
    def training(self) -> Iterator[None]:
        """Claims that this thread trains.

        Raises:
            TrainingError: Another one does.
        """
        me = threading.get_ident()
        with self._changed:
            before = self.trains
            if before not in (None, me):
                raise TrainingError(
                    "another thread of this process is training, and the two would share its "
                    "random generators: neither would get what it gets alone.\n"
                    "Start this one when that is over, or in a process of its own."
                )
            self.trains = me
        try:
            yield
        finally:
            self.trains = before


_turn = _Turn()


def _start_anew() -> None:
    """In a forked process there are no other threads, whatever they held."""
    global _turn
    _turn = _Turn()


os.register_at_fork(after_in_child=_start_anew)


@contextmanager
def as_found() -> Iterator[None]:
    """Has the turn, and leaves the process as it was found. May be nested."""
    turn = _turn
    turn.take()
    try:
        with visiting():
            found = _Found.now()
            try:
                yield
            finally:
                found.restore()
    finally:
        turn.give()


@contextmanager
def visiting() -> Iterator[None]:
    """For a call that neither seeds nor draws, and needs no turn: the last one clears the table."""
    with _VISIT.held():
        yield


def _arrived() -> Callable[[], None]:
    known = bool(PartialState._shared_state)  # noqa: SLF001 there is no public view

    def leave() -> None:
        allocator.give_freed_memory_back()
        if not known:
            _forget_accelerate()

    return leave


_VISIT = Switch(_arrived)


@contextmanager
def training() -> Iterator[None]:
    """`as_found` for a training: there is one at a time in a process.

    Raises:
        TrainingError: Another thread trains.
    """
    with _turn.training(), as_found():
        yield


@contextmanager
def steps() -> Iterator[None]:
    """Has the turn for steps of training; the generators stay as the steps leave them.

    Raises:
        TrainingError: Another thread trains.
    """
    turn = _turn
    with turn.training():
        turn.take()
        try:
            yield
        finally:
            turn.give()


def let_others() -> None:
    """Between two steps: calls of other threads that wait get their turn."""
    _turn.pass_on()


def waiting() -> int:
    """How many threads wait for their turn."""
    return _turn.waiting


@dataclass(frozen=True)
class _Found:
    """What a call found in the process."""

    python: Any
    numpy: Any
    cpu: torch.Tensor
    seed: int
    cuda: list[torch.Tensor] | None
    mps: torch.Tensor | None
    deterministic: tuple[bool, bool]
    cublas: str | None

    @classmethod
    def now(cls) -> _Found:
        """The state of the process; devices that are not in use stay so."""
        return cls(
            python=random.getstate(),
            numpy=np.random.get_state(legacy=False),
            cpu=torch.get_rng_state(),
            seed=torch.initial_seed(),
            cuda=torch.cuda.get_rng_state_all() if _cuda_in_use() else None,
            mps=torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
            deterministic=(
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            cublas=os.environ.get(_CUBLAS),
        )

    def restore(self) -> None:
        """Makes it so again."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state_all(self.cuda)
        elif torch.cuda.is_available():
            torch.cuda.manual_seed_all(self.seed)  # where it starts once it is in use
        if self.mps is not None:
            torch.mps.set_rng_state(self.mps)
        on, warn_only = self.deterministic
        torch.use_deterministic_algorithms(on, warn_only=warn_only)
        if self.cublas is None:
            os.environ.pop(_CUBLAS, None)
        else:
            os.environ[_CUBLAS] = self.cublas


def _cuda_in_use() -> bool:
    found: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return found


def _forget_accelerate() -> None:
    """Lets the caller's own `Accelerator` choose its precision; processes of a group stay one."""
    if PartialState._shared_state and PartialState().num_processes == 1:  # noqa: SLF001
        AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001
        GradientState._reset_state()  # noqa: SLF001

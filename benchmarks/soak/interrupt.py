"""A process is killed, its disk fills or a signal comes; then what a user would do next.

Every case is a fresh folder: the work is begun in a forked process with a fault, goes on in a
second process without one, and what is there then is compared with a run that nothing happened
to.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import resource
import shutil
import signal
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import ClassVar, Literal

import psutil

import lorafit.errors
from benchmarks.soak.cases import Case, Part
from benchmarks.soak.ready import quiet
from benchmarks.soak.works import State, Work, emptied, state, status
from tests.faults.operations import Ended, Fault, forked

LIMIT_S = 600
"""Wall-clock time of one process; longer is a hang."""

OURS = {
    name
    for name, thing in vars(lorafit.errors).items()
    if isinstance(thing, type) and issubclass(thing, lorafit.errors.LorafitError)
}
"""Errors that are promised; any other is raw."""


class Count:
    """A number that a process and its forks share: operations of all of them together."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    @property
    def value(self) -> int:
        return int(struct.unpack("q", self._memory[:8])[0])

    def next(self) -> int:
        found = self.value + 1
        self._memory[:8] = struct.pack("q", found)
        return found


def counting(count: Count) -> Fault:
    """Nothing happens, and it is counted."""

    def act(number: int, what: str) -> None:  # noqa: ARG001 as every fault
        count.next()

    return act


def kill_group(at: int) -> Fault:
    """Kills the process and all that it started before one operation of any of them."""
    count = Count()

    def act(number: int, what: str) -> None:  # noqa: ARG001 as every fault
        if count.next() == at:
            os.killpg(0, signal.SIGKILL)

    return act


def copying(count: Count, work: Path, into: Path) -> Fault:
    """Copies the folder before every operation: what a kill would leave there."""

    def act(number: int, what: str) -> None:  # noqa: ARG001 as every fault
        shutil.copytree(work, into / str(count.next()), symlinks=True)

    return act


def distinct(folder: Path, last: int) -> list[int]:
    """The numbers of the copies that differ from the one before."""
    found, before = [], ""
    for number in range(1, last + 1):
        now = hashlib.sha256()
        for path in sorted((folder / str(number)).rglob("*")):
            now.update(f"{path.relative_to(folder / str(number))}\0".encode())
            now.update(path.read_bytes() if path.is_file() else b"")
        if now.hexdigest() != before:
            found.append(number)
            before = now.hexdigest()
    return found


def full_disk(at: int) -> Fault:
    """From one operation on nothing grows, whoever writes it; names can still be changed.

    Python is told that the device is full. Libraries that open files by themselves, and files
    that are open already, meet the kernel's limit on the size of a file instead.
    """
    count = Count()

    def act(number: int, what: str) -> None:  # noqa: ARG001 as every fault
        if count.next() < at:
            return
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        if what in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return act


def run(work: Callable[[], None], folder: Path, fault: Fault | None = None) -> Ended:
    """Does work in a forked process and a group of its own, with the folder as the current one."""

    def inside() -> None:
        os.setpgid(0, 0)
        os.chdir(folder)
        quiet()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT_S)
        work()

    return forked(inside, folder / "runs", fault)


@dataclass
class Interrupted(Part):
    """One kind of fault, at one kind of work.

    Attributes:
        work: What is interrupted.
        fault: Which.
        every: Only every so-manieth operation.
        resuming: Interrupts the second process instead, of a run that was killed half-way.
        most: Cases, for faults that come at any moment.
        copies: Instead of killing, copies what a kill would leave, before every operation of one
            run. Twice as quick and more: a state that an operation did not change is tried once.
    """

    name: str
    work: Work
    fault: Literal["kill", "disk", "signal"]
    folder: Path
    seed: int
    every: int = 1
    resuming: bool = False
    most: int = 0
    copies: bool = False
    expected: State = field(default_factory=dict)
    operations: int = 0
    cpu_s: float = 0.0
    _half: Path | None = None
    _distinct: Sequence[int] = ()

    SIGNALS: ClassVar[Sequence[Sequence[signal.Signals]]] = (
        [signal.SIGINT],
        [signal.SIGTERM],
        [signal.SIGINT, signal.SIGINT],
        [signal.SIGTERM, signal.SIGINT],
        [signal.SIGHUP],
    )

    def prepare(self) -> None:
        """Runs the work once, undisturbed.

        Raises:
            RuntimeError: It fails without any fault.
        """
        count, whole = Count(), emptied(self.folder / "whole")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = run(self.work.start, whole, counting(count))
        if ended.code:
            raise RuntimeError(f"{self.name}: fails without a fault: {ended.error or ended.code}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.expected, self.operations = state(whole), count.value
        if self.resuming:
            self._half = emptied(self.folder / "half")
            run(self.work.start, self._half, kill_group(self.operations * 5 // 9))
            count, copy = Count(), self.folder / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(self._half, copy)
            run(self.work.again, copy, counting(count))
            self.operations = count.value
        if self.copies:
            self._copy()

    def _copy(self) -> None:
        """Keeps the states that kills would leave, and which of them differ."""
        count, working = Count(), emptied(self.folder / "copied")
        if self._half is not None:
            shutil.copytree(self._half, working, dirs_exist_ok=True)
        begin = self.work.again if self.resuming else self.work.start
        run(begin, working, copying(count, working, emptied(self.folder / "states")))
        self._distinct = distinct(self.folder / "states", count.value)

    @property
    def numbers(self) -> list[int]:
        """The cases in the order in which they are tried: spread, so that a part says something."""
        whole = self._distinct or range(1, (self.most or self.operations) + 1)
        found = list(whole[:: self.every])
        Random(f"{self.seed}:{self.name}").shuffle(found)
        return found

    def try_one(self, number: int) -> Case:
        """One fault, and what came of it."""
        folder = self.folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        if self.copies:
            shutil.copytree(self.folder / "states" / str(number), folder, symlinks=True)
        elif self._half is not None:
            shutil.copytree(self._half, folder)
        else:
            folder.mkdir(parents=True)
        begin = self.work.again if self.resuming else self.work.start
        if self.copies:
            first = Ended(-signal.SIGKILL, None, "", [])
        elif self.fault == "signal":
            draw = Random(f"{self.seed}:{self.name}:{number}")
            first = run(_shot(begin, draw, self.cpu_s, self.SIGNALS), folder)
        else:
            fault = kill_group(number) if self.fault == "kill" else full_disk(number)
            first = run(begin, folder, fault)
        found: dict[str, object] = {"first": first.error or str(first.code)}
        if self.fault == "disk" and first.code:
            found["message"] = _of_full_disk(first.error)
        if self.fault == "signal" and first.error:
            found["says how to go on"] = "resume" in first.error or "same command" in first.error
        begun, before = self.work.begun(folder), status(folder)
        found["status"] = before
        second = first if first.code == 0 else run(self.work.again, folder)
        found |= {"begun": begun, "second": second.error or str(second.code)}
        if second.code:
            return Case(self.name, number, "stuck", found)
        now = state(folder)
        found["missing"] = sorted(_plain(self.expected.keys() - now.keys()))
        found["left behind"] = sorted(_plain(now.keys() - self.expected.keys()))
        both = self.expected.keys() & now.keys()
        found["different"] = sorted(name for name in both if self.expected[name] != now[name])
        if found["different"] or found["missing"]:
            return Case(self.name, number, "different", found)
        if first.code == 0:
            return Case(self.name, number, "unaffected", found)
        return Case(self.name, number, "equal" if begun else "nothing begun, begun anew", found)


def _plain(names: set[str]) -> set[str]:
    """Names without what differs from process to process."""
    return {"/".join(part for part in name.split("/") if part) for name in names}


def _of_full_disk(said: str) -> str:
    kind, _, message = said.partition(": ")
    if kind not in OURS:
        return "raw"
    full = (errno.ENOSPC, errno.EFBIG)
    return "right" if any(os.strerror(code) in message for code in full) else "of something else"


def _shot(
    work: Callable[[], None],
    draw: Random,
    cpu_s: float,
    signals: Sequence[Sequence[signal.Signals]],
) -> Callable[[], None]:
    """The work, and a process that signals it at a random moment of its processor time."""
    moment, chosen = draw.uniform(0, cpu_s), draw.choice(signals)

    def inside() -> None:
        target = os.getpid()
        if os.fork() == 0:
            _shoot(psutil.Process(target), moment, chosen, draw.uniform(0, 0.3))
        work()

    return inside


def _shoot(
    process: psutil.Process, moment: float, signals: Sequence[signal.Signals], pause: float
) -> None:
    try:
        began = sum(process.cpu_times()[:2])
        while sum(process.cpu_times()[:2]) - began < moment:
            time.sleep(0.01)
        for number in signals:
            process.send_signal(number)
            time.sleep(pause)
    except psutil.Error:  # it has ended before
        pass
    finally:
        os._exit(0)

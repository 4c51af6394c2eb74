"""Forked processes that meet a fault at a chosen file operation below a folder.

File operations are seen through Python's audit events, so nothing of the program is replaced:
opening for writing, making, renaming and removing. What Rust libraries do inside of a call is one
operation with the one before it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Fault = Callable[[int, str], None]
"""Is told the number of an operation, from 1, and what it is, before it happens."""


def kill(at: int) -> Fault:
    """Kills the process before one operation."""

    def act(number: int, what: str) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def full_disk(at: int) -> Fault:
    """From one operation on nothing new can be written; names can still be changed."""

    def act(number: int, what: str) -> None:
        if number >= at and what in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return act


def send(at: int, numbers: Sequence[signal.Signals]) -> Fault:
    """Sends signals to the process itself before one operation."""

    def act(number: int, what: str) -> None:
        if number == at:
            for one in numbers:
                os.kill(os.getpid(), one)

    return act


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code, negative for a signal.
        value: What the work returned.
        error: ``Kind: message`` of what it raised.
        operations: What it did with files, in order.
    """

    code: int
    value: Any
    error: str
    operations: list[str]


def forked(work: Callable[[], Any], below: Path, fault: Fault | None = None) -> Ended:
    """Does work in a process of its own.

    Args:
        work: Returns a JSON value.
        below: Only operations in this folder count.
        fault: What happens at which operation.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _child(work, below, fault, write)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = json.loads(said) if said else {"value": None, "error": "", "operations": []}
    return Ended(code, **found)


def _child(work: Callable[[], Any], below: Path, fault: Fault | None, pipe: int) -> None:
    place, seen = f"{below.resolve()}{os.sep}", []

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            if not (isinstance(args[2], int) and args[2] & WRITING):
                return
        elif event not in CHANGING:
            return
        path = args[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        name = str(Path.cwd() / os.fsdecode(path))
        if not name.startswith(place) or name.endswith("/.lock"):
            return
        seen.append(f"{event} {name.removeprefix(place)}")
        if fault is not None:
            fault(len(seen), event)

    result: dict[str, Any] = {"value": None, "error": ""}
    code = 0
    sys.addaudithook(hook)
    try:
        result["value"] = work()
    except BaseException as error:  # noqa: BLE001 the parent looks at it
        result["error"] = f"{type(error).__name__}: {error}"
        code = 1
        if os.environ.get("SHOW"):
            traceback.print_exc()
    fault = None
    with os.fdopen(pipe, "w") as out:
        json.dump(result | {"operations": seen}, out)
    os._exit(code)

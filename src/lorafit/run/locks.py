"""One process at a time in a folder: who works there holds its ``.lock``.

The operating system frees the lock when the process ends, however it ends, so there is no stale
lock to remove.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from lorafit import regular
from lorafit.errors import RunError
from lorafit.run import atomic

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
HOLDER = ".lock.pid"
"""The process that holds the lock."""

PATIENCE = 1.0
"""Seconds that a lock may take to become free: who asks whether it is held has it for a moment."""

_POLL = 0.02


@contextlib.contextmanager
def held(
    folder: Path, doing: str, lock: FileLock | None = None, patience: float = PATIENCE
) -> Iterator[None]:
    """Keeps other processes from working in a folder.

    Args:
        folder: The folder.
        doing: What this process does there, e.g. ``"training"``.
        lock: The folder's lock, where it is taken again inside; ``None``: a new one.
        patience: Seconds to wait for it.

    Raises:
        RunError: Another process holds it, or the folder cannot be written.
    """
    lock = FileLock(folder / LOCK) if lock is None else lock
    with atomic.writing(folder, "the lock"):
        try:
            lock.acquire(timeout=patience, poll_interval=_POLL)
        except Timeout as error:
            pid = ""
            with contextlib.suppress(OSError, ValueError):
                pid = str(int(regular.read_text(folder / HOLDER)))
            raise RunError(
                f'another process{f" ({pid})" if pid else ""} is {doing} in "{folder}". '
                "Wait for it or stop it."
            ) from error
    try:
        if lock.lock_counter == 1:
            # Renamed into its place: a link of this name leads nowhere.
            atomic.write_text(folder / HOLDER, str(os.getpid()), "the lock")
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether some process works in a folder of a run or a comparison.

    Any number of processes may ask at once, and in a folder that cannot be written, too.
    """
    if sys.platform == "win32":
        return _taken(folder)
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file system knows no locks
        return False
    finally:
        os.close(descriptor)
    return False


def _taken(folder: Path) -> bool:
    """As `is_locked`, where a lock can only be asked for by taking it."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except (Timeout, OSError):
        return True

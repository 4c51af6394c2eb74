"""Folders that appear whole: made under a temporary name, then renamed.

A process that is killed leaves its unfinished folder behind; the next one that writes there
removes it. It can tell a dead one's from a living one's, because who makes a folder holds a lock
on it, which ends with the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from lorafit.run import atomic
from lorafit.run.atomic import TEMPORARY

if sys.platform != "win32":
    import fcntl

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@contextlib.contextmanager
def staging(parent: Path, name: str) -> Iterator[Path]:
    """A new folder ``.tmp-<name>-...`` below a parent, which is made; gone at the end.

    Unless the block renames it. What killed processes left of the same name is removed first.

    Args:
        parent: Where the finished folder will be.
        name: A part of the temporary name.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent, re.escape(name))
    stage, held = _made(parent, name)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if held is not None:
            os.close(held)


def settle(stage: Path) -> None:
    """Brings all files of a folder to the disk, with the permissions that new files have.

    Some libraries write through private files, which another user's server could not read.
    """
    mode = atomic.new_file_mode(stage)
    for file in stage.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)
            atomic.sync_file(file)


def place(stage: Path, target: Path) -> bool:
    """Renames a folder, unless there is something already.

    Returns:
        Whether it is in its place now.
    """
    if os.path.lexists(target):
        return False
    try:
        stage.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:  # by another process, since we looked
            return False
        raise
    atomic.sync_folder(target.parent)
    return True


def sweep(parent: Path, name: str = ".+") -> None:
    """Removes the folders below a parent that killed processes left unfinished.

    Args:
        parent: The folder; it may not exist.
        name: Which, a regular expression; as in `staging`.
    """
    pattern = re.compile(f"{re.escape(TEMPORARY)}{name}-[0-9a-f]{{8}}")
    for path in list(parent.iterdir()) if parent.is_dir() else ():
        if not pattern.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        with contextlib.suppress(OSError):
            held = _locked(path)
            if held is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(held)


def _made(parent: Path, name: str) -> tuple[Path, int | None]:
    """A new folder and its lock; ``None``: there are no locks on folders here."""
    while True:
        stage = parent / f"{TEMPORARY}{name}-{secrets.token_hex(4)}"
        stage.mkdir()
        try:
            held = _locked(stage)
        except (BlockingIOError, FileNotFoundError):  # swept in the moment before it was locked
            continue
        if stage.is_dir():
            return stage, held


def _locked(folder: Path) -> int | None:
    """A descriptor that locks a folder; ``None``: there are no locks on folders here.

    Raises:
        BlockingIOError: Another process holds it.
    """
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor

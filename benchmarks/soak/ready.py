"""Imports everything once, so that a forked process begins at once with its work."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.operations import forked


def quiet() -> None:
    """Nothing that this process or its children print reaches the terminal."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def import_for(work: Callable[[], Any], folder: Path) -> None:
    """Does work in a forked process, and imports in this one what that needed.

    Training here instead would start threads, which a fork does not take along.

    Args:
        work: What the forked processes will do.
        folder: Where it writes.

    Raises:
        RuntimeError: The work failed, or this process has threads.
    """

    def names() -> list[str]:
        quiet()
        work()
        return sorted(name for name, module in sys.modules.items() if module is not None)

    done = forked(names, folder)
    if done.code:
        raise RuntimeError(f"the work failed before any fault: {done.error or done.code}")
    for name in done.value:
        if name not in sys.modules and not name.startswith(("_", "tests.")):
            try:
                importlib.import_module(name)
            except ImportError:  # made while running: not a module that can be imported
                continue
    if threading.active_count() > 1:
        raise RuntimeError(f"forking needs one thread, not {threading.enumerate()}")
    gc.collect()
    gc.freeze()  # collections in children pass over all this

"""A child process that does not outlive the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
"""``linux/prctl.h``."""


def end_with_parent(pipe: int) -> None:
    """Ends this process as soon as its parent has ended, whatever ended that.

    Linux sends SIGKILL, which no code that is busy can delay. Elsewhere, and if the parent was
    gone before this call, the pipe tells: its other end closes with the parent.

    Args:
        pipe: Descriptor to read from. The parent holds the other end and writes nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_watch, args=(pipe,), name="parent", daemon=True).start()


def _watch(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os._exit(1)

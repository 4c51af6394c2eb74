"""Memory there is for this process, and peaks of the process and of the GPU."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from lorafit.machine import cgroup

_earlier_peak = 0
"""The peak up to the last call of `peak_rss_during`, which starts a new one."""


@dataclass(frozen=True)
class Memory:
    """Memory of the machine, or of the container or the process's limit where that is less.

    Attributes:
        total: Bytes there are.
        available: Bytes that can be had without swapping.
    """

    total: int
    available: int


def memory() -> Memory:
    """The memory this process may use."""
    machine = psutil.virtual_memory()
    limit, left = cgroup.memory_limit(), cgroup.memory_left()
    space, rest = _address_space()
    return Memory(
        total=min(n for n in (machine.total, limit, space) if n is not None),
        available=min(n for n in (machine.available, left, rest) if n is not None),
    )


def _address_space() -> tuple[int | None, int | None]:
    """The limit on this process's addresses (``ulimit -v``), and bytes up to it."""
    if sys.platform == "win32":
        return None, None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None, None
    return soft, max(soft - int(psutil.Process().memory_info().vms), 0)


def rss_bytes() -> int:
    """Resident memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def peak_rss_during(work: Callable[[], object]) -> int:
    """Does some work; returns the largest resident memory meanwhile, in bytes.

    Where the system keeps one peak for the whole process (all but Linux), it is that one.
    """
    global _earlier_peak
    _earlier_peak = peak_rss_bytes()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): a new peak
    work()
    return _peak_rss_bytes()


def peak_rss_bytes() -> int:
    """Largest resident memory this process has had since it started, in bytes."""
    return max(_earlier_peak, _peak_rss_bytes())


def _peak_rss_bytes() -> int:
    """The same since `peak_rss_during` began, if it was called."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    with contextlib.suppress(OSError):
        # Linux. Not getrusage: there the peak of the program that started this one counts too.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        if found := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
            return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes (getrusage(2) of each).
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak() -> None:
    """Starts a new GPU peak; the process's own is that since it started."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """The peak that limits training, in bytes.

    With a GPU: the largest amount torch had allocated on the current one since `reset_peak`.
    Without: `peak_rss_bytes`.
    """
    import torch

    # Nothing was allocated on the GPU when training was asked to stay on the CPU.
    peak = int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0
    return peak or peak_rss_bytes()

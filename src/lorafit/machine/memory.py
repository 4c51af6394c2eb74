"""Memory there is for this process, and peaks of the process and of the GPU."""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from lorafit.machine import cgroup


@dataclass(frozen=True)
class Memory:
    """Memory of the machine, or of the container where that has less.

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
    return Memory(
        total=machine.total if limit is None else min(machine.total, limit),
        available=machine.available if left is None else min(machine.available, left),
    )


def peak_rss_bytes() -> int:
    """Largest resident memory this process has had since it started, in bytes."""
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
    """Starts a new GPU peak; the process's own peak cannot be reset."""
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

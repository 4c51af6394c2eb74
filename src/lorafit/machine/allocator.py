"""Keeps freed memory in the process, so that big tensors are not paged in at every step.

glibc returns a freed block of more than 128 KB to the system at once, and the next tensor of
that size is written at 5 GB/s (page faults) instead of 35 to 60. The limits can be raised in a
running process. Other C libraries are left alone.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_LIMIT = 1 << 30


@functools.cache
def keep_freed_memory() -> bool:
    """Raises glibc's limits to 1 GB, once a process; whether it could.

    What the user has set in the environment stays.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    if any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, _LIMIT) == 1 for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))

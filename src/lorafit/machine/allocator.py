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
_ADAPTED = 32 << 20
"""Where glibc's own, moving limit for blocks ends up in a process with tensors
(``DEFAULT_MMAP_THRESHOLD_MAX``; that for trimming is twice as high, malloc.c). It does not move
again once it was set, and at the 128 KB it starts from every tensor would be paged in anew."""


_raised = False


def keep_freed_memory() -> bool:
    """Raises glibc's limits to 1 GB until `give_freed_memory_back`; whether they are raised.

    What the user has set in the environment stays.
    """
    global _raised
    _raised = _raised or _set(_LIMIT, _LIMIT)
    return _raised


def give_freed_memory_back() -> None:
    """Takes `keep_freed_memory` back, and returns to the system what is free by now."""
    global _raised
    if _raised:
        _set(_ADAPTED, 2 * _ADAPTED)
        ctypes.CDLL(None).malloc_trim(0)
        _raised = False


def _set(mmap: int, trim: int) -> bool:
    """Sets the sizes in bytes above which blocks are mapped and the heap's end is returned."""
    if not _ours():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*one) == 1 for one in ((_MMAP_THRESHOLD, mmap), (_TRIM_THRESHOLD, trim)))


@functools.cache
def _ours() -> bool:
    """Whether this is glibc, and the user leaves its limits to us."""
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    return platform.libc_ver()[0] == "glibc" and not any(name in os.environ for name in names)

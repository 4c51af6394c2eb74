"""Gives back the memory of weights that can be read from their file again.

transformers maps a safetensors file into memory: a page of it is read when it is first
touched, and then counts as the process's memory. Once a frozen weight has its fast layout the
original is not touched until the adapter is merged or saved, so its pages may go. Nothing can
be lost: a page that was written to is not the file's any more, and stays.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from torch import Tensor

_PAGEOUT = 21  # Linux 5.4, asm-generic/mman-common.h
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ [1-9]\d* ", re.MULTILINE)
"""A line of /proc/self/maps whose inode is not 0: a file's."""


def release(weights: Iterable[Tensor]) -> int:
    """Lets the pages go that these tensors share with a file.

    Returns:
        How many bytes may have been given back; 0 where there is nothing to give, or no way.
    """
    if sys.platform != "linux":
        return 0
    given = 0
    for weight in weights:
        start, size = weight.data_ptr(), weight.numel() * weight.element_size()
        if not _is_mapped(weight.untyped_storage().data_ptr(), start):
            continue
        # Whole pages only: the neighbours' first and last ones may be in use.
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (start + size - first) // mmap.PAGESIZE * mmap.PAGESIZE
        if length > 0 and _madvise()(first, length, _PAGEOUT) == 0:
            given += length
    return given


@functools.lru_cache(maxsize=256)
def _is_mapped(storage: int, address: int) -> bool:
    """Whether an address lies in a file's mapping.

    Remembered, for a model asks some hundred times. When another storage has since come to
    the same place the answer may be old; advice on it does no harm.
    """
    del storage
    text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    found = ((int(m[1], 16), int(m[2], 16)) for m in _MAPPING.finditer(text))
    return any(start <= address < end for start, end in found)


@functools.cache
def _madvise() -> Callable[[int, int, int], int]:
    call = ctypes.CDLL(None).madvise
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return cast(Callable[[int, int, int], int], call)

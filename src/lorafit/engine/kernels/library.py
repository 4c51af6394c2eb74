"""Finds and loads the compiled kernels, and joins them to torch's threads."""

from __future__ import annotations

import ctypes
import functools
import logging
import re
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_long, c_uint32, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from lorafit.engine.native.build import library_path
from lorafit.machine.processor import bf16_flags

log = logging.getLogger(__name__)

ABI = 5


class AttentionCall(ctypes.Structure):
    """``struct LorafitAttention`` of native/attention.cpp, field for field."""

    _fields_: ClassVar = [
        *((name, c_int32) for name in ("dtype", "causal", "first_only")),
        *((name, c_int32) for name in ("heads", "kv_heads", "head_dim")),
        ("sequences", c_int64),
        ("starts", c_void_p),
        *((name, c_float) for name in ("scale", "keep_scale")),
        *((name, c_uint32) for name in ("seed", "threshold")),
        *((name, c_int64) for name in ("q_stride", "kv_stride", "out_stride")),
        *((name, c_void_p) for name in ("q", "k", "v", "out", "lse", "dout", "dq", "dk", "dv")),
    ]


_MASK = [c_uint32, c_uint32, c_float]
_P = c_void_p
SIGNATURES = {
    "lorafit_attention": [POINTER(AttentionCall), c_int],
    "lorafit_activation": [c_int, c_int, c_int, c_long, _P, _P],
    "lorafit_norm_forward": [
        *(c_int, c_long, c_long, _P, _P, _P, _P, _P, _P, c_float, *_MASK, _P, _P, _P)
    ],
    "lorafit_norm_backward": [c_int, c_long, c_long, _P, _P, _P, _P, _P, *_MASK, _P],
    "lorafit_dropout": [c_int, c_long, c_long, _P, *_MASK, _P],
    "lorafit_lora_down": [c_int, c_long, c_long, c_long, _P, c_long, _P, *_MASK, _P],
    "lorafit_lora_up": [c_int, c_long, c_long, c_long, _P, _P, c_float, _P, c_long],
    "lorafit_lora_backward": [
        *(c_int, c_int, c_long, c_long, c_long, c_long, _P, c_long, _P, c_long),
        *(_P, _P, _P, c_float, *_MASK, _P, _P, _P),
    ],
    "lorafit_use_threads": [_P, _P],
    "lorafit_softmax_loss": [c_int, c_long, c_long, _P, _P, _P],
    "lorafit_product": [c_long, c_long, c_long, _P, c_long, _P, _P, _P, c_long],
    "lorafit_rms_forward": [c_int, c_long, c_long, _P, _P, _P, c_float, _P, _P, _P],
    "lorafit_rms_backward": [c_int, c_long, c_long, _P, _P, _P, _P, _P, _P],
    "lorafit_head_norm": [c_int, c_long, c_long, c_long, _P, c_long, _P, c_float, _P],
    "lorafit_rotary": [c_int, c_long, c_long, c_long, _P, c_long, _P, _P, c_float],
    "lorafit_swiglu": [c_int, c_int, c_long, c_long, _P, _P, _P],
}


@dataclass(frozen=True)
class Library:
    """The kernels of one instruction set.

    Attributes:
        name: ``avx512bf16``, ``avx512``, ``avx2`` or ``base`` (SSE2 or NEON).
        calls: The C functions by name; `lorafit.engine.kernels` checks their arguments.
        shares_threads: Whether torch's thread pool was found; else one thread is used.
        multiplies: Whether it has the bfloat16 product of `lorafit.engine.product`.
    """

    name: str
    calls: ctypes.CDLL
    shares_threads: bool
    multiplies: bool


def _openmp_runtime() -> ctypes.CDLL | None:
    """The OpenMP runtime torch computes with; never another copy of it."""
    folder = Path(torch.__file__).resolve().parent  # the maps below have no symbolic links
    loaded: list[str] = []
    try:
        maps = Path("/proc/self/maps").read_text()
        loaded = sorted(set(re.findall(r"\S*/lib(?:gomp|iomp5|omp)\S*\.so\S*", maps)))
    except OSError:  # not Linux: the runtime lies in torch's own folder
        loaded = [str(path) for path in sorted((folder / "lib").glob("lib*omp*.dylib"))]
    # Wheels keep it in torch/lib or torch.libs; other packages may have brought their own.
    loaded.sort(key=lambda path: not path.startswith(str(folder)))
    for path in loaded:
        try:
            runtime = ctypes.CDLL(path)
            _ = runtime.GOMP_parallel, runtime.omp_get_max_threads
        except (OSError, AttributeError):
            continue
        return runtime
    return None


def load(path: Path, abi: int = ABI) -> Library:
    """Loads one library file.

    Args:
        path: The file.
        abi: The version of the interface that it has to have.

    Raises:
        OSError: It cannot be loaded, or was built from other sources.
    """
    calls = ctypes.CDLL(str(path))
    calls.lorafit_abi.restype = c_int
    if (found := calls.lorafit_abi()) != abi:
        raise OSError(f"{path} has interface {found}, this package wants {abi}")
    for name, arguments in SIGNATURES.items():
        getattr(calls, name).argtypes = arguments
        getattr(calls, name).restype = None
    torch.get_num_threads()  # torch applies OMP_NUM_THREADS and its own default only now
    runtime = _openmp_runtime()
    if runtime is not None:
        calls.lorafit_use_threads(
            ctypes.cast(runtime.GOMP_parallel, c_void_p),
            ctypes.cast(runtime.omp_get_max_threads, c_void_p),
        )
    calls.lorafit_multiplies.restype = c_int
    return Library(
        path.stem.removeprefix("kernels_"),
        calls,
        shares_threads=runtime is not None,
        multiplies=bool(calls.lorafit_multiplies()),
    )


def candidates() -> list[str]:
    """Instruction sets this CPU can run, best first."""
    capability = torch.backends.cpu.get_cpu_capability()
    names = {"AVX512": ["avx512", "avx2"], "AVX2": ["avx2"]}.get(capability, [])
    if capability == "AVX512" and "avx512_bf16" in bf16_flags():
        names.insert(0, "avx512bf16")
    return [*names, "base"]


@functools.cache
def library() -> Library | None:
    """The best compiled kernels for this CPU; ``None``: the PyTorch twins run."""
    for name in candidates():
        path = library_path(name)
        if not path.exists():
            continue
        try:
            return load(path)
        except OSError as error:
            log.warning(
                "compiled kernels not used: %s. Build them: python -m lorafit.engine.native.build",
                error,
            )
    return None

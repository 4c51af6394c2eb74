"""The processor: its name, its instructions, the cores and threads there are for us.

``/proc/cpuinfo`` is read here and nowhere else, once a process.
"""

from __future__ import annotations

import functools
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorafit.machine import cgroup

if TYPE_CHECKING:
    import torch

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Names under which Linux lists bfloat16 arithmetic: AVX-512, AMX, Arm."""
_AVX2 = frozenset({"avx2", "fma"})
_AVX512 = frozenset({"avx512f", "avx512vl", "avx512bw", "avx512dq", "fma"})


@dataclass(frozen=True)
class Processor:
    """What the system says of the processor.

    Attributes:
        name: As its maker calls it; empty where the system does not tell.
        flags: Names of its instruction sets, as Linux writes them; empty elsewhere.
        cores: The physical core of each logical processor; empty where it is not known.
    """

    name: str = ""
    flags: frozenset[str] = frozenset()
    cores: Mapping[int, tuple[str, str]] | None = None

    @property
    def bf16(self) -> list[str]:
        """Its own bfloat16 instructions."""
        return sorted(self.flags & BF16_FLAGS)


def parse(cpuinfo: str) -> Processor:
    """Reads the text of ``/proc/cpuinfo``."""
    name, flags = "", frozenset[str]()
    cores: dict[int, tuple[str, str]] = {}
    for block in re.split(r"\n\s*\n", cpuinfo):
        pairs = (line.partition(":") for line in block.splitlines())
        facts = {key.strip().lower(): value.strip() for key, _, value in pairs}
        name = name or facts.get("model name", "")
        flags = flags or frozenset((facts.get("flags") or facts.get("features") or "").split())
        if "processor" in facts and "core id" in facts:
            cores[int(facts["processor"])] = facts.get("physical id", "0"), facts["core id"]
    return Processor(name, flags, cores)


@functools.cache
def processor() -> Processor:
    """This machine's processor."""
    try:
        return parse(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Processor(platform.processor())


def bf16_flags() -> list[str]:
    """The processor's own bfloat16 instructions, ``[]`` where they are not known (not Linux)."""
    return processor().bf16


def vector_units() -> str | None:
    """The instructions torch chooses on this processor, by its name for them.

    The rule of ``compute_cpu_capability`` in ATen/native/DispatchStub.cpp (torch 2.13) for x86;
    ``None``: another processor, which only torch knows about.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"} or not processor().flags:
        return None
    asked = os.environ.get("ATEN_CPU_CAPABILITY", "").upper()
    if asked in {"DEFAULT", "AVX2", "AVX512"}:
        return asked
    for name, needed in (("AVX512", _AVX512), ("AVX2", _AVX2)):
        if needed <= processor().flags:
            return name
    return "DEFAULT"


def allowed_processors() -> set[int] | None:
    """The logical processors this process may run on; ``None`` where systems do not say."""
    affinity = getattr(os, "sched_getaffinity", None)
    return set(affinity(0)) if affinity else None


def usable_cores() -> int:
    """Logical processors this process may use: its affinity, and a container's share of time."""
    allowed = allowed_processors()
    cores = len(allowed) if allowed else os.cpu_count() or 1
    quota = cgroup.cpu_quota()
    return cores if quota is None else max(1, min(cores, round(quota)))


def physical_cores() -> int:
    """Physical cores this process may run on; logical ones where the system does not tell."""
    known = processor().cores or {}
    allowed = allowed_processors()
    if allowed is None or not allowed <= set(known):
        return len(allowed or ()) or os.cpu_count() or 1
    return len({known[number] for number in allowed})


def expected_threads() -> int:
    """Threads that torch will start for one operation, without asking it.

    OpenMP's setting, or one thread a physical core. MKL, with which torch is built for x86,
    has a setting of its own that comes first, and never starts more than the physical cores
    (torch 2.13, ATen/ParallelOpenMP.cpp).
    """
    mkl = platform.machine().lower() in {"x86_64", "amd64"}
    names = ("MKL_NUM_THREADS", "OMP_NUM_THREADS") if mkl else ("OMP_NUM_THREADS",)
    most = physical_cores()
    for name in names:
        first = os.environ.get(name, "").partition(",")[0].strip()
        if first.isdigit() and int(first) > 0:
            return min(int(first), most) if mkl else int(first)
    return most


def fast_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether bfloat16 is faster than float32 on a device, and why, in a few words."""
    if device.type == "cuda":
        import torch

        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return supported, f"the GPU {'computes' if supported else 'only emulates'} bfloat16"
    if device.type == "cpu":
        flags = bf16_flags()
        if flags:
            return True, f"the processor computes bfloat16 ({', '.join(flags)})"
        return False, "the processor only emulates bfloat16"
    return False, f"not measured on {device.type}"

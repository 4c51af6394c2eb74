"""What the processor can do that decides a default."""

from __future__ import annotations

from pathlib import Path

import torch

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Names under which Linux lists bfloat16 arithmetic: AVX-512, AMX, Arm."""


def bf16_flags() -> list[str]:
    """The processor's own bfloat16 instructions, ``[]`` where they are not known (not Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    return sorted(set(next(lines, "").split()) & BF16_FLAGS)


def fast_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether bfloat16 is faster than float32 on a device, and why, in a few words."""
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return supported, f"the GPU {'computes' if supported else 'only emulates'} bfloat16"
    if device.type == "cpu":
        flags = bf16_flags()
        if flags:
            return True, f"the processor computes bfloat16 ({', '.join(flags)})"
        return False, "the processor only emulates bfloat16"
    return False, f"not measured on {device.type}"

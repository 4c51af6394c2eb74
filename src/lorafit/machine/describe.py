"""What a run ran on: versions, hardware, threads, and the command that started it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys

import torch

from lorafit.machine.environment import Environment
from lorafit.machine.memory import memory
from lorafit.machine.processor import processor, usable_cores

_PACKAGES = (
    "lorafit", "torch", "transformers", "datasets", "accelerate", "tokenizers", "safetensors",
    "huggingface_hub", "numpy", "peft",
)  # fmt: skip
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "KMP_AFFINITY", "GOMP_CPU_AFFINITY")


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _gpus() -> list[str]:
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ["Apple MPS"] if torch.backends.mps.is_available() else []


def describe() -> Environment:
    """Says what this process runs on.

    ``memory_bytes`` and ``cores`` are what this process may use: all of the machine's, or the
    share of the container it runs in.
    """
    return {
        "command": shlex.join([sys.executable, *sys.argv]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
        "cpu": processor().name or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "memory_bytes": memory().total,
        "gpus": _gpus(),
        "threads": {
            "torch": torch.get_num_threads(),
            **{name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        },
    }

"""Seeding: the same seed gives the same adapter."""

from __future__ import annotations

import os

import torch
from accelerate.utils import set_seed


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seeds every random generator that training draws from.

    Call it before the adapter and a new head are initialised, not only before the loop:
    otherwise two runs with the same seed start from different adapters.

    Scope: Python's ``random``, NumPy's global generator and torch's generators on all
    devices. On a CPU, the same seed, versions, hardware and number of threads give the same
    bits. On a GPU some kernels add in varying order unless ``deterministic`` is set. The order
    of the batches does not depend on the generators at all: it is a function of the seed and
    the epoch.

    Args:
        seed: Not negative.
        deterministic: Also make torch use deterministic kernels only; an operation that has
            none raises. This is a process-wide switch of torch, set or cleared by each call.
    """
    set_seed(seed)
    if deterministic:
        # cuBLAS reads this when it first starts; without it torch refuses to multiply.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)

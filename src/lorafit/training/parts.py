"""Micro batches in parts: what happens when one does not fit into memory.

A micro batch is cut in two, both halves in four, and so on: the step still has all its examples,
each with the same weight, so the effective batch and the order of the data stay. Only the sum is
taken in another order. The first attempt leaves nothing: the generators are put back.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from lorafit.engine.halving import is_out_of_memory
from lorafit.errors import TrainingError

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


def in_parts(batch: Sequence[T], parts: int) -> list[Sequence[T]]:
    """A micro batch as so many of nearly equal size; of fewer examples as many as there are."""
    size = max(1, math.ceil(len(batch) / parts))
    return [batch[at : at + size] for at in range(0, len(batch), size)]


def fitting(compute: Callable[[int], R], parts: int, largest: int, step: int) -> tuple[R, int]:
    """Computes with micro batches in as few parts as memory allows.

    Args:
        compute: Called with the number of parts.
        parts: To begin with.
        largest: Examples of the largest micro batch.
        step: Number of the step, for what is said.

    Returns:
        What was computed, and with how many parts.

    Raises:
        TrainingError: There is not even memory for one example.
    """
    while True:
        states = _generators()
        try:
            return compute(parts), parts
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if parts >= largest:
                raise TrainingError(
                    f"out of memory in step {step}, with one example at a time. Use a shorter "
                    "data.max_length, a smaller rank or fewer target modules."
                ) from error
        # Out of the handler, where the traceback held the tensors of the attempt.
        parts *= 2
        _put_back(states)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning(
            "out of memory in step %d: micro batches of %d examples from here on, %d for each one "
            "before; the effective batch stays the same",
            step,
            math.ceil(largest / parts),
            parts,
        )


def _generators() -> tuple[torch.Tensor, list[torch.Tensor]]:
    used = torch.cuda.is_available()
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if used else []


def _put_back(states: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(states[0])
    if states[1]:
        torch.cuda.set_rng_state_all(states[1])

"""Batches without gradients that do not fit into memory: computed in halves.

What a model says of an example does not depend on the batch it is in, so that only the number of
examples at a time changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from lorafit.errors import TrainingError

log = logging.getLogger(__name__)

R = TypeVar("R")


class Halving:
    """Computes batches, from the first that did not fit on in smaller ones."""

    def __init__(self) -> None:
        self._most: int | None = None

    def of(
        self, batch: list[int], compute: Callable[[list[int]], R]
    ) -> Iterator[tuple[list[int], R]]:
        """The parts of a batch, in its order, with what was computed of each.

        Args:
            batch: Indices of examples.
            compute: Takes some of them.

        Raises:
            TrainingError: There is not even memory for one.
        """
        at = 0
        while at < len(batch):
            part = batch[at : at + (self._most or len(batch))]
            found = self._tried(part, compute)
            if found is not None:
                yield part, found[0]
                at += len(part)

    def _tried(self, part: list[int], compute: Callable[[list[int]], R]) -> tuple[R] | None:
        """What was computed; ``None``: there was no room, and from here on fewer are taken."""
        try:
            return (compute(part),)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise TrainingError(
                    "out of memory with one example at a time. Close other programs, or use a "
                    "shorter --max-length or a smaller model."
                ) from error
        # Out of the handler, where the traceback held the tensors of the attempt.
        self._most = -(-len(part) // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning(
            "out of memory with %d examples at a time: %d from here on; the answers stay the same",
            len(part),
            self._most,
        )
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left; torch says the latter in words only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "DefaultCPUAllocator: can't allocate memory" in str(error)

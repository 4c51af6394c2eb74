"""Dropout from a counter: a mask is a function of (seed, row, column), never stored.

Backward draws the same mask again, results repeat for a seed whatever the number of
threads, and it costs a few integer operations where ``torch.bernoulli`` runs on one thread.
native/dropout.h is the same function in C++.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

_MASK32 = 0xFFFFFFFF
STEPS = 1 << 16
"""Probabilities are rounded to multiples of 1 / 65536."""


def _hash(x: torch.Tensor) -> torch.Tensor:
    """The 32-bit integer hash "lowbias32" on int64 tensors that hold 32-bit values."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK32
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK32
    return x ^ (x >> 16)


@dataclass(frozen=True)
class Drop:
    """One dropout of one pass.

    Attributes:
        p: Probability that an element is zeroed, below 1.
        seed: 32 bits; another seed for every dropout of every pass.
    """

    p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.p < 1.0:
            raise ValueError(f"dropout probability is {self.p}; it has to be in [0, 1)")

    @cached_property
    def threshold(self) -> int:
        """An element is zeroed when its 16 random bits are below this."""
        return min(round(self.p * STEPS), STEPS - 1)

    @cached_property
    def keep_scale(self) -> float:
        """What kept elements are multiplied by: the mean stays the same."""
        return STEPS / (STEPS - self.threshold)

    def kept(self, rows: torch.Tensor, columns: int) -> torch.Tensor:
        """The mask of these rows (int64 numbers): bool ``(len(rows), columns)``."""
        keys = _hash((rows * 0x9E3779B9 + self.seed) & _MASK32)
        column = torch.arange(columns)
        counter = (column // 32) * 16 + column % 16
        bits = _hash((keys[:, None] + counter) & _MASK32)
        half = torch.where(column % 32 < 16, bits & 0xFFFF, bits >> 16)
        return half >= self.threshold

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Dropout of ``x`` ``(rows, columns)``; also its own backward."""
        if not self.threshold:
            return x
        kept = self.kept(torch.arange(x.shape[0]), x.shape[1])
        return torch.where(kept, x * self.keep_scale, 0.0)


class Seeds:
    """Hands out seeds for the dropouts of one pass, in order."""

    def __init__(self, start: int | None) -> None:
        self._start = start
        self._handed_out = 0

    @classmethod
    def from_torch(cls) -> Seeds:
        """Starts from torch's generator: ``torch.manual_seed`` and resuming govern it.

        The first dropout that drops something asks the generator; a pass without one leaves
        it as it is, as torch does.
        """
        return cls(None)

    def drop(self, p: float) -> Drop:
        """The next dropout."""
        self._handed_out += 1
        if self._start is None:
            if p == 0.0:
                return Drop()
            self._start = int(torch.randint(0, _MASK32, (), dtype=torch.int64))
        # Odd: all 2^32 seeds before one returns.
        return Drop(p, (self._start + self._handed_out * 0x632BE5AB) & _MASK32)

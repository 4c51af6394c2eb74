"""Sequences of different lengths laid end to end, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch


@dataclass(frozen=True)
class Packing:
    """Where each sequence lies among the packed tokens.

    Attributes:
        lengths: Tokens of each sequence, all positive.
        starts: int32 ``(sequences + 1,)``: first token of each sequence, then the total.
        tokens: All tokens.
    """

    lengths: tuple[int, ...]
    starts: torch.Tensor
    tokens: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Packing:
        """Packs sequences of these lengths.

        Raises:
            ValueError: There is no sequence, or an empty one.
        """
        if not lengths or min(lengths) < 1:
            raise ValueError(f"sequence lengths are {list(lengths)}; each has to be at least 1")
        ends = list(accumulate(lengths))
        if ends[-1] >= 2**31:
            raise ValueError(f"{ends[-1]} tokens do not fit one batch")
        return cls(tuple(lengths), torch.tensor([0, *ends], dtype=torch.int32), ends[-1])

    @property
    def sequences(self) -> int:
        """How many sequences."""
        return len(self.lengths)

    def slices(self) -> list[slice]:
        """The rows of each sequence."""
        ends = list(accumulate(self.lengths))
        return [slice(end - n, end) for end, n in zip(ends, self.lengths, strict=True)]

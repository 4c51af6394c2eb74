"""Rows in portions, so that what a tokenizer notes of each token is not there of all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

ROWS = 1_000
CHARACTERS = 1 << 23
"""A fast tokenizer notes about 150 bytes of each token: 300 MB at four characters a token."""


def portions(
    sizes: Sequence[int], rows: int = ROWS, characters: int = CHARACTERS
) -> Iterator[slice]:
    """Slices of some rows with some characters in all, at most; a longer row is alone.

    Args:
        sizes: Characters of each row.
        rows: Most rows of a slice.
        characters: Most characters of one.
    """
    first = held = 0
    for at, size in enumerate(sizes):
        if at > first and (at - first == rows or held + size > characters):
            yield slice(first, at)
            first, held = at, 0
        held += size
    if first < len(sizes):
        yield slice(first, len(sizes))

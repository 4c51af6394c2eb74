"""The phases of a search in words that need no knowledge of how it searches."""

from __future__ import annotations

SPOKEN = {
    "head": "where the head begins (read once)",
    "start": "score before training",
    "learning rate": "learning rate (short trials)",
    "length": "number of steps",
    "trunk": "main training",
    "rank": "rank (short trials)",
    "modules": "modules (short trials)",
    "decay": "scores of the last steps",
    "pruning": "smaller ranks, fewer modules (scores only)",
    "scale": "strength of the update",
    "whole runs": "whole runs",
}
"""Name of a phase, as in ``choices.json``, to what it is."""


def spoken(phase: str) -> str:
    """What a phase is; one that is not known (of a strategy elsewhere) keeps its name."""
    return SPOKEN.get(phase, phase)

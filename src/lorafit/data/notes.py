"""What is said of the data while it is read, kept for the run's record."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

SPEAKERS = ("lorafit.data", "lorafit.tasks")
"""Packages that speak of the data."""


@dataclass
class Notes:
    """Sentences in the order in which they were said."""

    warnings: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    def add(self, record: logging.LogRecord) -> None:
        """Keeps a message once."""
        kept = self.warnings if record.levelno >= logging.WARNING else self.facts
        if (message := record.getMessage()) not in kept:
            kept.append(message)


@contextmanager
def noting() -> Iterator[Notes]:
    """Keeps what is said of the data inside, whatever part of it is shown."""
    notes = Notes()
    with ExitStack() as stack:
        for name in SPEAKERS:
            stack.enter_context(_overheard(logging.getLogger(name), notes))
        yield notes


@contextmanager
def _overheard(speaker: logging.Logger, notes: Notes) -> Iterator[None]:
    handler = _Listener(speaker, notes)
    level, propagate = speaker.level, speaker.propagate
    speaker.addHandler(handler)
    speaker.setLevel(logging.INFO)
    speaker.propagate = False
    try:
        yield
    finally:
        speaker.removeHandler(handler)
        speaker.setLevel(level)
        speaker.propagate = propagate


class _Listener(logging.Handler):
    """Notes everything, and passes on what would have been shown without it."""

    def __init__(self, speaker: logging.Logger, notes: Notes) -> None:
        super().__init__(logging.INFO)
        self._shown = speaker.getEffectiveLevel()
        self._parent = speaker.parent if speaker.propagate else None
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.add(record)
        if self._parent is not None and record.levelno >= self._shown:
            self._parent.callHandlers(record)

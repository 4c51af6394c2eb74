"""What is found in the data while they are read, chosen from, carved and encoded.

Whoever finds something hands it to the `Findings` it was given, which say it at once, so that it
stands before an error that follows, and keep it for the run's record (``data.json``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Findings:
    """Sentences in the order in which they were found.

    Attributes:
        warnings: What may be wrong, or was left out.
        facts: What was chosen and counted.
    """

    warnings: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    def warn(self, sentence: str) -> None:
        """Says a warning, and keeps it once."""
        log.warning("%s", sentence)
        self._keep(self.warnings, sentence)

    def note(self, sentence: str) -> None:
        """Says a fact, and keeps it once."""
        log.info("%s", sentence)
        self._keep(self.facts, sentence)

    def warn_or_note(self, warning: bool, sentence: str) -> None:
        """Says what is a warning from some size on."""
        (self.warn if warning else self.note)(sentence)

    def take(self, others: Findings) -> None:
        """Keeps what others have said already."""
        for sentence in others.warnings:
            self._keep(self.warnings, sentence)
        for sentence in others.facts:
            self._keep(self.facts, sentence)

    def _keep(self, kept: list[str], sentence: str) -> None:
        if sentence not in kept:
            kept.append(sentence)


class _Unkept(Findings):
    """Says everything and keeps nothing: there is no run whose record it could go to."""

    def _keep(self, kept: list[str], sentence: str) -> None:
        """Forgets it: one object serves everyone, for as long as the program runs."""


UNKEPT: Findings = _Unkept()
"""For reading without a record: a prediction, an evaluation, a part used alone."""

"""Always the same answer, whatever the text says: the least that a model has to be better than."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Constant:
    """The answer of a task that looks at no text, the best there is on some examples.

    Attributes:
        answer: Which, as in "always answering ...": ``"fresh"``, the mean, no label.
        kept: What `Task.keep` would return for it, ``(n, ...)``.
        way: What leads to it, as in "0.58 by ..."; ``""``: always answering ``answer``.
        sentence: What it comes to, where the headline metric does not say it: of tags, how many
            words are right and how many spans are found; ``""``: it does.
        strongest: As ``kept``, of the constant answer that is best by the headline metric, where
            that is another one; ``None``: it is this one.
    """

    answer: str
    kept: np.ndarray
    way: str = ""
    sentence: str = ""
    strongest: np.ndarray | None = None

    @property
    def by(self) -> str:
        """What leads to it, as in "no better than ..."."""
        return self.way or f"always answering {self.answer}"

    @property
    def yardstick(self) -> np.ndarray:
        """What a model that has learned something is better than by the headline metric."""
        return self.kept if self.strongest is None else self.strongest

"""What a model predicted of each example, as people read it: what ``predictions.parquet`` keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Predicted:
    """Answers in the order of the examples.

    Attributes:
        labels: The right answers: a name, a list of names, a number.
        answers: The model's, in the same form.
        right: Whether each is right, ``(n,)`` bool; ``None``: no answer is simply right or wrong.
        probability: The model's probability of its answer, ``(n,)``; ``None``: it has none.
        probabilities: Of each example: of every label, ``(n, labels)``, or of the tag of every
            word, a list each; ``None``: there are none.
    """

    labels: list[Any]
    answers: list[Any]
    right: np.ndarray | None = None
    probability: np.ndarray | None = None
    probabilities: np.ndarray | list[Any] | None = None

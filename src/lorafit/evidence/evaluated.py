"""What `lorafit.evaluate` returns: the numbers, and what both models said of each row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lorafit.evidence.evaluation import Evaluation
from lorafit.evidence.predictions import Predictions

if TYPE_CHECKING:
    import pandas as pd


class Evaluated(dict[str, Any]):
    """An evaluation: the content of ``eval.json``, with the predictions it was made of.

    Args:
        content: What ``eval.json`` holds.
        said: The predictions, as `lorafit.pipeline.predictions.table` makes them.
        path: Folder where both are kept; ``None``: they are not.
    """

    def __init__(self, content: dict[str, Any], said: pa.Table, path: Path | None = None) -> None:
        super().__init__(content)
        self.path = path
        self._said = Predictions(said)

    @property
    def evaluation(self) -> Evaluation:
        """The same, typed: ``found.evaluation.tuned["accuracy"].low``."""
        return Evaluation.from_json(dict(self))

    @property
    def predictions(self) -> pd.DataFrame:
        """What base and tuned model said of each row; the columns of `Run.predictions`."""
        return self._said.frame()

    def mistakes(self, most: int | None = None) -> pd.DataFrame:
        """The rows that the tuned model is wrong on, the surest first; see `Run.mistakes`.

        Args:
            most: How many; ``None``: all.
        """
        return self._said.frame("mistakes").iloc[:most]

    def flips(self) -> pd.DataFrame:
        """The rows where one model is right and the other is not; see `Run.flips`."""
        return self._said.frame("flips")

"""``predictions.parquet``: what base and tuned model said of each test example.

Read with pyarrow alone, so that commands that only look at files stay light.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from lorafit.errors import DataError
from lorafit.evidence.json import Json
from lorafit.units import size

if TYPE_CHECKING:
    import pandas as pd

FILE = "predictions.parquet"
LABELS = b"label_names"
"""Key of the file's metadata: the labels in the order of the probabilities, as a JSON list."""

TEXTS = ("text", "text_1", "text_2")
"""Columns with texts: one, or the two of a pair."""

Kind = Literal["answers", "numbers", "texts"]
"""Answers are right or wrong, numbers are off by some amount, texts have a loss."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of a run, one row a test example.

    Attributes:
        table: The columns, as far as they were read.
    """

    table: pa.Table

    @classmethod
    def read(cls, file: Path, columns: Sequence[str] | None = None) -> Predictions:
        """Reads the file.

        Args:
            file: The file.
            columns: Names of columns that are wanted where there are any; ``None``: all.

        Raises:
            OSError: It is missing or cannot be read.
            ValueError: It is damaged (``pa.ArrowInvalid`` is a `ValueError`), or unpacks to more
                than files of its size do (`lorafit.unpacked.usual_limit`).
        """
        # Here: listing runs does without.
        from lorafit.unpacked import TooLargeError, read_parquet, usual_limit

        content = file.read_bytes()
        limit = usual_limit(len(content))
        try:
            found = read_parquet(content, limit, file, columns=columns)
        except TooLargeError as error:
            raise ValueError(f"it unpacks to more than {size(limit)}") from error
        except DataError as error:
            raise ValueError(str(error)) from error
        for name, holds in _HOLDS.items():
            if name in found.column_names and not holds(found.schema.field(name).type):
                raise ValueError(f"its column {name} holds {found.schema.field(name).type}")
        return cls(found)

    @property
    def kind(self) -> Kind:
        """What its answers are."""
        if "tuned_right" in self.table.column_names:
            return "answers"
        label = (
            self.table.schema.field("label").type if "label" in self.table.column_names else None
        )
        return "numbers" if label is not None and pa.types.is_floating(label) else "texts"

    @property
    def text_columns(self) -> list[str]:
        """Names of the columns with texts; none where they were not kept."""
        return [name for name in self.table.column_names if name in TEXTS]

    @property
    def label_names(self) -> list[str]:
        """The labels in the order of the probabilities; none: there are none."""
        found = json.loads((self.table.schema.metadata or {}).get(LABELS, b"[]"))
        return [str(name) for name in found]

    def mistakes(self) -> np.ndarray:
        """Rows the tuned model is wrong on, the surest first; of numbers and texts the worst.

        Returns:
            ``(k,)`` places in the table: wrong answers by the probability the model gave them;
            numbers by how far they are off; texts by the loss of a token.
        """
        if self.kind == "answers":
            wrong = np.flatnonzero(~self._flags("tuned_right"))
            return _falling(wrong, self._numbers("tuned_probability"))
        if self.kind == "numbers":
            off = np.abs(self._numbers("tuned") - self._numbers("label"))
            return _falling(np.flatnonzero(off > 0), off)
        loss = self._numbers("tuned_loss")
        return _falling(np.flatnonzero(np.isfinite(loss)), loss)

    def flips(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows that tuning set right, and rows that it spoiled: places in the table.

        The surest answers of the tuned model come first. Both are empty where answers are not
        simply right or wrong.
        """
        if self.kind != "answers" or "base_right" not in self.table.column_names:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        base, tuned = self._flags("base_right"), self._flags("tuned_right")
        sure = self._numbers("tuned_probability")
        gained, lost = np.flatnonzero(~base & tuned), np.flatnonzero(base & ~tuned)
        return _falling(gained, sure), _falling(lost, sure)

    def frame(self, part: Literal["mistakes", "flips"] | None = None) -> pd.DataFrame:
        """The rows as a DataFrame, whose ``attrs["label_names"]`` are `label_names`.

        Args:
            part: ``mistakes`` or ``flips`` alone, these with a column ``flip`` that says which
                way: ``gained`` or ``lost``; ``None``: all rows.
        """
        found: pd.DataFrame = self.table.to_pandas()
        found.attrs["label_names"] = self.label_names
        if part is None:
            return found
        if part == "mistakes":
            return found.iloc[self.mistakes()]
        gained, lost = self.flips()
        names = ["gained"] * len(gained) + ["lost"] * len(lost)
        return found.iloc[np.concatenate([gained, lost])].assign(flip=names)

    def rows(self, places: Sequence[int] | np.ndarray) -> Iterator[Json]:
        """Some rows as dicts."""
        # Row by row: an array of places would load pandas.
        for place in places:
            [row] = self.table.slice(int(place), 1).to_pylist()
            yield row

    def _flags(self, name: str) -> np.ndarray:
        return np.array(self.table.column(name).to_pylist(), dtype=bool)

    def _numbers(self, name: str) -> np.ndarray:
        """A column of numbers, ``(n,)`` float64; NaN where there is none."""
        if name not in self.table.column_names:
            return np.full(len(self.table), np.nan)
        return np.array(self.table.column(name).to_pylist(), dtype=np.float64)


_HOLDS = {
    **{f"{side}_right": pa.types.is_boolean for side in ("base", "tuned")},
    **{
        f"{side}_{name}": pa.types.is_floating
        for side in ("base", "tuned")
        for name in ("probability", "loss")
    },
}
"""What columns have to hold."""


def _falling(places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The places, that of the largest value first; of equal ones the first in the data."""
    found: np.ndarray = places[np.argsort(-values[places], kind="stable")]
    return found

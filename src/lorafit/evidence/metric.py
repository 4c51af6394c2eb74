"""What a metric is, for whoever shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Literal

from lorafit.evidence.interval import Number
from lorafit.evidence.json import Json

_PROPER = {
    **{"f1": "F1", "r2": "R²", "bleu": "BLEU", "rouge": "ROUGE", "rmse": "RMSE"},
    **{"mcc": "Matthews correlation", "matthews": "Matthews"},
    **{"nll": "negative log-likelihood", "spearman": "Spearman", "pearson": "Pearson"},
}
"""Abbreviations and names as they are written, for metrics that nobody described."""


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is spoken of; its name is the key it stands under.

    Attributes:
        title: As in the middle of a sentence: ``macro F1``.
        note: What it means, for a reader who does not know.
        greater_is_better: Whether a larger number is the better one; ``None``: unknown.
        form: ``share``: of examples that are right, shown in percent; ``number``: three decimals.
        low: The smallest possible value; ``None``: there is none.
        high: The largest possible value; ``None``: there is none.
        unit: What it is counted in; ``""``: it has no unit, or that of the data.
        hub: What the Hub calls it; ``None``: it has no name there.
    """

    title: str
    note: str = ""
    greater_is_better: bool | None = True
    form: Literal["share", "number"] = "number"
    low: Number | None = None
    high: Number | None = None
    unit: str = ""
    hub: str | None = None

    @classmethod
    def unknown(cls, name: str) -> MetricInfo:
        """Of a metric that nobody described."""
        words = [_PROPER.get(word, word) for word in name.split("_")]
        return cls(" ".join(words), greater_is_better=None)

    @property
    def heading(self) -> str:
        """The title as a line begins with it: ``Macro F1``."""
        return self.title[:1].upper() + self.title[1:]

    @property
    def is_share(self) -> bool:
        """Whether it counts examples that are right."""
        return self.form == "share"

    @property
    def difference_bounds(self) -> tuple[float | None, float | None]:
        """The smallest and the largest possible difference of two values."""
        if self.low is None or self.high is None:
            return None, None
        return self.low - self.high, self.high - self.low

    def to_dict(self) -> Json:
        """JSON values; what is as usual is left out."""
        usual = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

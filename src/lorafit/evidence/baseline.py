"""What answers come to that need no model: the yardstick of the headline."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from lorafit.evidence.interval import Number, Paired


class Baseline(BaseModel):
    """Always the same answer, the best there is on the examples that were scored.

    Attributes:
        answer: Which, as in "always answering ...": ``"fresh"``, the mean, no label.
        metrics: What it comes to, by metric.
        way: What leads to it, as in "0.58 by ..."; ``""``: always answering ``answer``.
        sentence: What it comes to, where the headline metric does not say it (tags: how many
            words are right, how many spans are found); ``""``: the metric does.
        ahead: The headline metric of the tuned model less that of the best constant answer;
            ``None``: a file of before has none.
    """

    model_config = ConfigDict(frozen=True)

    answer: str
    metrics: dict[str, Number] = Field(default_factory=dict)
    way: str = ""
    sentence: str = ""
    ahead: Paired | None = None

    @property
    def by(self) -> str:
        """What leads to it, as in "0.58 by ..."."""
        return self.way or f"always answering {self.answer}"

"""What answers come to that need no model: the yardstick of the headline."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from lorafit.evidence.interval import Number


class Baseline(BaseModel):
    """Always the same answer, the best there is on the examples that were scored.

    Attributes:
        answer: Which, as in "always answering ...": ``"fresh"``, the mean, no label.
        metrics: What it comes to, by metric.
    """

    model_config = ConfigDict(frozen=True)

    answer: str
    metrics: dict[str, Number] = Field(default_factory=dict)

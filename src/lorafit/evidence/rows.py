"""The rows of an evaluation: made once, shown by terminal, report and model card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lorafit.evidence.evaluation import Evaluation
from lorafit.evidence.interval import Difference, Interval
from lorafit.evidence.metric import MetricInfo

Verdict = Literal["better", "worse", "unclear", "unknown"]


@dataclass(frozen=True)
class MetricRow:
    """One metric: base, tuned, and their difference.

    Attributes:
        name: Its key in ``eval.json``.
        info: What it is.
        base: The untuned model's; ``None``: not measured.
        tuned: The tuned model's.
        difference: Tuned minus base, paired.
    """

    name: str
    info: MetricInfo
    base: Interval | None
    tuned: Interval | None
    difference: Difference | None

    @property
    def label(self) -> str:
        """The name as a word."""
        return self.name.replace("_", " ")

    @property
    def verdict(self) -> Verdict:
        """Whether tuned is better than base, as far as the interval tells."""
        found = self.difference
        if found is None or not found.complete or self.info.greater_is_better is None:
            return "unknown"
        if not found.excludes(0.0):
            return "unclear"
        return "better" if (found.value > 0) == self.info.greater_is_better else "worse"


def metric_rows(evaluation: Evaluation) -> list[MetricRow]:
    """A row for each metric, the headline one first."""
    names = dict.fromkeys([*evaluation.tuned, *evaluation.base])
    return [
        MetricRow(
            name,
            evaluation.info(name),
            evaluation.base.get(name),
            evaluation.tuned.get(name),
            evaluation.paired.get(name),
        )
        for name in sorted(names, key=lambda name: name != evaluation.metric)
    ]

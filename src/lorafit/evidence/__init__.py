"""What was measured and chosen, as typed records: the files of a run, and the rows that are shown.

Nothing here computes or draws. `lorafit.evaluation`, `lorafit.tune` and `lorafit.comparison`
fill these records, the run folder keeps them as JSON, and terminal, report and model card are
three skins over them.
"""

from __future__ import annotations

from lorafit.evidence.baseline import Baseline
from lorafit.evidence.choices import Choice, Choices
from lorafit.evidence.comparison import Arm, ComparisonRecord
from lorafit.evidence.course import Course
from lorafit.evidence.evaluation import Evaluation, Generation, HandOff, Sample
from lorafit.evidence.interval import Difference, Interval
from lorafit.evidence.metric import MetricInfo
from lorafit.evidence.record import SCHEMA, Record
from lorafit.evidence.tables import Table

__all__ = [
    "SCHEMA",
    "Arm",
    "Baseline",
    "Choice",
    "Choices",
    "ComparisonRecord",
    "Course",
    "Difference",
    "Evaluation",
    "Generation",
    "HandOff",
    "Interval",
    "MetricInfo",
    "Record",
    "Sample",
    "Table",
]

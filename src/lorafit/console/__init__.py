"""What lorafit shows in a terminal.

Results go to standard output, everything said along the way (what was guessed, progress,
warnings, errors) to standard error, so that output can be piped. Colours and lines are
for terminals; elsewhere the same text comes plain and is never cut.
"""

from __future__ import annotations

from lorafit.console.comparison import show_comparison
from lorafit.console.findings import show_findings
from lorafit.console.output import saying
from lorafit.console.plan import show_plan
from lorafit.console.preview import show_preview
from lorafit.console.result import prediction_line, show_evaluation, show_result
from lorafit.console.runs import show_runs
from lorafit.console.shrunk import show_shrunk

__all__ = [
    "prediction_line",
    "saying",
    "show_comparison",
    "show_evaluation",
    "show_findings",
    "show_plan",
    "show_preview",
    "show_result",
    "show_runs",
    "show_shrunk",
]

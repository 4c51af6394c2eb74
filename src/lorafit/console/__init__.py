"""What lorafit shows in a terminal.

Results go to standard output, everything said along the way (what was guessed, progress,
warnings, errors) to standard error, so that output can be piped. Colours and lines are
for terminals; elsewhere the same text comes plain and is never cut.

The names below are imported on first use, so that a command loads only what it shows.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorafit.console.comparison import show_comparison, show_comparison_plan
    from lorafit.console.findings import show_findings
    from lorafit.console.output import saying
    from lorafit.console.plan import show_plan
    from lorafit.console.preview import show_preview
    from lorafit.console.result import prediction_line, show_evaluation, show_result
    from lorafit.console.runs import show_runs
    from lorafit.console.shrunk import show_shrunk

_HOMES = {
    "prediction_line": "result",
    "saying": "output",
    "show_comparison": "comparison",
    "show_comparison_plan": "comparison",
    "show_evaluation": "result",
    "show_findings": "findings",
    "show_plan": "plan",
    "show_preview": "preview",
    "show_result": "result",
    "show_runs": "runs",
    "show_shrunk": "shrunk",
}

__all__ = [
    "prediction_line",
    "saying",
    "show_comparison",
    "show_comparison_plan",
    "show_evaluation",
    "show_findings",
    "show_plan",
    "show_preview",
    "show_result",
    "show_runs",
    "show_shrunk",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

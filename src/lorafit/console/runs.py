"""What `runs` shows: one line a run, or a few where the terminal is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorafit.console.output import fits, show, show_table

if TYPE_CHECKING:
    from lorafit.run import RunSummary


def show_runs(runs: Sequence[RunSummary], folder: Path) -> None:
    """Shows runs with their state and headline metric."""
    if not runs:
        show(f'There are no runs in "{folder}". Make one with: lorafit train MODEL DATA')
        return
    rows = [
        (
            run.name,
            run.status,
            run.created_at[:16].replace("T", " "),
            "" if run.steps is None else str(run.steps),
            run.metric or "",
            _metric(run.base),
            _metric(run.tuned),
            run.model,
            run.data,
        )
        for run in runs
    ]
    header = ["run", "status", "created (UTC)", "steps", "metric", "base", "tuned", "model", "data"]
    if fits(rows, header):
        show_table(rows, header)
        return
    for run, *cells in rows:
        show(run, style="bold")
        facts = zip(header[1:], cells, strict=True)
        show_table([(name, cell) for name, cell in facts if cell], indent=2)


def _metric(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"

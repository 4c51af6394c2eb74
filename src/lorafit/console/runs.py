"""What `runs` shows: one line a run, or a few where the terminal is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorafit.console.output import show
from lorafit.console.tables import fits, show_table

if TYPE_CHECKING:
    from lorafit.run.folder import RunSummary
    from lorafit.run.listing import ComparisonSummary


def show_runs(
    runs: Sequence[RunSummary], folder: Path, comparisons: Sequence[ComparisonSummary] = ()
) -> None:
    """Shows runs with their state and headline metric, then comparisons.

    Args:
        runs: The runs.
        folder: Where they are; named if there is nothing.
        comparisons: The comparisons beside them.
    """
    if not runs and not comparisons:
        show(f'There are no runs in "{folder}". Make one with: lorafit train MODEL DATA')
    if runs:
        _show_runs(runs)
    if runs and comparisons:
        show()
    if comparisons:
        _show_comparisons(comparisons)


def _show_runs(runs: Sequence[RunSummary]) -> None:
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
    _show_listed(rows, header)


def _show_comparisons(comparisons: Sequence[ComparisonSummary]) -> None:
    rows = [
        (
            one.name,
            one.status,
            one.created_at[:16].replace("T", " "),
            "" if one.methods is None else str(one.methods),
            "" if one.seeds is None else str(one.seeds),
            one.metric or "",
            one.recommended or "",
            _metric(one.value),
            one.model,
            one.data,
        )
        for one in comparisons
    ]
    header = ["comparison", "status", "created (UTC)", "methods", "seeds", "metric"]
    _show_listed(rows, [*header, "recommended", "tuned", "model", "data"])


def _show_listed(rows: Sequence[tuple[str, ...]], header: Sequence[str]) -> None:
    """One line each where the terminal is wide enough, else a few."""
    if fits(rows, header):
        show_table(rows, header)
        return
    for name, *cells in rows:
        show(name, style="bold")
        facts = zip(header[1:], cells, strict=True)
        show_table([(fact, cell) for fact, cell in facts if cell], indent=2)


def _metric(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"

"""What is in a folder of runs: runs and comparisons, in one line each.

Reads only files, and of damaged ones nothing: the list always comes.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafit.errors import RunError
from lorafit.run import Run, atomic
from lorafit.run.folder import RunSummary
from lorafit.run.locks import is_locked

REQUEST = "request.json"
"""What a comparison was asked for; the folder appears with it."""
COMPARISON = "compare.json"
"""What came of it; written last."""


@dataclass(frozen=True)
class ComparisonSummary:
    """One line of `lorafit runs` for a comparison.

    Attributes:
        name: Folder name.
        status: ``"done"``, ``"training"``, or ``"interrupted"``: no process goes on with it.
        created_at: ISO 8601, UTC.
        model: Model as the user named it.
        data: Data as the user named it.
        methods: How many methods are compared; ``None``: not known.
        seeds: Runs of each.
        metric: Name of the headline metric, ``None`` before the end.
        recommended: The method that the comparison recommends.
        value: Its headline metric.
    """

    name: str
    status: str
    created_at: str
    model: str
    data: str
    methods: int | None = None
    seeds: int | None = None
    metric: str | None = None
    recommended: str | None = None
    value: float | None = None


def list_runs(dir: str | Path = "runs") -> Sequence[RunSummary]:
    """The runs in a folder, oldest first."""
    return [run.summary for run in Run.list(dir)]


def list_comparisons(dir: str | Path = "runs") -> Sequence[ComparisonSummary]:
    """The comparisons in a folder, oldest first; other folders are passed over."""
    folder = Path(dir)
    if not folder.is_dir():
        return []
    found = [_summary(path) for path in folder.iterdir() if (path / REQUEST).is_file()]
    return sorted(found, key=lambda one: (one.created_at, one.name))


def _summary(folder: Path) -> ComparisonSummary:
    begun = datetime.datetime.fromtimestamp((folder / REQUEST).stat().st_mtime, datetime.UTC)
    request, result = _read(folder / REQUEST), _read(folder / COMPARISON)
    status = "training" if is_locked(folder) else "done" if result else "interrupted"
    config = _mapping(request.get("config"))
    arms, seeds = request.get("arms"), request.get("seeds")
    best = _mapping(result.get("recommendation")).get("method")
    row = _mapping(_mapping(result.get("arms")).get(str(best)))
    value = _mapping(row.get("metric")).get("value")
    metric = result.get("metric")
    return ComparisonSummary(
        name=folder.resolve().name,
        status=status,
        created_at=begun.isoformat(timespec="seconds"),
        model=str(_mapping(config.get("model")).get("name_or_path", "?")),
        data=str(_mapping(config.get("data")).get("path", "?")),
        methods=len(arms) if isinstance(arms, Mapping) else None,
        seeds=seeds if isinstance(seeds, int) else None,
        metric=metric if isinstance(metric, str) else None,
        recommended=best if isinstance(best, str) else None,
        value=float(value) if isinstance(value, int | float) else None,
    )


def _read(file: Path) -> Mapping[str, Any]:
    content: Any = None
    with contextlib.suppress(RunError):
        content = atomic.read_json(file)
    return _mapping(content)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

"""``lorafit runs``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.app import command, echo_json
from lorafit.cli.flags import Debug, RunsDir
from lorafit.errors import RunError


@command("runs")
def runs(
    runs_dir: RunsDir = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object each.")] = False,
    debug: Debug = False,
) -> None:
    """List runs and comparisons, oldest first, with their results."""
    if runs_dir.exists() and not runs_dir.is_dir():
        raise RunError(f'"{runs_dir}" is a file; --runs-dir wants the folder of the runs.')
    if not runs_dir.exists() and runs_dir != Path("runs"):
        raise RunError(f'there is no folder "{runs_dir}".')

    from lorafit import console
    from lorafit.run.listing import list_comparisons, list_runs

    found, comparisons = list_runs(runs_dir), list_comparisons(runs_dir)
    if as_json:
        for kind, summaries in (("run", found), ("comparison", comparisons)):
            for summary in summaries:
                echo_json({"kind": kind} | asdict(summary))
    else:
        console.show_runs(found, runs_dir, comparisons)

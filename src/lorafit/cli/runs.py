"""``lorafit runs``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.app import command
from lorafit.cli.flags import Debug, RunsDir
from lorafit.errors import RunError


def runs(
    runs_dir: RunsDir = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a run.")] = False,
    debug: Debug = False,
) -> None:
    """List the runs, oldest first, with their results."""
    if runs_dir.exists() and not runs_dir.is_dir():
        raise RunError(f'"{runs_dir}" is a file; --runs-dir wants the folder of the runs.')
    if not runs_dir.exists() and runs_dir != Path("runs"):
        raise RunError(f'there is no folder "{runs_dir}".')

    from lorafit import console
    from lorafit.run import Run

    found = [run.summary for run in Run.list(runs_dir)]
    if as_json:
        for summary in found:
            typer.echo(json.dumps(asdict(summary)))
    else:
        console.show_runs(found, runs_dir)


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("runs")(command(runs))

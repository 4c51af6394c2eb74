"""``lorafit version``."""

from __future__ import annotations

import typer

from lorafit.cli.app import command, version
from lorafit.cli.flags import Debug


@command("version")
def show_version(debug: Debug = False) -> None:
    """Show the version, as `lorafit --version` does. `lorafit doctor` lists everything else."""
    typer.echo(version())

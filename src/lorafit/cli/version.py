"""``lorafit version``."""

from __future__ import annotations

from lorafit.cli.app import command, echo, version
from lorafit.cli.flags import Debug


@command("version")
def show_version(debug: Debug = False) -> None:
    """Show the version, as `lorafit --version` does. `lorafit doctor` lists everything else."""
    echo(version())

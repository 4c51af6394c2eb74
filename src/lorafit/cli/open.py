"""``lorafit open RUN``."""

from __future__ import annotations

from pathlib import Path

from lorafit.cli.app import command
from lorafit.cli.flags import Debug, RunArgument, RunsDir
from lorafit.cli.report import show_page


@command("open")
def open_page(run: RunArgument, runs_dir: RunsDir = Path("runs"), debug: Debug = False) -> None:
    """Open the page of RUN, or of a comparison, in the web browser: `report --open`."""
    show_page(run, runs_dir, in_browser=True)

"""``lorafit report RUN``."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.app import command, echo
from lorafit.cli.flags import Debug, RunArgument, RunsDir
from lorafit.errors import LorafitError, RunError


@command("report")
def report(
    run: RunArgument,
    in_browser: Annotated[
        bool, typer.Option("--open", help="Open the page in the web browser.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    debug: Debug = False,
) -> None:
    """Write the page of RUN, or of a comparison, anew from its files; print where it is.

    Works at any time, also while the run is training.
    """
    show_page(run, runs_dir, in_browser=in_browser)


def show_page(run: str, runs_dir: Path, *, in_browser: bool) -> None:
    """Writes a page, prints its path, and opens it.

    Args:
        run: The folder of a run or a comparison, or its name.
        runs_dir: Where names are looked up.
        in_browser: Open the page.

    Raises:
        RunError: There is no such folder, or files in it are damaged.
        LorafitError: There is no browser.
    """
    from lorafit.report.refresh import find_folder, refresh

    page = refresh(find_folder(run, runs_dir))
    echo(str(page.path))
    if page.removed:
        echo(f"removed what was left of training: {', '.join(page.removed)}", err=True)
    if page.problems:
        raise RunError(f"the page lacks what could not be read: {'; '.join(page.problems)}.")
    if in_browser and not webbrowser.open(page.path.resolve().as_uri()):
        raise LorafitError(f'no web browser was found. Open the page yourself: "{page.path}".')

"""``lorafit plan MODEL DATA``."""

from __future__ import annotations

from typing import Annotated

import typer

from lorafit.cli.app import command
from lorafit.cli.flags import Debug, Given, Quiet, with_settings


@command("plan")
@with_settings
def plan(
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Also show the settings left at their defaults.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
    given: Given,
) -> None:
    """Show what `train` would do: time, memory, parameters, and the settings with their origins.

    Nothing is trained.
    """
    settings = given.resolve()

    from lorafit import api, console

    with console.saying(quiet=quiet):
        console.show_plan(api.plan(config=settings), every=every)

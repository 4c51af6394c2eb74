"""``lorafit plan MODEL DATA``."""

from __future__ import annotations

from lorafit.cli.app import command
from lorafit.cli.flags import Debug, Given, Quiet, with_settings


@command("plan")
@with_settings
def plan(*, quiet: Quiet = False, debug: Debug = False, given: Given) -> None:
    """Show what `train` would do: every setting and its origin, parameters, time, memory.

    Nothing is trained.
    """
    settings = given.resolve()

    from lorafit import api, console

    with console.saying(quiet=quiet):
        console.show_plan(api.plan(config=settings))

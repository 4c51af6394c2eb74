"""``lorafit preview MODEL DATA``."""

from __future__ import annotations

import typer

from lorafit.cli.app import command
from lorafit.cli.flags import Debug, Given, Quiet, with_settings
from lorafit.errors import DataError


@command("preview")
@with_settings
def preview(*, quiet: Quiet = False, debug: Debug = False, given: Given) -> None:
    """Look at DATA the way MODEL will see it: columns, labels, lengths, examples.

    Nothing is trained. The exit code is 2 where `train` would stop because of the data.
    """
    settings = given.resolve()

    from lorafit import api, console

    with console.saying(quiet=quiet):
        found = api.preview(config=settings)
        console.show_preview(found)
    if found.truth is not None and found.truth.problems:
        raise typer.Exit(DataError.exit_code)

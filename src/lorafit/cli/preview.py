"""``lorafit preview MODEL DATA``."""

from __future__ import annotations

import typer

from lorafit.cli.app import command
from lorafit.cli.flags import Debug, Given, Quiet, with_settings


def preview(*, quiet: Quiet = False, debug: Debug = False, given: Given) -> None:
    """Look at DATA the way MODEL will see it: columns, labels, lengths, examples.

    Nothing is trained.
    """
    config = given.resolve().config

    from lorafit import api, console

    with console.saying(quiet=quiet):
        console.show_preview(api.preview(config.model.name_or_path, config.data.path, config))


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("preview")(command(with_settings(preview)))

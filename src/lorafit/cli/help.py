"""``lorafit help [COMMAND]``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lorafit.cli.app import command, echo
from lorafit.cli.flags import Debug


@command("help")
def show_help(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[COMMAND]", help="Of all commands if left out.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Show what COMMAND does, as `lorafit COMMAND --help` does."""
    program: Any = context.parent
    if name is None:
        echo(program.get_help())
        return
    _, found, _ = program.command.resolve_command(program, [name])
    found.make_context(name, ["--help"], parent=program)

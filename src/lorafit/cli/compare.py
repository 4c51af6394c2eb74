"""``lorafit compare MODEL DATA``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.app import command
from lorafit.cli.flags import Debug, Given, Quiet, with_settings


@command("compare")
@with_settings
def compare(
    *,
    methods: Annotated[
        str, typer.Option(metavar="A,B,...", help="Methods; all: those that fit the model.")
    ] = "all",
    seeds: Annotated[int, typer.Option(metavar="INTEGER", help="Runs of each method.")] = 3,
    budget: Annotated[
        float,
        typer.Option(
            metavar="NUMBER", help="What finding a method's learning rate may cost, in runs."
        ),
    ] = 1.0,
    general_text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Texts, one a line, on which forgetting is measured."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained and how long; no more.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
    given: Given,
) -> None:
    """Train MODEL on DATA with several methods, on an equal footing, side by side.

    Each method gets a learning rate by the same small search. The same command goes on with
    a comparison that was interrupted.
    """
    settings = given.resolve()

    from lorafit import api, console

    with console.saying(quiet=quiet):
        if dry_run:
            planned = api.plan_comparison(
                methods=methods, seeds=seeds, budget=budget, config=settings
            )
            console.show_comparison_plan(planned)
            return
        found = api.compare(
            methods=methods,
            seeds=seeds,
            budget=budget,
            general_text=general_text,
            config=settings,
        )
        console.show_comparison(found.record, found.path)

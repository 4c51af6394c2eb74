"""``lorafit train MODEL DATA``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.app import command
from lorafit.cli.flags import Debug, Given, Quiet, run_path, with_settings
from lorafit.errors import ConfigError
from lorafit.trust import ATTENTION, REMOTE_CODE

TRUSTED = (REMOTE_CODE, ATTENTION)
"""What is given anew with --resume: the run's folder cannot."""


@command("train")
@with_settings
def train(
    *,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with an interrupted run, with its settings."),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
    given: Given,
) -> None:
    """Fine-tune MODEL on DATA with a LoRA adapter.

    Writes a run folder: the adapter in PEFT format, the metrics, the evaluation.
    """
    if resume is None:
        settings = given.resolve()
    else:
        kept = ("run.dir", *TRUSTED)
        others = replace(given, flags={k: v for k, v in given.flags.items() if k not in kept}).names
        if others:
            raise ConfigError(
                f"--resume goes on with the run's own settings, but got {', '.join(others)}.\n"
                "Leave them out, or start a new run without --resume."
            )
        from lorafit.config import RunConfig

        runs_dir = Path(given.flags.get("run.dir", ("", RunConfig().dir))[1])
        trust = {key: value for key, (_, value) in given.flags.items() if key in TRUSTED}

    from lorafit import api, console
    from lorafit.console.python import RESULT
    from lorafit.quiet import saying_less

    with console.saying(quiet=quiet), saying_less(RESULT):
        if resume is not None:
            run = api.train(resume=run_path(resume, runs_dir), progress=not quiet, **trust)
        else:
            run = api.train(config=settings, progress=not quiet)
        console.show_result(run)

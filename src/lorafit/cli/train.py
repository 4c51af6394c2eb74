"""``lorafit train MODEL DATA``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.app import command, show_error
from lorafit.cli.flags import Debug, Given, Quiet, run_path, with_settings
from lorafit.errors import ConfigError


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
    started = time.time()
    runs_dir = Path(given.flags.get("run.dir", ("", "runs"))[1])
    if resume is not None:
        others = [name for name in given.names if name != "--runs-dir"]
        if others:
            raise ConfigError(
                f"--resume goes on with the run's own settings, but got {', '.join(others)}.\n"
                "Leave them out, or start a new run without --resume."
            )
        settings = None
    else:
        settings = given.resolve()
        runs_dir = Path(settings.config.run.dir)

    from lorafit import api, console

    with console.saying(quiet=quiet):
        try:
            if settings is None:
                assert resume is not None
                run = api.train(resume=run_path(resume, runs_dir), progress=not quiet)
            else:
                config = settings.config
                run = api.train(
                    config.model.name_or_path,
                    config.data.path,
                    config=config,
                    origins=settings.origins,
                    progress=not quiet,
                )
        except KeyboardInterrupt:
            show_error("Interrupted", f"stopped by Ctrl-C.{_resume_hint(runs_dir, started)}")
            raise typer.Exit(130) from None
        console.show_result(run)


def _resume_hint(runs_dir: Path, started: float) -> str:
    """How to go on, if the interrupted run has reached a checkpoint."""
    states = [
        path.parent.parent
        for path in runs_dir.glob("*/checkpoints/*")
        if path.stat().st_mtime >= started
    ]
    if not states:
        return " It had no checkpoint yet; start it again."
    newest = max(states, key=lambda path: path.stat().st_mtime)
    return f"\nGo on with: lorafit train --resume {newest}"


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("train")(command(with_settings(train)))

"""``lorafit merge RUN OUT``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.app import command, echo
from lorafit.cli.flags import (
    Attention,
    Debug,
    Quiet,
    RunArgument,
    RunsDir,
    TrustRemoteCode,
    run_path,
    trust_given,
)


@command("merge")
def merge(
    run: RunArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; must not exist.")],
    trust_remote_code: TrustRemoteCode = False,
    attn_implementation: Attention = None,
    runs_dir: RunsDir = Path("runs"),
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the tuned model of RUN as a plain model, the adapter worked into its weights.

    The result needs neither lorafit nor peft: load it with transformers.
    """
    from lorafit import api, console

    with console.saying(quiet=quiet):
        path = api.merge(
            run_path(run, runs_dir),
            out,
            **trust_given(trust_remote_code, attn_implementation),
        )
    echo(f"Merged model: {path}")

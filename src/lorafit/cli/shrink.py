"""``lorafit shrink ADAPTER``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lorafit.cli.app import UsageError, command
from lorafit.cli.flags import (
    Attention,
    Debug,
    Quiet,
    RunsDir,
    TrustRemoteCode,
    run_path,
    trust_given,
)


@command("shrink")
def shrink(
    adapter: Annotated[
        str, typer.Argument(metavar="ADAPTER", help="A run, or a LoRA adapter's folder or Hub id.")
    ],
    r: Annotated[str, typer.Option("--r", metavar="RANK", help="New rank, or auto.")] = "auto",
    data: Annotated[
        str | None, typer.Option("--data", metavar="DATA", help="Measure on this data.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="OUT", help="Folder to write; beside ADAPTER if left out."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Base, if not as ADAPTER says.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="TEXT", help="Text column of DATA.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="TEXT", help="Label column of DATA.")
    ] = None,
    retrain_steps: Annotated[
        int | None,
        typer.Option(metavar="INTEGER", help="Steps of retraining at each rank; 0 for none."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    attn_implementation: Attention = None,
    runs_dir: RunsDir = Path("runs"),
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a LoRA adapter at a smaller rank and show what each rank loses.

    Without --data it is plain SVD, unmeasured, and --r has to be a number.
    """
    settings: dict[str, Any] = {"text": text or None, "label": label}
    settings |= {"model": model, "retrain_steps": retrain_steps}
    settings |= trust_given(trust_remote_code, attn_implementation)

    from lorafit import api, console

    with console.saying(quiet=quiet):
        result = api.shrink(
            run_path(adapter, runs_dir),
            _rank(r),
            data,
            out,
            **{name: value for name, value in settings.items() if value is not None},
        )
    console.show_shrunk(result)


def _rank(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise UsageError(f'--r is "{text}", but it should be a whole number or auto.') from None

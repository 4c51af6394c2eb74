"""``lorafit evaluate RUN [DATA]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.app import command, echo_json
from lorafit.cli.flags import (
    Attention,
    Debug,
    Device,
    Quiet,
    RunArgument,
    RunsDir,
    TrustRemoteCode,
    run_path,
    trust_given,
)


@command("evaluate")
def evaluate(
    run: RunArgument,
    data: Annotated[
        str | None,
        typer.Argument(metavar="[DATA]", help="Other data; the run's own test split if left out."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write what both models say of each row to a csv, tsv, jsonl or parquet file.",
        ),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Encoding of DATA, if not UTF-8: cp1252.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    trust_remote_code: TrustRemoteCode = False,
    attn_implementation: Attention = None,
    device: Device = "auto",
    runs_dir: RunsDir = Path("runs"),
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure the base and the tuned model of RUN side by side, with intervals.

    What was measured on other data is kept in RUN/evaluations, with every prediction.
    """
    from lorafit import api, console

    with console.saying(quiet=quiet):
        result = api.evaluate(
            run_path(run, runs_dir),
            data,
            out,
            encoding=encoding,
            device=device,
            **trust_given(trust_remote_code, attn_implementation),
        )
    if as_json:
        echo_json(result, indent=2)
    else:
        console.show_evaluation(result)

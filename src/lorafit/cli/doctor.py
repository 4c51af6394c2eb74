"""``lorafit doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.app import command, echo_json
from lorafit.cli.flags import Debug


@command("doctor")
def doctor(
    runs_dir: Annotated[
        Path, typer.Option("--runs-dir", metavar="DIR", help="Folder whose disk is checked.")
    ] = Path("runs"),
    online: Annotated[
        bool, typer.Option("--online", help="Also see whether the Hugging Face Hub answers.")
    ] = False,
    load: Annotated[
        bool,
        typer.Option("--load", help="Also see whether torch and transformers can be imported."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Check versions, threads, memory, disk and number formats; say what would be slow."""
    from lorafit import console
    from lorafit.machine.doctor import examine

    findings = examine(runs_dir, online=online, load=load)
    if as_json:
        echo_json([finding.to_dict() for finding in findings], indent=2)
    else:
        console.show_findings(findings)

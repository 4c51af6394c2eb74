"""``lorafit predict RUN TEXT...``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.app import command
from lorafit.cli.flags import Debug, Quiet, RunArgument, RunsDir, run_path
from lorafit.errors import ConfigError, DataError


@command("predict")
def predict(
    run: RunArgument,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to classify.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Read texts from a UTF-8 file, one a line; - is stdin."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a text, with every probability.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict with the tuned model of RUN: one line a text. A tab parts the two of a pair."""
    if texts and file is not None:
        raise ConfigError("texts come from the command line or from --file, not from both.")
    found = texts or ([] if file is None else read_texts(file))
    if not found:
        raise ConfigError(
            "there is no text to predict.\n"
            'Give some: lorafit predict RUN "a text" "another", or --file FILE.'
        )
    from lorafit import api, console

    with console.saying(quiet=quiet):
        tuned = api.load(run_path(run, runs_dir))
        several = len(tuned.task.text) > 1
        given = [text.split("\t") if several else text for text in found]
        predictions = api.predict(tuned, given)
    for text, prediction in zip(found, predictions, strict=True):
        if as_json:
            typer.echo(json.dumps({"text": text} | prediction, ensure_ascii=False))
        else:
            typer.echo(console.prediction_line(text, prediction))


def read_texts(path: Path) -> list[str]:
    """Reads one text a line.

    Raises:
        DataError: The file cannot be read, is not UTF-8, is empty or has an empty line.
    """
    name = "standard input" if str(path) == "-" else f'"{path}"'
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name} is not UTF-8 text (line {line}); save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}.") from error
    lines = content.replace("\r\n", "\n").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            what = "is empty" if len(lines) == 1 else f"has an empty line, line {number}"
            raise DataError(f"{name} {what}; put one text on each line.")
    return lines

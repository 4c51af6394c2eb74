"""``lorafit predict RUN TEXT...``."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorafit.cli.app import command, echo, echo_json
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
from lorafit.errors import ConfigError, DataError
from lorafit.evidence.json import Json

if TYPE_CHECKING:
    from lorafit.data.read.asked import Asked

log = logging.getLogger(__name__)

AT_ONCE = 128
"""Texts that are answered before their answers are shown or written."""


@command("predict")
def predict(
    run: RunArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts, or one file as for --file."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            help="Read the run's text columns from a csv, tsv, jsonl, json, parquet or arrow file, "
            "or one text a line from any other; - is stdin.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write row, texts, answer and probability to a csv, tsv, jsonl or parquet file; "
            "the last two have every probability.",
        ),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Encoding of FILE, if not UTF-8: cp1252.")
    ] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out rows of FILE without a text.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a text, with every probability.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
    attn_implementation: Attention = None,
    device: Device = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Compute in float32 or bfloat16 (faster); as the weights are stored if left out.",
        ),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict with the tuned model of RUN: one line a text. A tab parts the two of a pair."""
    if texts and file is not None:
        raise ConfigError("texts come from the command line or from --file, not from both.")
    if not texts and file is None:
        raise ConfigError(
            "there is no text to predict.\n"
            'Give some: lorafit predict RUN "a text" "another", or --file FILE.'
        )
    from lorafit import api, console
    from lorafit.data.answers import AnswerFile, check_target

    with console.saying(quiet=quiet):
        if out is not None:
            check_target(out)
        if file is None and (file := _meant_file(texts or [])) is not None:
            log.info('"%s" is a file: its rows are predicted (as with --file)', file)
            texts = []
        tuned = api.load(
            run_path(run, runs_dir),
            device=device,
            dtype=dtype,
            **trust_given(trust_remote_code, attn_implementation),
        )
        asked = _asked(texts or [], file, list(tuned.task.text), encoding, skip_bad_rows)
        answered = _answers(asked, lambda cells: api.predict(tuned, cells), quiet or out is None)
        if out is not None:
            with AnswerFile(out, asked.columns) as answers:
                for number, cell, prediction in answered:
                    answers.add(number, cell, prediction)
            echo(f"{len(asked):,} answers: {out}")
            return
        for _, cell, prediction in answered:
            text = _shown(cell)
            if as_json:
                echo_json({"text": text} | prediction)
            else:
                echo(console.prediction_line(text, prediction))


def _answers(asked: Asked, predict: Any, quiet: bool) -> Iterator[tuple[int, Any, Json]]:
    """Number, text and answer of each, computed some at a time; a bar shows how far it is."""
    from rich.progress import Progress

    from lorafit.console.output import err

    screen = err()
    shown = not quiet and screen.is_terminal and len(asked) > AT_ONCE
    with Progress(console=screen, transient=True) if shown else nullcontext() as bar:
        job = None if bar is None else bar.add_task("predicting", total=len(asked))
        for at in range(0, len(asked), AT_ONCE):
            cells = asked.cells[at : at + AT_ONCE]
            yield from zip(asked.numbers[at : at + AT_ONCE], cells, predict(cells), strict=True)
            if bar is not None and job is not None:
                bar.update(job, completed=at + len(cells))


def _shown(cell: Any) -> str:
    """A text, the texts of a pair with a tab between, or the last message of a conversation."""
    if isinstance(cell, str):
        return cell
    last = cell[-1]
    return "\t".join(cell) if isinstance(last, str) else str(next(reversed(last.values())))


def _meant_file(texts: list[str]) -> Path | None:
    """The data file that stands where a text should, if it is the only one.

    Raises:
        ConfigError: It stands beside other texts.
    """
    from lorafit.data.read.files import format_of

    files = [text for text in texts if format_of(Path(text)) and Path(text).is_file()]
    if files and len(texts) > 1:
        raise ConfigError(
            f'"{files[0]}" is a file, beside {len(texts) - 1} other text(s). Predict its rows with '
            f"--file {files[0]}, alone."
        )
    return Path(files[0]) if files else None


def _asked(
    texts: list[str], file: Path | None, columns: list[str], encoding: str | None, skip: bool
) -> Asked:
    """The texts of the command line, of a table, or of the lines of a file."""
    from lorafit.data.read.asked import read_asked
    from lorafit.data.read.files import format_of
    from lorafit.paths import PACKAGE_PREFIX, resolve

    if file is not None and str(file).startswith(PACKAGE_PREFIX):
        file = resolve(str(file))
    if file is not None and format_of(file):
        return read_asked(file, columns, skip_bad_rows=skip, encoding=encoding)
    found = texts if file is None else read_texts(file, encoding, skip)
    several = len(columns) > 1
    given = [text.split("\t") if several else text for text in found]
    return read_asked(given, columns, skip_bad_rows=skip)


def read_texts(path: Path, encoding: str | None = None, skip: bool = False) -> list[str]:
    """Reads one text a line.

    Args:
        path: The file; ``-``: standard input.
        encoding: How it is stored; ``None``: UTF-8.
        skip: Empty lines are no error: they are left out later, and counted.

    Raises:
        DataError: The file cannot be read, is not in this encoding, is empty or has an empty line.
    """
    from lorafit.data.read.files import check_encoding, is_utf8_after_all

    name = "standard input" if str(path) == "-" else f'"{path}"'
    codec = check_encoding(encoding)
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        if is_utf8_after_all(encoding, lambda: io.BytesIO(data)):
            log.warning("%s is UTF-8, and is read so: not %s", name, encoding)
            codec = check_encoding(None)
        content = data.decode(codec)
    except UnicodeError as error:
        line = data.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise DataError(
            f"{name} is not {encoding or 'UTF-8'} text (line {line}); save it as UTF-8, or say "
            "what it is: --encoding cp1252."
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}.") from error
    lines = content.replace("\r\n", "\n").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip() and (len(lines) == 1 or not skip):
            what = "is empty" if len(lines) == 1 else f"has an empty line, line {number}"
            raise DataError(f"{name} {what}; put one text on each line.")
    return lines

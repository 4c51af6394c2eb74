"""A file of the user's own with a line for each finished search: what was trained, what was best.

The lines have numbers and names of methods, nothing of the texts and no names of files or models.
The file is only ever added to, a whole line at a time, so that any number of runs may share it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from lorafit.errors import ConfigError, RunError
from lorafit.evidence.json import parsed
from lorafit.evidence.record import SCHEMA
from lorafit.run import atomic

PATIENCE = 10.0
"""Seconds to wait for another run that is adding its line."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[PositiveFloat, Field(allow_inf_nan=False)]


class Situation(BaseModel):
    """What is trained, as far as the best learning rate may depend on it."""

    model_config = ConfigDict(frozen=True)

    task: str
    """Name of the task."""
    method: str
    """Name of the method."""
    modules: str | tuple[str, ...] | None = None
    """``target_modules`` as it is set; ``None``: the method has none."""
    alpha: Positive | None = None
    """Scaling times rank while rates are tried; ``None``: the method has no rank."""
    parameters: PositiveInt
    """Of the model, outside the embeddings."""
    hidden_size: PositiveInt | None = None
    """Its width; ``None``: its configuration does not say."""
    classes: PositiveInt | None = None
    """Outputs of its head; ``None``: it writes text."""
    tokens: Positive
    """Real tokens of a plain run, all epochs."""
    tokens_per_row: Positive
    """Mean length of a training example."""
    batch_size: PositiveInt
    """Examples of an optimizer step."""
    epochs: Positive
    """Passes over the training examples."""


class Lesson(Situation):
    """What a finished search came to."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA, alias="schema")] = SCHEMA
    model_config = ConfigDict(frozen=True, populate_by_name=True)

    usual: Positive
    """The rate that trials begin around without a prior."""
    best: Positive | None
    """The best rate of the trials; ``None``: they could not tell rates apart."""
    learning_rate: Positive
    """Delivered."""
    r: PositiveInt | None = None
    """Delivered; ``None``: the method has no rank."""
    lora_alpha: Finite | None = None
    """Delivered."""
    cost: Positive
    """Of choosing and training, in plain runs."""
    gain: Finite | None = None
    """By how much training lowered the loss on the test split; ``None``: not known."""


def read(file: Path) -> list[Lesson]:
    """The lines of a file; none where there is no file yet.

    Raises:
        ConfigError: It cannot be read, or a line is not one of `add`'s; or there could be no such
            file, because its folder is missing.
    """
    if not file.exists():
        if not file.parent.is_dir():
            raise ConfigError(
                f'tune.prior is "{file}", but there is no folder "{file.parent}". '
                "Make it, or name a file in another folder."
            )
        return []
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f'cannot read "{file}" (tune.prior): {cause}. Name a file that lorafit train wrote, or '
            "one that does not exist yet."
        ) from error
    *whole, torn = text.split("\n")
    found = [_lesson(line, file, number) for number, line in enumerate(whole, 1) if line.strip()]
    # Written by hand without the last line's end, or what a killed process left of its line.
    with contextlib.suppress(ConfigError):
        found += [_lesson(torn, file, len(whole) + 1)] if torn.strip() else []
    return found


def _lesson(line: str, file: Path, number: int) -> Lesson:
    try:
        return Lesson.model_validate(parsed(line))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        wrong = "is missing" if first["type"] == "missing" else f"is {first['input']!r:.60}"
        cause = f"{place} {wrong}"
    except ValueError:
        cause = "it is not JSON"
    raise ConfigError(
        f'line {number} of "{file}" (tune.prior) is damaged: {cause}. Delete that line, or name '
        "another file."
    )


def add(file: Path, lesson: Lesson) -> bool:
    """Adds a line, whole or not at all; one that is there already says nothing new and stays alone.

    Args:
        file: Made if it is missing.
        lesson: What to add.

    Returns:
        Whether it was added.

    Raises:
        RunError: It cannot be written, or another process does not let go of it.
    """
    line = lesson.model_dump_json(by_alias=True).encode() + b"\n"
    with atomic.writing(file, "the line of this run"):
        try:
            with FileLock(file.with_name(f".{file.name}.lock"), timeout=PATIENCE):
                return _appended(file, line)
        except Timeout as error:
            raise RunError(
                f'another process has had "{file}" locked for {PATIENCE:g} s; the line of this run '
                "was not added."
            ) from error


def _appended(file: Path, line: bytes) -> bool:
    with file.open("a+b") as out:
        out.seek(0)
        content = out.read()
        *whole, torn = content.split(b"\n")
        if line[:-1] in (*whole, torn):
            return False
        end = len(content)
        if torn.strip():
            try:
                _lesson(torn.decode(), file, len(whole) + 1)
                line = b"\n" + line
            except (ConfigError, UnicodeDecodeError):
                end -= len(torn)
                out.truncate(end)
        try:
            out.write(line)
            out.flush()
            os.fsync(out.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(out.fileno(), end)
            raise
    return True


def told(lessons: Sequence[Lesson]) -> list[Lesson]:
    """Those that say which rate is best."""
    return [lesson for lesson in lessons if lesson.best is not None]

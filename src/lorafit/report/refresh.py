"""Writes the page of a run or a comparison anew, from its folder alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import UndefinedError

from lorafit.errors import RunError
from lorafit.evidence import ComparisonRecord
from lorafit.report import closing
from lorafit.report.folder import read_folder
from lorafit.report.html import NAME, render
from lorafit.run import Run, RunWriter, atomic
from lorafit.run.listing import COMPARISON, REQUEST


@dataclass(frozen=True)
class Page:
    """A page that was written.

    Attributes:
        path: Where.
        problems: What of the folder could not be read, and why.
        removed: Names of what a process that was killed had left there.
    """

    path: Path
    problems: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def find_folder(name: str | Path, dir: str | Path = "runs") -> Path:
    """The folder of a run or a comparison.

    Args:
        name: The folder, or just its name below ``dir``.
        dir: Folder of the runs, for names.

    Raises:
        RunError: There is none, or it is neither.
    """
    for folder in (Path(name), Path(dir) / name):
        if any((folder / file).is_file() for file in (COMPARISON, REQUEST)):
            return folder
    return Run.open(name, dir).path


def refresh(folder: Path) -> Page:
    """Writes ``report.html`` or ``compare.html``; of a run that is done it removes leftovers.

    Raises:
        RunError: The comparison is not finished or damaged, or the page cannot be written.
    """
    if (folder / COMPARISON).is_file():
        return _comparison(folder)
    if (folder / REQUEST).is_file():
        raise RunError(
            f'the comparison in "{folder}" is not finished: it has no {COMPARISON}. The same '
            "lorafit compare command goes on with it."
        )
    run = read_folder(folder)
    atomic.write_text(folder / NAME, render(run), "the report")
    return Page(folder / NAME, run.problems, closing.tidy(RunWriter(folder)))


def _comparison(folder: Path) -> Page:
    from lorafit.report.comparison import write_comparison

    file = folder / COMPARISON
    found = ComparisonRecord.from_json(atomic.read_json(file), str(file))
    try:
        return Page(write_comparison(folder, found))
    except (LookupError, TypeError, ValueError, UndefinedError) as error:  # in what is not typed
        raise RunError(
            f'"{file}" is damaged: it is not what lorafit compare writes '
            f"({type(error).__name__}: {error})."
        ) from error

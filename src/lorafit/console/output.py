"""The two consoles, the handler for what is said, and plain tables."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorafit.quiet import bars

GAP = 3
"""Spaces between the columns of a table."""
WIDE = 10_000
"""Width where there is no terminal: nothing is wrapped or cut for a file or a pipe."""


def out() -> Console:
    """Standard output, for results.

    Made anew each time, so that it follows a redirected ``sys.stdout``.
    """
    return _console(stderr=False)


def err() -> Console:
    """Standard error, for what is said along the way."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    # Markup, highlighting and emoji are off: texts and labels of the user's data are shown.
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


class SayingHandler(logging.Handler):
    """Shows log records as plain lines, warnings in yellow."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record to standard error."""
        try:
            line = Text(self.format(record))
            if record.levelno >= logging.WARNING:
                line = Text("warning: ") + line
                line.stylize("yellow" if record.levelno < logging.ERROR else "red")
            err().print(line)
        except Exception:  # noqa: BLE001 logging must never stop a training run
            self.handleError(record)


@contextmanager
def saying(quiet: bool = False) -> Iterator[None]:
    """Shows what lorafit says while the block runs.

    The bars of transformers and datasets, which flash by for every file read, are off;
    downloads from the Hub keep theirs. Nested blocks show each line once; the outermost
    decides. A handler that the caller's program has put on the ``lorafit`` logger stays
    the only one.

    Args:
        quiet: Show warnings only.
    """
    logger = logging.getLogger("lorafit")
    if logger.handlers:
        yield
        return
    handler, level = SayingHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        with bars(downloads=True):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def show(text: str = "", style: str | None = None) -> None:
    """Writes one line of a result."""
    out().print(Text(text, style=style or ""))


def show_split_table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Writes aligned columns; those without room beside the others in tables of their own.

    Args:
        rows: The cells; the first one is repeated in every table.
        header: Names of the columns.
    """
    widths = [_longest(rows, header, index) for index in range(len(header))]
    parts, used = [[0]], widths[0]
    for index, width in enumerate(widths[1:], start=1):
        used += GAP + width
        if used > out().width and len(parts[-1]) > 1:
            parts.append([0])
            used = widths[0] + GAP + width
        parts[-1].append(index)
    for number, part in enumerate(parts):
        if number:
            show()
        show_table([[row[i] for i in part] for row in rows], [header[i] for i in part])


def show_table(
    rows: Sequence[Sequence[str]], header: Sequence[str] | None = None, indent: int = 0
) -> None:
    """Writes aligned columns; numbers to the right, other texts to the left.

    Where they do not fit, the first column stays whole (up to two thirds of the width): it has
    names to recognise and commands to copy. The others are wrapped.

    Args:
        rows: The cells.
        header: Names of the columns.
        indent: Spaces before the first column.
    """
    if not rows:
        return
    console = out()
    width = console.width - indent
    gap = (0, GAP, 0, 0)
    table = Table(box=None, show_header=header is not None, pad_edge=False, padding=gap)
    first = _longest(rows, header, 0)
    for index in range(len(rows[0])):
        filled = [row[index] for row in rows if row[index]]
        numeric = bool(filled) and all(map(_is_number, filled))
        table.add_column(
            Text(header[index]) if header else "",
            justify="right" if numeric else "left",
            header_style="bold",
            overflow="fold",
            no_wrap=index == 0 and first <= 2 * width // 3,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    with console.capture() as capture:
        console.print(table, width=width)
    for line in capture.get().splitlines():
        console.out(" " * indent + line.rstrip(), highlight=False)


def fits(rows: Sequence[Sequence[str]], header: Sequence[str] | None = None) -> bool:
    """Whether `show_table` can write these without wrapping."""
    columns = range(len(rows[0])) if rows else range(0)
    needed = sum(_longest(rows, header, index) + GAP for index in columns) - GAP
    return needed <= out().width


def _longest(rows: Sequence[Sequence[str]], header: Sequence[str] | None, index: int) -> int:
    """Characters of the longest cell of a column."""
    return max(cell_len(row[index]) for row in (*rows, *([header] if header else [])))


def _is_number(cell: str) -> bool:
    return set(cell) <= set("0123456789.,+-%")

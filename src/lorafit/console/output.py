"""The two consoles, and how lines of text are written to them."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lorafit.console.visible import visible
from lorafit.quiet import bars

WIDE = 10_000
"""Width where there is no terminal: nothing is wrapped or cut for a file or a pipe."""

Moved = list[tuple["logging.StreamHandler[TextIO]", TextIO]]
"""Handlers, and the stream that each wrote to before."""

_drawn: Console | None = None
"""The terminal, while something on it is drawn again and again."""


def out() -> Console:
    """Standard output, for results.

    Made anew each time, so that it follows a redirected ``sys.stdout``.
    """
    if _drawn is not None and sys.stdout.isatty():
        return _drawn
    return _console(stderr=False)


def err() -> Console:
    """Standard error, for what is said along the way."""
    return _drawn or _console(stderr=True)


def draw_on(console: Console | None) -> None:
    """Makes all lines of both consoles go through the one that a live display draws on.

    A line that went past it would be overwritten, and leave a piece of the display behind.

    Args:
        console: Whose `rich.live.Live` is about to start; ``None``: it has stopped.
    """
    global _drawn
    _drawn = console


def move_handlers(source: TextIO, target: TextIO) -> Moved:
    """Makes what other packages log to one stream go to another.

    Args:
        source: Such as the terminal, which their handlers got hold of before.
        target: Such as what puts each line above a live display.

    Returns:
        The handlers and where they wrote to.
    """
    if source is target:
        return []
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    handlers = {
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is source
    }
    for handler in handlers:
        handler.setStream(target)
    return [(handler, source) for handler in handlers]


def _console(stderr: bool) -> Console:
    # Markup, highlighting and emoji are off: texts and labels of the user's data are shown.
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


def write(console: Console, text: str, style: str = "", indent: int = 0) -> None:
    """Writes a text, wrapped between words only, with what a terminal would obey made visible.

    A word longer than a line (a path, a command) is left to the terminal to break, so that it is
    copied whole.

    Args:
        console: Where to.
        text: With or without line breaks.
        style: Of rich.
        indent: Spaces before what is continued.
    """
    for line in visible(text).split("\n"):
        for number, part in enumerate(wrapped(line, console.width, indent)):
            shown = " " * indent * (number > 0) + part
            console.print(Text(shown, style=style), soft_wrap=True)


def styled(*parts: tuple[str, str]) -> Text:
    """Texts with their styles in one, with what a terminal would obey made visible."""
    return Text().join(Text(visible(text), style) for text, style in parts)


def wrapped(line: str, width: int, indent: int = 0) -> list[str]:
    """A line in parts that fit, cut at spaces; at least one.

    Args:
        line: Spaces at its beginning are kept.
        width: Of the terminal, in cells.
        indent: What the parts after the first have less.
    """
    if cell_len(line) <= width:
        return [line.rstrip()]
    start = line[: len(line) - len(line.lstrip(" "))]
    parts, used = [start], cell_len(start)
    empty = True
    for word in line.split():
        longer = used + cell_len(word) + (not empty)
        if not empty and longer > width - indent * (len(parts) > 1):
            parts.append("")
            empty, longer = True, cell_len(word)
        parts[-1] += word if empty else f" {word}"
        empty, used = False, longer
    return parts


class SayingHandler(logging.Handler):
    """Shows log records as plain lines, warnings in yellow."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record to standard error."""
        try:
            text, style = self.format(record), ""
            if record.levelno >= logging.WARNING:
                text = f"warning: {text}"
                style = "yellow" if record.levelno < logging.ERROR else "red"
            write(err(), text, style, indent=2)
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
    level = logging.WARNING if quiet else logging.INFO
    with (
        only_handler(SayingHandler(), level) as mine,
        bars(downloads=True) if mine else nullcontext(),
    ):
        yield


_handling = threading.Lock()


@contextmanager
def only_handler(handler: logging.Handler, level: int) -> Iterator[bool]:
    """Puts a handler on the logger ``lorafit`` while the block runs, unless it has one.

    Of blocks in several threads at once the first decides.

    Args:
        handler: The handler.
        level: Of the logger meanwhile.

    Yields:
        Whether it is there.
    """
    logger = logging.getLogger("lorafit")
    with _handling:
        mine, before = not logger.handlers, logger.level
        if mine:
            logger.addHandler(handler)
            logger.setLevel(level)
    try:
        yield mine
    finally:
        if mine:
            with _handling:
                logger.removeHandler(handler)
                logger.setLevel(before)


def show(text: str = "", style: str | None = None) -> None:
    """Writes one line of a result."""
    write(out(), text, style or "")

"""A terminal as a person sees it: what is written is drawn by an emulator."""

from __future__ import annotations

import io

import pyte


class Terminal(io.StringIO):
    """A text stream that is a terminal.

    Args:
        columns: Its width.
        lines: Its height.
    """

    def __init__(self, columns: int, lines: int = 50) -> None:
        super().__init__()
        self._screen = pyte.HistoryScreen(columns, lines, history=1000, ratio=1.0)
        self._screen.set_mode(pyte.modes.LNM)  # as a terminal's driver: a line feed returns
        self._stream = pyte.Stream(self._screen)
        self.columns = columns

    def write(self, text: str) -> int:
        """Draws a text with its control sequences."""
        self._stream.feed(text)
        return len(text)

    def isatty(self) -> bool:
        """It is one."""
        return True

    @property
    def shown(self) -> list[str]:
        """What one sees, from the top of what has scrolled away on; empty lines left out."""
        above = [
            "".join(line[column].data for column in range(self.columns))
            for line in self._screen.history.top
        ]
        lines = [line.rstrip() for line in (*above, *self._screen.display)]
        return [line for line in lines if line]

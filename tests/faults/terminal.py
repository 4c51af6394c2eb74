"""A command on a terminal: both streams are a pseudo-terminal, and its bytes are kept."""

from __future__ import annotations

import os
import pty
import re
import sys
import termios
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from lorafit.cli.app import app

OWN = re.compile(
    r"\x1b\[[0-9;]*m"  # colours
    r"|\x1b\[[0-9]*[AGK]|\x1b\[2K"  # a bar that is drawn again: up, column, erase line
    r"|\x1b\[\?25[lh]"  # the cursor, hidden while it is drawn
)
"""What lorafit itself sends to a terminal."""
HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]"
)
"""What is obeyed or reorders a line instead of being shown; a terminal's lines end with CR LF."""


@dataclass
class Seen:
    """What came of a command."""

    code: int = 0
    data: bytes = b""
    parts: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All that was written, in both streams."""
        return self.data.decode("utf-8")

    @property
    def obeyed(self) -> list[str]:
        """Control and bidirectional characters that are not lorafit's own, with what is around."""
        rest = OWN.sub("", self.text).replace("\r\n", "\n").replace("\r", "")
        return [repr(rest[max(0, at.start() - 40) : at.end() + 20]) for at in HIDDEN.finditer(rest)]


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Makes both streams a terminal while the block runs."""
    seen = Seen()
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (40, 100))

    def read() -> None:
        try:
            while part := os.read(reader, 1 << 16):
                seen.parts.append(part)
        except OSError:  # Linux: the other end is closed
            pass

    thread = threading.Thread(target=read)
    thread.start()
    with monkeypatch.context() as patch:
        stream = open(writer, "w", encoding="utf-8", buffering=1)  # noqa: PTH123, SIM115 of a descriptor
        for name in ("stdout", "stderr"):
            patch.setattr(sys, name, stream)
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "100")
        try:
            yield seen
        finally:
            stream.flush()
            stream.close()
            thread.join()
            os.close(reader)
            seen.data = b"".join(seen.parts)


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> Seen:
    """Runs one command of the program on a terminal."""
    with terminal(monkeypatch) as seen, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            app(list(args), prog_name="lorafit")
        except SystemExit as end:
            seen.code = int(end.code or 0)
    return seen

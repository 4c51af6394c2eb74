"""The program ``lorafit``, which is ``python -m lorafit``, too.

Loading it takes seconds, and a traceback from somewhere in the middle tells nobody anything. So the
first that is done, before anything else is loaded, is to have a signal end the process with a line.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # as of `typing`, which takes a while to load
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def main() -> None:
    """Entry point."""
    _leave_at_once()
    from lorafit.cli import main as program  # which hears signals in its own way

    program()


def _leave_at_once() -> None:
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):  # there is no SIGHUP on Windows
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    os.write(2, f"Interrupted: stopped by {name}.\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main()

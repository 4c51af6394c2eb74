"""What stops a program from outside: Ctrl-C, SIGTERM of batch systems, SIGHUP of a terminal.

All three become a `KeyboardInterrupt`, so that one way leads out: files are left whole, children
are ended, and what is said last is how to go on.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""The signals that ask a program to stop (there is no SIGHUP on Windows)."""

_begun: list[str] = []
"""How to go on with what is being done now, as `naming` has it."""


_heard: list[int] = []
"""The signals that asked this program to stop, so far."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the program.

    Args:
        message: How to go on; ``""``: there is nothing to go on with.
        number: The signal.
    """

    def __init__(self, message: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(*[message] if message else [])
        self.number = number

    @property
    def exit_code(self) -> int:
        """What shells give a program that this signal ended."""
        return 128 + self.number


def last() -> int:
    """The signal that asked the program to stop, last; SIGINT where none was noted."""
    return _heard[-1] if _heard else signal.SIGINT


def stopped(error: BaseException) -> Stopped | None:
    """The interruption that an exception is or was made of; ``None``: of none.

    Some libraries turn a Ctrl-C that meets them into an error of their own.
    """
    seen: set[int] = set()
    while id(error) not in seen:
        if isinstance(error, Stopped):
            return error
        if isinstance(error, KeyboardInterrupt):
            return Stopped(str(error), last())
        seen.add(id(error))
        error = error.__cause__ or error.__context__ or error
    return None


@contextlib.contextmanager
def naming(message: str) -> Iterator[None]:
    """Whatever interrupts the block says how to go on, if it does not already."""
    _begun.append(message)
    try:
        yield
    except KeyboardInterrupt as stop:
        if str(stop):
            raise
        raise Stopped(message, getattr(stop, "number", signal.SIGINT)) from None
    finally:
        _begun.remove(message)


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt the block as Ctrl-C does.

    Unless the program handles or ignores them (``nohup``); and in the main thread only, where
    Python lets handlers be set.
    """
    before = _install(lambda handler: handler is signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def of_program() -> None:
    """The handlers of a command, until its process ends."""
    for number in STOPPING:
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise_or_leave)
    sys.unraisablehook = functools.partial(_sent_again, sys.unraisablehook)


def ignore() -> None:
    """The program ends anyway: signals are not heard any more."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def name(number: int) -> str:
    """What people call it."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _install(wanted: Any) -> dict[int, Any]:
    """Sets `_raise` for SIGTERM and SIGHUP; returns what was there."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            handler = signal.getsignal(number)
            if number != signal.SIGINT and wanted(handler):
                before[number] = handler
                signal.signal(number, _raise)
    return before


def _sent_again(otherwise: Any, lost: Any) -> None:
    """Sends a signal again that met Python where no exception leads out: in a destructor, say.

    While modules are loaded that is often so; the program would go on as if nothing had been.
    """
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        otherwise(lost)
        return
    number = getattr(lost.exc_value, "number", signal.SIGINT)
    again = threading.Timer(0.05, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _raise_or_leave(number: int, frame: FrameType | None) -> NoReturn:
    """Ends the process while modules are loaded: some catch every exception, this one too."""
    _heard.append(number)
    while frame is not None and not _begun:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, f"Interrupted: stopped by {name(number)}.\n".encode())
            os._exit(128 + number)
        frame = frame.f_back
    raise Stopped(number=number)


def _raise(number: int, _frame: FrameType | None) -> NoReturn:
    _heard.append(number)
    raise Stopped(number=number)

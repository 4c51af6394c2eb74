"""Ctrl-C (and SIGTERM, SIGHUP) at a step boundary instead of in the middle of a step."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from lorafit.machine.signals import STOPPING, Stopped

log = logging.getLogger(__name__)


class Interruptible:
    """Context in which the first signal only sets `requested`; the second one acts as usual.

    SIGTERM is what batch systems send before they stop a job, SIGHUP what a terminal sends that
    is closed (not to what ignores it, under ``nohup``). Outside the main thread, where Python
    does not allow handlers, signals act as usual from the start.

    Args:
        enabled: ``False``: signals act as usual.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.requested = False
        self._number: int = signal.SIGINT
        self._enabled = enabled
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruptible:
        if self._enabled and threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if number in (signal.SIGINT, signal.SIGTERM) or not _ignored(number):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def stopped(self, message: str) -> Stopped:
        """What to raise when a signal was heard and the step is done.

        Args:
            message: How to go on.
        """
        return Stopped(message, self._number)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.requested, self._number = True, number
        self._restore()
        log.warning("stopping after this step; once more to stop at once and lose it")

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None: the handler was not set from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()


def _ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN

"""A call from Python: what it says is shown while it lasts, in the words of Python."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import ParamSpec, TypeVar

from lorafit.console.python import heard
from lorafit.errors import LorafitError
from lorafit.settings.spoken import in_python, is_typed, speaking

P = ParamSpec("P")
R = TypeVar("R")


def shown(call: Callable[P, R]) -> Callable[P, R]:
    """Shows what a call says while it lasts, as its argument ``progress`` asks.

    It advises keywords, unless a command has called; that takes the flags of an error from
    `LorafitError.typed`.
    """

    @functools.wraps(call)
    def call_and_show(*args: P.args, **keywords: P.kwargs) -> R:
        words = nullcontext() if is_typed() else speaking()
        with words, heard(keywords.get("progress", True) is not False):
            try:
                return call(*args, **keywords)
            except LorafitError as error:
                error.speak(in_python(str(error)))
                raise
            except KeyboardInterrupt as stop:
                if not is_typed():
                    stop.args = tuple(in_python(str(part)) for part in stop.args)
                raise

    return call_and_show

"""The command line: flags to settings to the call that Python users make.

One command a file. A command reads its flags, calls one function of `lorafit.api` and
shows what that returns; everything else is the library's business. Modules here import
nothing heavy at the top, so that ``lorafit --help`` answers at once.
"""

from __future__ import annotations

from lorafit.cli import (
    compare,
    demo,
    doctor,
    evaluate,
    merge,
    plan,
    predict,
    preview,
    runs,
    shrink,
    train,
)
from lorafit.cli.app import app, main

for command in (
    train,
    compare,
    demo,
    preview,
    plan,
    evaluate,
    predict,
    merge,
    shrink,
    runs,
    doctor,
):
    command.register(app)

__all__ = ["app", "main"]

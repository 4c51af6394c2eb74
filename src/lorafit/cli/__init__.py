"""The command line: flags to settings to the call that Python users make.

One command a file: `COMMANDS` names them in the order in which ``--help`` lists them. A command
reads its flags, calls one function of the library and shows what that returns. Modules here
import nothing heavy at the top, so that ``lorafit --help`` answers at once; commands that only
look at files (``runs``, ``report``, ``doctor``) never load torch.
"""

from __future__ import annotations

import importlib

from lorafit.cli.app import app, main

COMMANDS = (
    *("train", "compare", "demo", "preview", "plan", "evaluate", "predict", "merge", "shrink"),
    *("runs", "report", "open", "doctor", "version", "help"),
)

for name in COMMANDS:
    importlib.import_module(f"lorafit.cli.{name}")

__all__ = ["COMMANDS", "app", "main"]

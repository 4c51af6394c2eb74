"""Commands and code that are suggested to be typed next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

FOLDER = "path/to/this/folder"
"""Stands for the adapter's place in a snippet."""


def resume_command(folder: Path) -> str:
    """What to type to go on with a run in a folder."""
    return f"lorafit train --resume {shlex.quote(str(folder))}"


def way_back(folder: Path) -> str:
    """What is said last of a run that was stopped."""
    return f"stopped. Go on with: {resume_command(folder)}"


def resume_call(folder: Path) -> str:
    """The same in Python."""
    return f'lorafit.train(resume="{folder}")'


def predict_command(folder: str, texts: Any) -> str:
    """What to type for a prediction.

    Args:
        folder: Of the run.
        texts: The text columns that its task reads: one, or the two of a pair.
    """
    pair = isinstance(texts, list) and len(texts) > 1
    text = r"$'a text\tits partner'" if pair else '"a text"'
    return f"lorafit predict {shlex.quote(folder)} {text}"

"""The folder of a run: what stands in it, how it is named, written and found again."""

from __future__ import annotations

from lorafit.run.folder import Choice, Run
from lorafit.run.writer import RunWriter

__all__ = ["Choice", "Run", "RunWriter"]

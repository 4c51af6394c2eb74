"""The strategy ``rise``: one run whose rank rises while that pays."""

from __future__ import annotations

from lorafit.tune.rise.strategy import Rise

__all__ = ["Rise"]

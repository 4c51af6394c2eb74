"""Strategies that choose the settings by measurement, each one file."""

from __future__ import annotations

from lorafit.registry import Registry
from lorafit.tune.base import Strategy

strategies: Registry[type[Strategy]] = Registry("strategy", "lorafit.tune")
"""All strategies, by the name that ``--strategy`` takes."""

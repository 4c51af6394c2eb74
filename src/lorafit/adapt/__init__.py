"""Adapters on a model: select, wrap, freeze, merge, unload, combine."""

from __future__ import annotations

from lorafit.adapt.adapters import Adapters

__all__ = ["Adapters"]

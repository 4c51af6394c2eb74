"""PEFT methods: the maths of each, one file a method."""

from __future__ import annotations

from lorafit.methods.base import Method
from lorafit.registry import Registry

methods: Registry[type[Method]] = Registry("method", "lorafit.methods")

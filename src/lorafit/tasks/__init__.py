"""Tasks: what a model is trained to do. One file each."""

from __future__ import annotations

from lorafit.registry import Registry
from lorafit.tasks.base import Task

tasks: Registry[type[Task]] = Registry("task", "lorafit.tasks")

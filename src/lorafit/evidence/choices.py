"""``choices.json``: every automatic choice, and what choosing cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from lorafit.evidence.record import Record

_OTHERS = ("cost", "whole_runs")
"""Entries of the file that are no choices."""


@dataclass(frozen=True)
class Choice:
    """An automatic choice and why it was made.

    Attributes:
        value: What was chosen (a JSON value; a set becomes a sorted list).
        reason: One plain sentence.
        evidence: The measurements behind it (JSON values).
    """

    value: Any = None
    reason: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.value, set | frozenset):
            object.__setattr__(self, "value", sorted(self.value))
        elif isinstance(self.value, tuple):
            object.__setattr__(self, "value", list(self.value))


class Choices(Record):
    """What was chosen for a run, by the user, by default, or by measurement."""

    file: ClassVar[str] = "choices.json"

    choices: dict[str, Choice] = Field(default_factory=dict)
    """By the name of the setting."""
    cost: dict[str, Any] = Field(default_factory=dict)
    """What choosing and training cost, in plain runs; empty when nothing was measured."""
    others: dict[str, Any] = Field(default_factory=dict)
    """What else a strategy keeps."""

    @classmethod
    def unpacked(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        """In the file the choices stand beside ``schema`` and ``cost``."""
        rest = {str(name): value for name, value in content.items()}
        version = rest.pop("schema", 0)
        cost = rest.pop("cost", {})
        choices = {
            name: value
            for name, value in rest.items()
            if name not in _OTHERS
            and isinstance(value, Mapping)
            and ("reason" in value or "value" in value)
        }
        others = {name: value for name, value in rest.items() if name not in choices}
        return {"schema": version, "choices": choices, "cost": cost, "others": others}

    def to_json(self) -> dict[str, Any]:
        """JSON values in the layout of the file."""
        content = self.model_dump(mode="json", by_alias=True)
        choices, cost, others = (content.pop(name) for name in ("choices", "cost", "others"))
        values: dict[str, Any] = content | choices | others
        return values | {"cost": cost} if cost else values

"""``choices.json``: every automatic choice, and what choosing cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from lorafit.evidence.json import Json
from lorafit.evidence.measurements import Evidence, Kept
from lorafit.evidence.record import Record
from lorafit.evidence.training import ChoosingCost

_OTHERS = ("cost", "whole_runs")
"""Entries of the file that are no choices."""


@dataclass(frozen=True)
class Choice:
    """An automatic choice and why it was made.

    Attributes:
        value: What was chosen (a JSON value; a set becomes a sorted list).
        reason: One plain sentence.
        evidence: The measurements behind it.
    """

    value: Any = None
    reason: str = ""
    evidence: Kept = field(default_factory=Evidence)

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
    cost: ChoosingCost = Field(default_factory=ChoosingCost)
    """What choosing and training cost, in plain runs; empty when nothing was measured."""
    others: Json = Field(default_factory=dict)
    """What else a strategy keeps."""

    @classmethod
    def unpacked(cls, content: Mapping[str, object]) -> Json:
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

    def to_json(self) -> Json:
        """JSON values in the layout of the file."""
        content = self.model_dump(mode="json", by_alias=True)
        choices, cost, others = (content.pop(name) for name in ("choices", "cost", "others"))
        values: Json = content | choices | others
        return values | {"cost": cost} if cost else values

"""The facts that a model card is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lorafit.config import Config
from lorafit.evidence import Choice, Evaluation
from lorafit.model.new_tokens import NewTokens
from lorafit.tasks.base import Task


@dataclass(frozen=True)
class Card:
    """The facts of one adapter."""

    config: Config
    """The resolved settings of the run."""
    task: Task
    base_name: str | None
    """`LoadedModel.base_name`."""
    rows: Mapping[str, int]
    """Split to encoded rows."""
    max_length: int
    adapter: Mapping[str, Any]
    """The content of ``adapter_config.json``."""
    choices: Mapping[str, Choice] = field(default_factory=dict)
    """What was chosen automatically, by setting."""
    evaluation: Evaluation | None = None
    """What was measured."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Package to version."""
    trainable_parameters: int | None = None
    steps: int | None = None
    """Optimizer steps that were trained."""
    title: str | None = None
    """Heading; ``None``: made from the base model and the data."""
    data_hub_id: str | None = None
    """Set only if the data came from the Hub."""
    license: str | None = None
    """SPDX-style id as the Hub spells it; ``None``: what the base's own card says, if it does."""
    in_run: bool = False
    """The data was read by a run, so that a name that is no path is one of the Hub."""
    resized_head: bool = False
    """`LoadedModel.resized_head`."""
    new_tokens: NewTokens = field(default_factory=NewTokens)
    """`LoadedModel.new_tokens`."""

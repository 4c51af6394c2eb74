"""``lorafit.json`` beside an adapter: the task with its labels, and how the base was loaded.

An adapter comes from anywhere, so the file is checked once, here, before anything is done with
it; and what it says of trust is a record (`lorafit.trust`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorafit.config import GenerateConfig, ModelConfig
from lorafit.data.read.rows import broken_character
from lorafit.errors import AdapterError, DataError, RunError
from lorafit.evidence.json import Json
from lorafit.run import atomic
from lorafit.tasks import tasks
from lorafit.tasks.base import Task
from lorafit.trust import recorded

FACTS = "lorafit.json"
"""Name of the file in the adapter's folder."""
LONGEST = 2**24
"""Most tokens of an input, far above what any model takes."""


class Facts(BaseModel):
    """What the file holds; what a later version adds is passed over."""

    model_config = ConfigDict(extra="ignore")

    task: Json
    """Of `lorafit.tasks.base.Task.to_dict`."""
    max_length: Annotated[int, Field(gt=0, le=LONGEST)]
    """Longest input in tokens."""
    model: ModelConfig
    """How the base was loaded."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Seed of the run."""
    generate: GenerateConfig = Field(default_factory=GenerateConfig)
    """How texts are written; files of earlier versions do not say."""
    base: Json | None = None
    """What the base was (`lorafit.model.identity`); ``None``: not known."""

    def bound_task(self, source: str) -> Task:
        """The task, bound to its columns and labels.

        Raises:
            AdapterError: There is no such task, or what is stored of it is wrong.
        """
        name = self.task.get("name")
        if not isinstance(name, str) or name not in tasks:
            known = ", ".join(tasks)
            raise AdapterError(f"{source}: task.name is {name!r:.60}, and not one of {known}.")
        try:
            task = tasks[name].from_dict(self.task)
        except DataError as error:
            raise AdapterError(f"{source}: task: {error}") from None
        if len(set(task.text)) < len(task.text):
            raise AdapterError(f"{source}: task.text names a column twice: {', '.join(task.text)}.")
        return task


def read(adapter: Path) -> tuple[Facts, Task]:
    """Reads the file beside an adapter.

    Args:
        adapter: The adapter's folder.

    Returns:
        What the file holds, its trust not granted yet, and the task.

    Raises:
        AdapterError: It cannot be read, or a value is missing or wrong; the message names it.
    """
    file = adapter / FACTS
    source = f'"{file}"'
    try:
        values = atomic.read_json(file)
    except RunError as error:
        raise AdapterError(str(error)) from error
    if broken_character(values) is not None or r"\u0000" in json.dumps(values):
        raise AdapterError(f"{source} is not usable: a text in it holds what is no character.")
    try:
        facts = Facts.model_validate(values, strict=True)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}"
            for one in error.errors(include_url=False, include_input=False)
        )
        raise AdapterError(f"{source} is not usable: {problems}.") from None
    facts.model = recorded(facts.model, source)
    return facts, facts.bound_task(source)

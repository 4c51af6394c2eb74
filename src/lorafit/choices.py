"""The choices a run makes for the user, each with its reason and evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorafit.config import Config
from lorafit.pipeline import Problem, Subject
from lorafit.run import Choice

REASONS = {
    "train.learning_rate": (
        "LoRA wants about ten times the rate of full fine-tuning; 2e-3 was the best of "
        "3e-4, 1e-3, 2e-3 and 4e-3 on movie reviews with a small encoder"
    ),
    "adapter.r": "small ranks suffice for data sets of this size; start small",
    "adapter.lora_alpha": (
        "the same for every rank: then the best learning rate hardly depends on the rank"
    ),
    "adapter.target_modules": (
        "all linear layers: attention alone is worse even with as many parameters"
    ),
}
"""Why the defaults are what they are (docs/explanation has the sources)."""


def made_choices(
    problem: Problem, subject: Subject, config: Config, origins: Mapping[str, str]
) -> dict[str, Choice]:
    """What was chosen for this run: by the user, by default, or by looking at the data."""
    settings = config.adapter.settings
    values: dict[str, Any] = {"train.learning_rate": config.train.learning_rate}
    values |= {f"adapter.{name}": value for name, value in settings.items()}
    task = problem.task
    found = {"task": task.name, "text": list(task.text), "label": task.label}
    choices = {name: Choice(found[name], reason) for name, reason in task.reasons.items()}
    sites = subject.adapters.sites["default"]
    for key, reason in REASONS.items():
        if key not in values or (key != "train.learning_rate" and config.adapter.method != "lora"):
            continue
        origin = origins.get(key, "default")
        value = values[key]
        if key == "train.learning_rate" and config.adapter.method != "lora":
            reason = f"a common rate for {config.adapter.method}; not measured for this task"
        choices[key.rpartition(".")[2]] = Choice(
            value,
            f"default: {reason}" if origin == "default" else f"set by {origin}",
            {"layers": len(sites)} if key == "adapter.target_modules" else {},
        )
    return choices

"""The choices a run makes for the user, each with its reason and evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorafit.evidence.json import Json
from lorafit.model.kind import kind_of_model
from lorafit.pipeline.job import Job
from lorafit.run import Choice
from lorafit.settings import DEFAULT

TEN_TIMES = "LoRA wants about ten times the rate of full fine-tuning"
ENCODERS = (
    "0.002 was the best of 0.0003, 0.001, 0.002 and 0.004 on movie reviews with a small encoder"
)
GENERATORS = "0.002 is for small models and was not measured for this one; larger ones want less"
"""Why it is what it is: the one where it was measured, the other for models that write."""

REASONS = {
    "train.learning_rate": TEN_TIMES,
    "adapter.r": "small ranks suffice for data sets of this size; start small",
    "adapter.lora_alpha": (
        "the same for every rank: then the best learning rate hardly depends on the rank"
    ),
    "adapter.target_modules": (
        "all linear layers: attention alone is worse even with as many parameters"
    ),
}
"""Why the defaults are what they are (docs/explanation has the sources)."""


def made_choices(job: Job) -> dict[str, Choice]:
    """What was chosen for this run: by the user, by default, or by looking at the data."""
    adapter, task = job.config.adapter, job.task
    values: Json = {"train.learning_rate": job.config.train.learning_rate}
    values |= {f"adapter.{name}": value for name, value in adapter.settings.items()}
    found = {"task": task.name, "text": list(task.text), "label": task.label}
    choices = {name: Choice(found[name], reason) for name, reason in task.reasons.items()}
    sites = job.subject.adapters.sites["default"]
    for key, reason in REASONS.items():
        if key not in values or (key != "train.learning_rate" and adapter.method != "lora"):
            continue
        origin, value = job.settings.origin(key), values[key]
        if key == "train.learning_rate" and adapter.method != "lora":
            reason = f"a common rate for {adapter.method}; not measured for this task"
        elif key == "train.learning_rate":
            reason = f"{reason}; {_about_the_rate(job)}"
        choices[key.rpartition(".")[2]] = Choice(
            value,
            f"default: {reason}" if origin == DEFAULT else f"set by {origin}",
            {"layers": len(sites)} if key == "adapter.target_modules" else {},
        )
    return choices


def _about_the_rate(job: Job) -> str:
    """What was measured of the default rate, for a model of this kind."""
    kind = kind_of_model(job.subject.model)
    return GENERATORS if kind.generates or kind.encoder_decoder else ENCODERS


def record_choices(
    job: Job, measured: Mapping[str, Choice] | None = None, extra: Mapping[str, Any] | None = None
) -> dict[str, Choice]:
    """Writes ``choices.json``: what was set, guessed or left as it is, and what was measured.

    Args:
        job: A job that was begun.
        measured: Choices that were measured, which take the place of others.
        extra: Entries that are no choices, such as ``cost``.

    Returns:
        All choices, by name.
    """
    choices = made_choices(job) | dict(measured or {})
    job.folder.write_choices(choices, **(extra or {}))
    return choices

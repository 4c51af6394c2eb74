"""Which methods fit the model: tried on it before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from datasets import Dataset

from lorafit import pipeline
from lorafit.errors import AdapterError, ConfigError
from lorafit.evidence.json import Json
from lorafit.methods import methods
from lorafit.model.load import LoadedModel, max_length
from lorafit.pipeline.problem import Live, Problem
from lorafit.settings import Settings, from_keywords, resolve
from lorafit.settings.keys import method_fields

log = logging.getLogger(__name__)

ALL = "all"


@dataclass(frozen=True)
class Entry:
    """One method that takes part.

    Attributes:
        settings: Of its adapter, complete.
        learning_rate: Where its search starts.
        reserved_tokens: Positions of the model that the method takes itself.
    """

    settings: Json
    learning_rate: float
    reserved_tokens: int


@dataclass(frozen=True)
class Field:
    """Who takes part.

    Attributes:
        entries: By method.
        left_out: Why other methods do not fit.
        loaded: The base model, as it came.
        parameters: How many it has.
        train: The encoded training examples.
        shortest_limit: Tokens of an input that every method takes.
    """

    entries: dict[str, Entry]
    left_out: dict[str, str]
    loaded: LoadedModel
    parameters: int
    train: Dataset
    shortest_limit: int


class Asked(NamedTuple):
    """Methods that were asked for.

    Attributes:
        names: Of the methods.
        leave_out: Whether those that do not fit are left out, or an error.
    """

    names: Sequence[str]
    leave_out: bool


def names_of(asked: Sequence[str] | str) -> Asked:
    """The methods asked for, and whether those that do not fit are left out.

    Args:
        asked: Names; ``all`` stands for those of lorafit itself.

    Raises:
        ConfigError: There is no such method, or none is named.
    """
    given = asked.split(",") if isinstance(asked, str) else list(asked)
    named = [name.strip() for name in given if name.strip()]
    if not named:
        raise ConfigError("which methods? Name some, or all.")
    names = [one for name in named for one in (methods if name == ALL else [name])]
    for name in names:
        methods[name]
    return Asked(list(dict.fromkeys(names)), ALL in named)


def enter(problem: Problem, settings: Settings, asked: Asked, live: Live | None = None) -> Field:
    """Tries each method on the model.

    Args:
        problem: What is to be learned.
        settings: Those of all; of the adapter's, those that a method has are its own.
        asked: The methods.
        live: The model; ``None``: the one that the settings name.

    Raises:
        ConfigError: A method does not fit, or none does; the message has them all.
        DataError: The data cannot be trained on.
    """
    task, config, names = problem.task, settings.config, asked.names
    loaded = pipeline.load_base(config.model, task, config.seed, live=live)
    length = max_length(config.data.max_length, loaded.tokenizer, loaded.model)
    given = {
        name: value
        for name, value in config.adapter.settings.items()
        if settings.is_set(f"adapter.{name}")
    }
    entries: dict[str, Entry] = {}
    refused: dict[str, str] = {}
    for name in names:
        fitting = {f"adapter.{k}": v for k, v in given.items() if k in method_fields(name)}
        minimal = {"model.name_or_path": "m", "data.path": "d", "adapter.method": name}
        resolved = resolve(from_keywords(minimal | fitting, name)).config
        own = config.model_copy(update={"adapter": resolved.adapter})
        try:
            complete = pipeline.try_adapter(own, loaded, task)
        except (ConfigError, AdapterError) as error:
            refused[name] = str(error)
            continue
        taken = methods[name]().reserved_tokens(complete)
        entries[name] = Entry(resolved.adapter.settings, resolved.train.learning_rate, taken)
    if refused and (not asked.leave_out or not entries):
        reasons = "\n".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ConfigError(
            f"{len(refused)} of {len(names)} methods do not fit this model.\n{reasons}"
        )
    for name, reason in refused.items():
        log.info("left out: %s: %s", name, reason)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    encoded = pipeline.encode(problem, loaded.tokenizer, length)
    pipeline.data_truth(encoded, loaded, task, config).enforce(task.findings)
    reserved = max(entry.reserved_tokens for entry in entries.values())
    limit = max_length(None, loaded.tokenizer, loaded.model, reserved=reserved)
    return Field(entries, refused, loaded, parameters, encoded["train"], limit)


def check_left_to_compare(settings: Settings) -> None:
    """Refuses settings that every arm finds for itself.

    Raises:
        ConfigError: One of them is set.
    """
    search = "each method gets the same search, of --budget runs"
    for key, instead in (
        ("train.learning_rate", "a rate is found for each method"),
        ("adapter.method", "name methods with --methods"),
        *((key, search) for key in settings.origins if key.startswith("tune.")),
    ):
        if settings.is_set(key):
            raise ConfigError(f"compare takes no {key} ({settings.origin(key)}): {instead}.")

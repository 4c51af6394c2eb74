"""What is to be learned: data read, task and columns chosen, splits carved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit.config import Config, ModelConfig
from lorafit.data.carve import Roles, carve
from lorafit.data.columns.choose import label_columns
from lorafit.data.findings import Findings
from lorafit.data.read.source import load_splits
from lorafit.data.spellings import spelled_as
from lorafit.errors import ConfigError
from lorafit.model import identity
from lorafit.model.identity import Identity
from lorafit.model.kind import kind_of_model
from lorafit.settings import LIVE
from lorafit.tasks import tasks
from lorafit.tasks.base import Task
from lorafit.tasks.guess import guess_task
from lorafit.tasks.parts.generative import GenerativeTask


@dataclass(frozen=True)
class Live:
    """A model that was passed as an object, with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Problem:
    """What is to be learned: the task and its three disjoint splits, as rows."""

    task: Task
    splits: DatasetDict


def identified(config: ModelConfig, live: Live | None) -> Identity | None:
    """What a base model is; ask before there are adapters on a live one.

    Returns:
        ``None``: it is not on this machine (yet).
    """
    if live is not None:
        fits = isinstance(live.model, PreTrainedModel)  # else taking it says what is wrong
        return identity.of_object(live.model, live.tokenizer) if fits else None
    return None if config.name_or_path == LIVE else identity.of_files(config)


def pose(data: Any, config: Config, live: Live | None = None) -> Problem:
    """Reads the data, chooses task and columns, and carves missing splits off.

    Args:
        data: What `lorafit.data.read.source.load_splits` takes.
        config: The task is guessed if it names none.
        live: The model; ``None``: the one ``config.model`` names, of which only the config
            is read, and only for the guess.

    Raises:
        DataError: The data cannot be read, or not be trained on.
        ModelError: There is no such model.
    """
    findings = Findings()
    splits = load_splits(data, config.data, findings)
    if config.task is None:
        kind = kind_of_model(config.model if live is None else live.model)
        found, why = guess_task(splits, config.data, kind, findings)
    else:
        found, why = tasks[config.task], "as asked"
    task = found.from_data(splits, config.data)
    task.special_tokens = config.data.special_tokens
    task.reasons = {"task": why, **task.reasons}
    findings.take(task.findings)
    task.findings = findings  # from here on it takes what is found on the way to its examples
    return Problem(task, carve(splits, roles(task), config.data, config.seed, findings))


def roles(task: Task) -> Roles:
    """What the columns are for, to those who carve."""
    one_answer = not isinstance(task, GenerativeTask)
    return Roles(task.label, task.text, task.stratified, one_answer)


def test_rows(data: Any, config: Config, task: Task) -> tuple[Dataset, str]:
    """The rows `evaluate` scores: other data, or the run's own test split, carved again.

    Returns:
        The rows, and which they are: the name of a split, or ``all rows`` of data without splits.

    Raises:
        DataError: The data cannot be read or lacks the task's columns.
    """
    if data is None:
        known = config.model_copy(update={"task": task.name})
        return pose(config.data.path, known).splits["test"], "test"
    # The files of the run's own splits are none of the other data's.
    alone = config.data.model_copy(update={"test": None, "validation": None})
    splits = load_splits(data, alone)
    name = "test" if "test" in splits else next(iter(splits))
    rows = splits[name]
    if config.data.clean_labels:
        rows = spelled_as(rows, label_columns(task.label), getattr(task, "label_names", ()))
    return rows, "all rows" if list(splits) == ["train"] else name


def live_model(model: Any, tokenizer: Any) -> Live | None:
    """The model with its tokenizer if it was passed as an object; ``None``: it is named.

    Raises:
        ConfigError: The tokenizer is missing.
    """
    if not isinstance(model, PreTrainedModel):
        return None
    if tokenizer is None:
        raise ConfigError(
            "a live model needs its tokenizer: lorafit.train(model, data, tokenizer=tokenizer)."
        )
    return Live(model, tokenizer)

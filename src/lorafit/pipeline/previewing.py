"""Data as the model will see it: what `lorafit.preview` shows."""

from __future__ import annotations

from dataclasses import replace

from lorafit import pipeline, quiet
from lorafit.config import Config
from lorafit.data.columns.choose import Columns, label_columns
from lorafit.inspection.reader import Reader
from lorafit.inspection.rows import Preview, Sampling
from lorafit.inspection.rows import preview as describe_data
from lorafit.inspection.tokens import of_tokens
from lorafit.pipeline.problem import Live, Problem
from lorafit.tasks.parts.generative import GenerativeTask

WITHOUT_LIMIT = 1_000_000
"""Tokens; longer than any example."""


def describe(problem: Problem, config: Config, live: Live | None = None) -> Preview:
    """Describes the rows, what their encoding keeps of them, and what they teach.

    Args:
        problem: The task and its rows.
        config: The settings; their adapter is tried on the model.
        live: The model; ``None``: the one that the settings name.

    Raises:
        ConfigError: The adapter does not fit the model.
        ModelError: The model cannot be loaded.
    """
    task = problem.task
    loaded = pipeline.load_base(config.model, task, config.seed, live=live)
    limit = pipeline.longest_input(config, loaded, pipeline.try_adapter(config, loaded, task))
    encoded = pipeline.encode(problem, loaded.tokenizer, limit)
    reader = Reader(loaded.tokenizer, limit, task.special_tokens)
    sampling = Sampling(config.seed)
    shown = _rows(problem, reader, sampling)
    if task.supervision != "example":
        with quiet.saying_less("lorafit"):
            whole = pipeline.encode(problem, loaded.tokenizer, WITHOUT_LIMIT)
        shown = of_tokens(shown, encoded, whole, reader, sampling)
    truth = pipeline.data_truth(encoded, loaded, task, config)
    labels = {name: split.labels for name, split in truth.splits.items()}
    return replace(shown, task=task.name, label=task.label, truth=truth, labels=labels)


def _rows(problem: Problem, reader: Reader, sampling: Sampling) -> Preview:
    task = problem.task
    # A list of labels, or labels of tokens, are no class a row, of which to count the rows.
    counted = task.supervision == "example" and isinstance(task.label, str)
    columns = Columns(
        task.text,
        task.label if counted else None,
        task.reasons.get("text", ""),
        task.reasons.get("label", ""),
    )
    # A prompt may have several answers.
    answer = label_columns(task.label) if isinstance(task, GenerativeTask) else ()
    return describe_data(problem.splits, columns, reader, answer=answer, sampling=sampling)

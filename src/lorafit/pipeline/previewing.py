"""Data as the model will see it: what `lorafit.preview` shows."""

from __future__ import annotations

from dataclasses import replace

from lorafit import pipeline, quiet
from lorafit.config import Config
from lorafit.data.columns.choose import Columns, label_columns
from lorafit.inspection.rows import Preview
from lorafit.inspection.rows import preview as describe_data
from lorafit.inspection.tokens import of_tokens
from lorafit.model.load import LoadedModel
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
    shown = _rows(problem, loaded, limit, config.seed)
    if task.supervision != "example":
        with quiet.saying_less("lorafit"):
            whole = pipeline.encode(problem, loaded.tokenizer, WITHOUT_LIMIT)
        shown = of_tokens(shown, encoded, whole, loaded.tokenizer, limit, seed=config.seed)
        shown = replace(shown, label=task.label)  # no class a row, of which to count the rows
    truth = pipeline.data_truth(encoded, loaded, task, config)
    labels = {name: split.labels for name, split in truth.splits.items()}
    return replace(shown, task=task.name, truth=truth, labels=labels)


def _rows(problem: Problem, loaded: LoadedModel, limit: int, seed: int) -> Preview:
    task = problem.task
    return describe_data(
        problem.splits,
        task.text,
        task.label if task.supervision == "example" else None,
        loaded.tokenizer,
        limit,
        # A prompt may have several answers.
        answer=label_columns(task.label) if isinstance(task, GenerativeTask) else (),
        columns=Columns(
            task.text, task.label, task.reasons.get("text", ""), task.reasons.get("label", "")
        ),
        special_tokens=task.special_tokens,
        seed=seed,
    )

"""The calls on a run that has been trained: what it predicts, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorafit import pipeline
from lorafit.console.calls import shown
from lorafit.errors import ConfigError
from lorafit.pipeline import predicting, seen, unchanged
from lorafit.pipeline.measure import measured
from lorafit.pipeline.tuned import Tuned, load, opened
from lorafit.run import Run
from lorafit.settings import LIVE
from lorafit.training import guest


@shown
@guest.as_found()
def evaluate(run: str | Path | Run, data: Any = None, *, progress: bool = True) -> dict[str, Any]:
    """Scores the base and the tuned model of a run.

    Args:
        run: A finished run.
        data: Other data with the same columns; its test split, or all its rows if it has
            only one. ``None``: the run's own test split.
        progress: Whether to show what is said along the way; ``False``: warnings only.

    Returns:
        What ``eval.json`` holds; see `Run.eval`. For other data also ``split`` (``all rows``
        where it has none) and ``trained_on``: how many of the rows the run was trained on, which
        is a warning too; ``None``: not known.

    Raises:
        RunError: There is no such run, or it has no adapter yet.
        DataError: The data cannot be read, lacks the task's columns, or is not what it was.
    """
    run = opened(run)
    tuned, config = load(run), run.config
    if config.data.path == LIVE and data is None:
        raise ConfigError(f'"{run.path}" was made from data in memory; pass data to evaluate on.')
    rows, split = pipeline.test_rows(data, config, tuned.task)
    if data is None:
        unchanged.check_unchanged(
            run, {"test": rows}, "Pass the data to evaluate on, as it is now."
        )
    encoded = tuned.task.encode(rows, tuned.tokenizer, tuned.max_length)
    found = measured(tuned, rows, encoded, config)
    outcome = found.model_copy(update={"split": split}).to_json()
    if data is not None:
        outcome["trained_on"] = seen.say(run, rows, tuned.task)
    return outcome


@shown
@guest.visiting()
def predict(run: str | Path | Run | Tuned, texts: Any) -> list[dict[str, Any]]:
    """Predicts with the tuned model of a run.

    Args:
        run: What `load` takes, or what it returned (saves loading it again).
        texts: A text; texts in a list, tuple, series, array or generator; pairs of texts for a
            task on pairs, lists of words for tags, conversations for a chat; or rows with the
            run's text columns: dicts, a pandas DataFrame, a `datasets.Dataset`, a `Path`.

    Returns:
        For each text what the task says of it: label, probability, ...

    Raises:
        DataError: Something is not a text, or is empty; the message names which.
    """
    return predicting.predict(run if isinstance(run, Tuned) else load(run), texts)

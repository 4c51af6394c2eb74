"""The calls on a run that has been trained: it is loaded, what it predicts, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit import pipeline
from lorafit.console.calls import shown
from lorafit.data.answers import check_target, write_table
from lorafit.errors import ConfigError
from lorafit.evidence.evaluated import Evaluated
from lorafit.pipeline import evaluations, predicting, seen, unchanged
from lorafit.pipeline import tuned as tuned_models
from lorafit.pipeline.measure import measured
from lorafit.pipeline.tuned import Tuned, opened
from lorafit.run import Run
from lorafit.settings import LIVE
from lorafit.training import guest
from lorafit.trust import Trust


@shown
def load(
    source: str | Path | Run,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    device: str = "auto",
    dtype: str | None = None,
    progress: bool = True,
) -> Tuned:
    """Puts a trained adapter on its base model.

    Args:
        source: The run, its folder, its name below ``runs/``, or a folder with an adapter
            that lorafit made (the run is not needed then).
        model: The base model, for a run that was made from a live one.
        tokenizer: Its tokenizer.
        trust_remote_code: Whether Python code that comes with the base may run. What the
            adapter's files say of it does not count.
        attn_implementation: The attention of the base; ``None``: as on record, where it is one
            of transformers' own. A kernel of the Hub is code, too, and runs only if named here.
        device: Where it predicts: ``auto`` (a GPU where torch finds one), ``cpu``, ``cuda``,
            ``cuda:N`` or ``mps``.
        dtype: What it predicts in: ``float32``, ``bfloat16`` (faster where the processor multiplies
            it; answers change a little, see `docs/explanation/engines.md`), or ``None``: as the
            weights are stored. Texts that are written are always computed as stored.
        progress: As for `evaluate`.

    Raises:
        RunError: There is no such run, or it has no adapter yet.
        AdapterError: The adapter does not fit the model, or its files are damaged.
        ModelError: The base cannot be loaded, or needs code that was not allowed.
        ConfigError: There is no such device, or no such type of numbers.
    """
    trust = Trust(trust_remote_code, attn_implementation)
    return tuned_models.load(source, model, tokenizer, trust=trust, device=device, dtype=dtype)


@shown
@guest.as_found()
def evaluate(
    run: str | Path | Run,
    data: Any = None,
    out: str | Path | None = None,
    *,
    encoding: str | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Evaluated:
    """Scores the base and the tuned model of a run.

    An evaluation on other data is kept in the run's folder, below ``evaluations``, with what both
    models said of each row.

    Args:
        run: A finished run.
        data: Other data with the same columns; its test split, or all its rows if it has
            only one. ``None``: the run's own test split.
        out: A csv, tsv, jsonl or parquet file that does not exist: takes what both models said of
            each row; the last two have every probability.
        encoding: How a text file with other data is stored; ``None``: as the run's own data.
        trust_remote_code: As for `load`.
        attn_implementation: As for `load`.
        device: As for `load`, wherever the run was trained.
        progress: Whether to show what is said along the way; ``False``: warnings only.

    Returns:
        What ``eval.json`` holds, as a dict; see `Run.eval`. For other data also ``split`` (``all
        rows`` where it has none), ``data``, its name, and ``trained_on``: how many of the rows the
        run was trained on, which is a warning too; ``None``: not known. Besides that
        ``predictions`` (a DataFrame as that of `Run.predictions`), ``mistakes()``, ``flips()``,
        and ``path``, where it is kept.

    Raises:
        RunError: There is no such run, or it has no adapter yet.
        ConfigError: There is an encoding, but no other data; or there is no such device.
        DataError: The data cannot be read, lacks the task's columns, or is not what it was; or
            ``out`` exists or cannot be written.
    """
    if out is not None:
        check_target(Path(out))
    if encoding is not None and data is None:
        raise ConfigError(
            "the run's own data are read as they were for training: --encoding is for other DATA."
        )
    run = opened(run)
    trust = Trust(trust_remote_code, attn_implementation)
    tuned, config = tuned_models.load(run, trust=trust, device=device), run.config
    there = config.train.model_copy(update={"device": device})
    config = config.model_copy(update={"train": there})
    if config.data.path == LIVE and data is None:
        raise ConfigError(f'"{run.path}" was made from data in memory; pass data to evaluate on.')
    if encoding is not None:
        other = config.data.model_copy(update={"encoding": encoding})
        config = config.model_copy(update={"data": other})
    rows, split = pipeline.test_rows(data, config, tuned.task)
    if data is None:
        unchanged.check_unchanged(
            run, {"test": rows}, "Pass the data to evaluate on, as it is now."
        )
    encoded = tuned.task.encode(rows, tuned.tokenizer, tuned.max_length)
    config = evaluations.named(config, data)
    found, said = measured(tuned, rows, encoded, config)
    outcome = found.model_copy(update={"split": split}).to_json()
    folder, name = None, config.data.path
    if data is not None:
        outcome |= {"data": name, "trained_on": seen.say(run, rows, tuned.task)}
        folder = evaluations.keep(run, name, outcome, said)
    if out is not None:
        write_table(Path(out), said, named=tuned.task.supervision == "example")
    return Evaluated(outcome, said, folder)


@shown
@guest.visiting()
def predict(
    run: str | Path | Run | Tuned,
    texts: Any,
    *,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    device: str = "auto",
    dtype: str | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Predicts with the tuned model of a run.

    Args:
        run: What `load` takes, or what it returned (saves loading it again).
        texts: A text; texts in a list, tuple, series, array or generator; pairs of texts for a
            task on pairs, lists of words for tags, conversations for a chat; or rows with the
            run's text columns: dicts, a pandas DataFrame, a `datasets.Dataset`, a `Path`.
        trust_remote_code: As for `load`.
        attn_implementation: As for `load`.
        device: As for `load`; of what `load` returned it is the one given there.
        dtype: Likewise.
        progress: As for `evaluate`.

    Returns:
        For each text what the task says of it: label, probability, ...

    Raises:
        DataError: Something is not a text, or is empty; the message names which.
    """
    if not isinstance(run, Tuned):
        trust = Trust(trust_remote_code, attn_implementation)
        run = tuned_models.load(run, trust=trust, device=device, dtype=dtype)
    return predicting.predict(run, texts)

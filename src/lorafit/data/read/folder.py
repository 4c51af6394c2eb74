"""A folder of data files to its splits: ``train.csv`` and ``dev.csv``, shards, sub-folders.

Understood are files named after splits, shards of them (``train-00000-of-00002.parquet``),
folders named after splits, the same below ``data/`` (how the Hub lays data sets out), one
single data file (it becomes the training split), and what ``save_to_disk`` writes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict

from lorafit.data.read.files import format_of, plain_name, read_file, read_rows
from lorafit.data.read.reading import PLAIN, Reading
from lorafit.data.read.splits import assign, split_of
from lorafit.errors import DataError
from lorafit.evidence.json import parsed

_SAVED = ("dataset_dict.json", "state.json")


def read_folder(folder: Path, reading: Reading = PLAIN) -> dict[str, Dataset]:
    """Reads the splits of a folder.

    Args:
        folder: The folder.
        reading: What to leave out, and how text is stored.

    Raises:
        DataError: There is no data file, or it is not clear which file is which split.
    """
    try:
        if any((folder / name).is_file() for name in _SAVED):
            return _saved(folder, reading)
        files = _data_files(folder)
        if not files and (folder / "data").is_dir():
            folder = folder / "data"
            files = _data_files(folder)
        entries = sorted(entry.name for entry in folder.iterdir() if not _hidden(entry))
    except OSError as error:
        raise DataError(f'cannot read "{folder}": {error.strerror or error}.') from error
    if (folder / "config.json").is_file() and not any(map(split_of, files)):
        raise DataError(
            f'"{folder}" is the folder of a model (it has a config.json), not of data. The order '
            "is MODEL, then DATA: lorafit train MODEL DATA."
        )
    if not files:
        raise DataError(
            f'"{folder}" has no data files (csv, tsv, json, jsonl, parquet, arrow). '
            + (f"It has {', '.join(entries[:8])}." if entries else "It is empty.")
        )
    chosen, _, said = assign(files, f'"{folder}"')
    if not chosen:
        if len(files) > 1:
            raise DataError(
                f'"{folder}" has {len(files)} data files and none is named after a split: '
                f"{', '.join(sorted(files)[:8])}. Give one of them, or name them train, "
                "validation and test."
            )
        chosen = {"train": next(iter(files))}
    for line in said:
        reading.findings.note(line)
    return {split: _concatenate(files[name], folder, reading) for split, name in chosen.items()}


def _hidden(path: Path) -> bool:
    return path.name.startswith((".", "_"))


def _data_files(folder: Path) -> dict[str, list[Path]]:
    """The data files of a folder: name without suffixes and shard numbers to its files."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if _hidden(path):
            continue
        if path.is_dir():
            below = [file for file in sorted(path.iterdir()) if not _hidden(file)]
            shards = [file for file in below if file.is_file() and format_of(file)]
            if shards and split_of(path.name):
                groups.setdefault(path.name, []).extend(shards)
        elif format_of(path) and not (path.suffix == ".json" and _is_about(path)):
            groups.setdefault(_without_shard(plain_name(path)), []).append(path)
    for name, files in groups.items():
        formats = {format_of(file) for file in files}
        if len(formats) > 1 or (len(files) > 1 and not all(_is_shard(file) for file in files)):
            raise DataError(
                f'"{folder}" has more than one file for "{name}": '
                f"{', '.join(str(file.relative_to(folder)) for file in files)}. Keep one of them."
            )
    return groups


def _is_about(path: Path) -> bool:
    """Whether a json file describes the data rather than holding it."""
    return plain_name(path).lower() in ("dataset_info", "dataset_infos", "metadata", "state")


def _without_shard(name: str) -> str:
    """``train-00000-of-00002-9a1b`` and ``train_01`` to ``train``."""
    return re.sub(r"[-_.]?\d+(-of-\d+.*)?$", "", name) or name


def _is_shard(path: Path) -> bool:
    name = plain_name(path)
    return _without_shard(name) != name or split_of(path.parent.name) is not None


def _concatenate(files: list[Path], folder: Path, reading: Reading) -> Dataset:
    """One data set of all shards of a split."""
    if len(files) == 1:
        return read_file(files[0], reading)
    reading.findings.note(
        f"{len(files)} files of {folder} are read as one split: {files[0].name} ..."
    )
    try:
        return datasets.concatenate_datasets([read_file(file, reading) for file in files])
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f'the files of "{folder}" do not have the same columns and types: '
            f"{', '.join(file.name for file in files[:4])}. {str(error).splitlines()[0]}"
        ) from error


def _saved(folder: Path, reading: Reading) -> dict[str, Dataset]:
    """What `datasets.Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    try:
        files = _named_files(folder)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise _unreadable(folder, error) from error
    for file in files:
        read_rows(file, reading)  # a damaged one would end the process, or read other memory
    try:
        # In memory: otherwise everything derived from it is cached in the user's folder.
        data = datasets.load_from_disk(str(folder), keep_in_memory=True)
    except Exception as error:
        raise _unreadable(folder, error) from error
    return dict(data) if isinstance(data, DatasetDict) else {"train": data}


def _named_files(folder: Path) -> list[Path]:
    """The files that datasets would read of such a folder, which are those that it names itself.

    Raises:
        ValueError: It names others than ``.arrow`` files in the folder of their split.
        AttributeError, KeyError, TypeError, OSError: It is not what save_to_disk writes.
    """
    parts, about = [folder], folder / "dataset_dict.json"
    if about.is_file():
        parts += [folder / _one_name(split) for split in _json(about)["splits"]]
    files = []
    for part in parts:
        state = part / "state.json"
        if part != folder or state.is_file():
            for entry in _json(state)["_data_files"]:
                name = _one_name(entry["filename"])
                if not name.endswith(".arrow"):
                    raise ValueError(f'its {state.name} names "{name}", which is no .arrow file')
                files.append(part / name)
    return files


def _json(file: Path) -> Any:
    return parsed(file.read_text(encoding="utf-8"))


def _one_name(name: str) -> str:
    """A name without a way to other folders in it.

    Raises:
        ValueError: It is none.
    """
    if not name or name in (".", "..") or not {"/", "\\", ":"}.isdisjoint(name):
        raise ValueError(f'it names "{name}", which is not in the folder')
    return name


def _unreadable(folder: Path, error: Exception) -> DataError:
    return DataError(
        f'"{folder}" looks like a data set written by save_to_disk and cannot be read: '
        f"{(str(error).splitlines() or [type(error).__name__])[0]}"
    )

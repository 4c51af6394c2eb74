"""MODEL and DATA in each other's place."""

from __future__ import annotations

from pathlib import Path

from lorafit.errors import ConfigError, LorafitError
from lorafit.paths import COMPRESSED_SUFFIXES, PACKAGE_PREFIX, resolve

DATA_SUFFIXES = frozenset(
    {".arrow", ".conll", ".csv", ".feather", ".json", ".jsonl", ".ndjson", ".parquet", ".tsv"}
)
"""What no file of a model ends in."""


def check_order(model: str | None, data: str | None, again: str = "") -> None:
    """Notices data where the model belongs, and a model where the data belong.

    Args:
        model: What was given as the model; ``None``: nothing.
        data: What was given as the data; ``None``: nothing.
        again: What to write instead, for the message.

    Raises:
        ConfigError: The model is a file or folder of data, and the data is the folder or the
            GGUF file of a model, or no file or folder at all and may be a model's Hub id.
    """
    if model is None or data is None:
        return
    first, second = _local(model), _local(data)
    if first is None or not _holds_data(first):
        return
    what = "file" if first.is_file() else "folder"
    if second is not None and _is_model(second):
        other = f'"{data}" {"a model" if second.is_file() else "the folder of a model"}'
    elif second is None and not data.startswith(PACKAGE_PREFIX) and not _ends_like_data(data):
        other = f'"{data}" no file or folder here, so perhaps a model'
    else:
        return
    raise ConfigError(
        f'"{model}" is a {what} of data and {other}: the model comes first.'
        + (f"\n{again}" if again else "")
    )


def is_data(name: str) -> bool:
    """Whether there is a file or folder of data of this name."""
    found = _local(name)
    return found is not None and _holds_data(found)


def _local(name: str) -> Path | None:
    """The file or folder of this name; ``None``: there is none."""
    try:
        return resolve(name)
    except LorafitError:
        return None


def _ends_like_data(name: str) -> bool:
    bare = name.lower()
    for suffix in COMPRESSED_SUFFIXES:
        bare = bare.removesuffix(suffix)
    return bare.endswith((*DATA_SUFFIXES, ".txt"))


def _is_model(path: Path) -> bool:
    return (path / "config.json").is_file() or (path.is_file() and path.suffix.lower() == ".gguf")


def _holds_data(path: Path) -> bool:
    if path.is_file():
        return bool({suffix.lower() for suffix in path.suffixes} & DATA_SUFFIXES)
    try:
        suffixes = {suffix.lower() for entry in path.iterdir() for suffix in entry.suffixes}
    except OSError:
        return False
    return not _is_model(path) and bool(suffixes & (DATA_SUFFIXES - {".json"}))

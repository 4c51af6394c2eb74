"""Which column is the text and which is the label: by name first, then by what they hold.

A guess is only made where there is one clear candidate, and it is said; everything else is
an error that lists the columns and names the setting that decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Value

from lorafit.config import DataConfig
from lorafit.data.columns.values import (
    class_name,
    column_table,
    column_values,
    features_of,
    is_missing,
)
from lorafit.errors import DataError, did_you_mean
from lorafit.units import listed

TEXT_NAMES = (
    *("text", "sentence", "review", "content", "document", "comment", "tweet", "message"),
    *("body", "review_text", "review_body", "comment_text", "tweet_text", "utterance"),
    *("question", "query", "headline", "description", "title", "texts", "sentences", "reviews"),
)
"""In order of preference: a ``title`` is only the text where nothing better is there."""
ID_NAMES = ("id", "idx", "index", "uid", "uuid", "guid", "key", "row_id", "doc_id", "example_id")
"""Columns that are no text, though they may hold letters."""
TEXT_PAIRS = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2")),
    *(("text1", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b")),
    *(("question", "sentence"), ("question", "passage"), ("query", "passage")),
)
LABEL_NAMES = ("label", "labels")
"""These win over the next ones."""
OTHER_LABEL_NAMES = (
    *("target", "targets", "class", "classes", "category", "categories", "sentiment", "y"),
    *("polarity", "intent", "topic", "emotion", "stance", "rating", "stars", "label_name"),
    *("kategorie", "klasse", "etikett", "thema", "catégorie", "classe", "étiquette", "thème"),
    *("categoría", "categoria", "clase", "etiqueta", "categorie", "类别", "标签"),
    *("label_text", "gold_label", "coarse_label", "is_spam", "spam", "toxic", "verdict"),
)

BY_NAME, BY_NAMES = "by its name", "by their names"
"""Reasons for columns that are called as such columns are."""

_MOST_NAMED = 20
"""Columns that a message lists: a table of sensors or word counts can have thousands."""
_MOST_CLASSES = 50
"""More distinct values than this in an unnamed column are no classes."""
_CLEARLY_LONGER = 2.0
"""Factor in mean length by which one text column has to win over the next."""


@dataclass(frozen=True)
class Columns:
    """The chosen columns."""

    text: tuple[str, ...]
    """One column, or two for text pairs."""
    label: str | None
    text_reason: str
    label_reason: str

    def __str__(self) -> str:
        noun = "text column" if len(self.text) == 1 else "text columns"
        said = f"{noun}: {' and '.join(self.text)} ({self.text_reason})"
        if self.label is not None:
            said += f"; label column: {self.label} ({self.label_reason})"
        return said


def choose_columns(
    splits: DatasetDict,
    text: Sequence[str] | None = None,
    label: str | None = None,
    *,
    need_label: bool = True,
    check: Callable[[Dataset, str], None] | None = None,
) -> Columns:
    """Chooses and checks the text and label columns of a classification data set.

    Args:
        splits: The data; the columns are chosen on ``train`` (or the first split there is).
        text: The text column, or two for pairs; ``None``: guess.
        label: The label column; ``None``: guess.
        need_label: Without, no label column is looked for unless one is asked for.
        check: Refuses a label column that was asked for; ``None``: it has to hold classes.

    Returns:
        The columns and the reason for each, which its text form says.

    Raises:
        DataError: A column does not exist or holds something else, or there is no single
            clear candidate.
    """
    split = "train" if "train" in splits else next(iter(splits))
    rows = splits[split]
    asked_text = (
        None if text is None else _asked_text(rows, [text] if isinstance(text, str) else text)
    )
    if label is not None:
        (check or _check_label)(rows, _find(rows, label, "label"))
    if asked_text is not None and label in asked_text:
        raise DataError(f'"{label}" is both the text and the label column.')
    chosen: tuple[tuple[str, ...], str]
    if asked_text is not None:
        chosen = (asked_text, "as asked")
    else:
        taken = label or _label_by_name(rows, ())
        chosen = _guess_text(rows, taken)
    label_reason = ""
    if label is not None:
        label_reason = "as asked" if check else f"as asked, {_distinct(rows, label)}"
    elif need_label:
        label, label_reason = _guess_label(rows, chosen[0])
    columns = Columns(chosen[0], label, chosen[1], label_reason)
    _check_other_splits(splits, columns)
    return columns


def described(rows: Dataset) -> str:
    """The columns and what they hold, for messages; of many the first ones."""
    features = features_of(rows)
    return listed(
        [f"{name} ({kind_of(feature)})" for name, feature in features.items()], _MOST_NAMED
    )


def kind_of(feature: Any) -> str:
    """Returns what a column holds, in one or two words."""
    if isinstance(feature, ClassLabel):
        return "class label"
    if isinstance(feature, Value):
        dtype = str(feature.dtype)
        return "text" if "string" in dtype else "empty" if dtype == "null" else dtype
    return "nested" if isinstance(feature, dict) else type(feature).__name__.lower()


def check_asked(rows: Dataset, config: DataConfig) -> None:
    """Refuses columns that were asked for and do not exist.

    Raises:
        DataError: There is no such column.
    """
    for name in config.text or ():
        _find(rows, name, "text")
    for name in label_columns(config.label):
        _find(rows, name, "label")


def require_columns(rows: Dataset, columns: Sequence[str], role: str = "") -> None:
    """Refuses rows that lack a column.

    Args:
        rows: The rows.
        columns: What has to be there.
        role: What the columns are for, as in ``"which is the text here"``.

    Raises:
        DataError: One is missing; the message names those there are.
    """
    for column in columns:
        if column not in features_of(rows):
            raise DataError(
                f'no column "{column}"{role and f", {role}"}. There are '
                f"{listed(rows.column_names, _MOST_NAMED)}."
                + did_you_mean(column, rows.column_names)
            )


def label_columns(label: str | Sequence[str] | None) -> tuple[str, ...]:
    """One label column, several, or none, as a tuple."""
    return () if label is None else (label,) if isinstance(label, str) else tuple(label)


def _find(rows: Dataset, name: str, setting: str) -> str:
    """A column that was asked for."""
    if name in features_of(rows):
        return name
    raise DataError(
        f'no column "{name}" ({setting}). There are {described(rows)}.'
        + did_you_mean(name, rows.column_names)
    )


def _asked_text(rows: Dataset, names: Sequence[str]) -> tuple[str, ...]:
    if not 1 <= len(names) <= 2:
        raise DataError(f"text takes one column, or two for text pairs; got {len(names)}.")
    for name in names:
        kind = kind_of(features_of(rows)[_find(rows, name, "text")])
        if kind != "text":
            raise DataError(
                f'column "{name}" (text) holds {kind}, not text. There are {described(rows)}.'
            )
    if len(set(names)) < len(names):
        raise DataError(f'text names the column "{names[0]}" twice.')
    return tuple(names)


def _check_label(rows: Dataset, name: str) -> None:
    """Refuses a label column that cannot hold one class per row."""
    feature = features_of(rows)[_find(rows, name, "label")]
    if not _can_label(feature):
        what = "no values at all" if kind_of(feature) == "empty" else kind_of(feature)
        raise DataError(
            f'column "{name}" (label) holds {what}; classification needs one class per row '
            "(text, whole numbers or bools)."
        )
    values = [value for value in column_values(rows, name) if not is_missing(value, feature)]
    if not values:
        raise DataError(f'column "{name}" (label) has no values: every row is empty.')
    fraction = next((v for v in values if isinstance(v, float) and not v.is_integer()), None)
    if fraction is not None:
        raise DataError(
            f'column "{name}" (label) holds numbers such as {fraction}; classification needs '
            "classes. Round them or put them into classes first."
        )
    if len(set(values)) == len(values) > _MOST_CLASSES and isinstance(values[0], str):
        raise DataError(
            f'column "{name}" (label) has a different value in each of its {len(values):,} '
            f"rows; these are no classes. There are {described(rows)}. If a language model is to "
            f"write it, name the prompt too: --text PROMPT --label {name}."
        )


def _can_label(feature: Any) -> bool:
    if isinstance(feature, ClassLabel):
        return True
    return isinstance(feature, Value) and bool(
        re.match(r"(large_)?string|bool|u?int|float", str(feature.dtype))
    )


def by_name(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The columns of which the name is one of the wanted ones, in their order."""
    lower = {name.lower().strip().replace(" ", "_"): name for name in reversed(names)}
    return [lower[name] for name in wanted if name in lower]


def _guess_text(rows: Dataset, label: str | None) -> tuple[tuple[str, ...], str]:
    strings = [
        name
        for name, feature in features_of(rows).items()
        if name != label and kind_of(feature) == "text"
    ]
    if not strings:
        raise DataError(
            f"no column holds text. There are {described(rows)}"
            + (f", and {label} is the label." if label else ".")
        )
    without_ids = [name for name in strings if not by_name([name], ID_NAMES)]
    if not without_ids:
        raise DataError(
            f"no column is the text: {listed(strings, _MOST_NAMED)} names the rows. There are "
            f"{described(rows)}. Choose one with --text."
        )
    strings = without_ids
    first = by_name(strings, TEXT_NAMES[:2])
    if first:
        # A question and a sentence belong together; text and anything else do not.
        pair = next((p for p in TEXT_PAIRS if p[1] == first[0] and p[0] in strings), None)
        return (pair, BY_NAMES) if pair else ((first[0],), BY_NAME)
    for pair in TEXT_PAIRS:
        found = by_name(strings, pair)
        if len(found) == 2:
            return (found[0], found[1]), BY_NAMES
    named = by_name(strings, TEXT_NAMES)
    if len(strings) == 1:
        return (strings[0],), BY_NAME if named else "the only column with text"
    lengths = {name: _mean_length(rows, name) for name in strings}
    # Among columns with a telling name the longest wins: content rather than title.
    for candidates, why in ((named, BY_NAME), (strings, "the longest text")):
        order = sorted(candidates, key=lambda name: -lengths[name])
        if len(order) == 1 or (
            order and lengths[order[0]] >= _CLEARLY_LONGER * max(lengths[order[1]], 1.0)
        ):
            reason = f"mean {lengths[order[0]]:.0f} characters"
            return (order[0],), f"{why}, {reason}" if len(order) > 1 else why
        if order:
            break
    shown = listed(
        [f"{name} (mean {lengths[name]:.0f} characters)" for name in strings], _MOST_NAMED
    )
    raise DataError(
        f"more than one column could be the text: {shown}. "
        f"Choose one with --text, for example --text {strings[0]}."
    )


def _mean_length(rows: Dataset, name: str) -> float:
    column = column_table(rows, [name]).column(name)
    return float(pc.mean(pc.utf8_length(pc.coalesce(column, pa.scalar("", column.type)))).as_py())


def _label_by_name(rows: Dataset, text: tuple[str, ...]) -> str | None:
    """The label column if its name alone says so."""
    usable = [n for n, f in features_of(rows).items() if n not in text and _can_label(f)]
    found = by_name(usable, LABEL_NAMES) or by_name(usable, OTHER_LABEL_NAMES)
    return found[0] if len(found) == 1 or found[:1] == ["label"] else None


def _guess_label(rows: Dataset, text: tuple[str, ...]) -> tuple[str, str]:
    usable = {n: f for n, f in features_of(rows).items() if n not in text and _can_label(f)}
    for wanted in (LABEL_NAMES, OTHER_LABEL_NAMES):
        found = by_name(list(usable), wanted)
        if len(found) == 1 or (found and wanted is LABEL_NAMES):
            _check_label(rows, found[0])
            return found[0], _distinct(rows, found[0])
        if found:
            _ambiguous(rows, found)
    for classes_only in (True, False):
        found = [
            name
            for name, feature in usable.items()
            if isinstance(feature, ClassLabel)
            or (not classes_only and 2 <= _classes(rows, name) <= most_classes(len(rows)))
        ]
        if len(found) == 1:
            return found[0], _distinct(rows, found[0])
        if found:
            _ambiguous(rows, found)
    raise DataError(
        f"no column looks like a label. There are {described(rows)}. Choose one with --label."
    )


def _ambiguous(rows: Dataset, found: list[str]) -> None:
    shown = listed([f"{name} ({_distinct(rows, name)})" for name in found], _MOST_NAMED)
    raise DataError(
        f"more than one column could be the label: {shown}. "
        f"Choose one with --label, for example --label {found[0]}."
    )


def most_classes(rows: int) -> int:
    """How many distinct values may be classes: on average at least two rows each."""
    return min(_MOST_CLASSES, max(2, rows // 2))


def _classes(rows: Dataset, name: str) -> int:
    feature = features_of(rows)[name]
    values = column_values(rows, name)
    if any(isinstance(value, float) and not np.isnan(value) and value % 1 for value in values):
        return 0
    return len({value for value in values if not is_missing(value, feature)})


def _distinct(rows: Dataset, name: str) -> str:
    feature = features_of(rows)[name]
    if isinstance(feature, ClassLabel):
        return f"{feature.num_classes} classes"
    count = _classes(rows, name)
    return f"{count:,} distinct value{'' if count == 1 else 's'}"


def _check_other_splits(splits: DatasetDict, columns: Columns) -> None:
    """The text columns have to be in every split, and the labels of one kind.

    A split may lack the labels (hidden test labels); `carve` then leaves it out.
    """
    first = splits["train" if "train" in splits else next(iter(splits))]
    for split, rows in splits.items():
        for name in columns.text:
            if name not in features_of(rows):
                raise DataError(
                    f'the {split} split has no column "{name}". It has {described(rows)}.'
                    + did_you_mean(name, rows.column_names)
                )
            if kind_of(features_of(rows)[name]) not in ("text", "empty"):
                raise DataError(
                    f'column "{name}" holds text in train and {kind_of(features_of(rows)[name])} '
                    f"in {split}."
                )
        if columns.label is not None and columns.label in features_of(rows):
            one, other = features_of(first)[columns.label], features_of(rows)[columns.label]
            if _label_kind(one) != _label_kind(other) and kind_of(other) != "empty":
                seen = next(iter(column_values(rows, columns.label)), None)
                raise DataError(
                    f'column "{columns.label}" holds {kind_of(one)} in train and '
                    f"{kind_of(other)} in {split} (such as {class_name(seen, other)!r}). "
                    "Give the labels one type in all splits."
                )


def _label_kind(feature: Any) -> str:
    kind = kind_of(feature)
    return "number" if re.match(r"u?int|float|class label", kind) else kind

"""Class labels as data holds them (text, numbers, bools, class labels) to class numbers.

A class is known by its name: ``1``, ``1.0`` and ``"1"`` are one class called ``1``, so that
a task learned from one file fits another that stores the same labels differently.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, List

from lorafit.data.columns.values import class_name, column_values, features_of, is_missing
from lorafit.data.findings import UNKEPT, Findings
from lorafit.data.spellings import spellings
from lorafit.errors import DataError, did_you_mean
from lorafit.units import listed

UNKNOWN = -100
"""Number of a label that is not known; torch's cross entropy leaves it out."""

_WRITTEN = re.compile(r"""\[[\s\S]*\]|[({]\s*['"][\s\S]*[)}]""")
"""A list, tuple, set or object as JSON or Python write it."""
_SHOWN = 10
"""How many names a message lists."""


def read_label_names(splits: DatasetDict, column: str, findings: Findings = UNKEPT) -> list[str]:
    """Returns the classes of the train split, in a fixed order.

    The order is that of the ``ClassLabel`` feature if the column has one, numeric if every
    label is a whole number, and alphabetic otherwise; it never depends on the order of rows.

    Raises:
        DataError: Labels are fractions, there is one class only, or another split holds a
            class that never occurs in train.
    """
    counts = {split: _count(rows, column, split) for split, rows in splits.items()}
    train = counts["train"]
    feature: Any = features_of(splits["train"])[column]
    feature = feature.feature if isinstance(feature, List) else feature
    if isinstance(feature, ClassLabel):
        names = [name for name in feature.names if name in train]
        unused = [name for name in feature.names if name not in train]
        if unused:
            findings.note(
                f'classes of column "{column}" left out because no training row has them: '
                f"{listed(unused)}"
            )
    else:
        names = sorted(train, key=_number) if all(map(_is_number, train)) else sorted(train)
    if len(names) < 2:
        one = f'all {sum(train.values()):,} of them are "{names[0]}"' if names else "none has one"
        raise DataError(
            f'column "{column}" has one class only in the training rows: {one}. Classification '
            "needs two classes or more. Choose another label column (label) or keep more rows "
            "(where)."
        )
    for split, found in counts.items():
        unseen = [name for name in found if name not in train]
        if unseen:
            rows = sum(found[name] for name in unseen)
            count = f"{_rows(rows)} of the {split} split"
            raise DataError(_unseen(column, unseen, count, names))
    _refuse_written_lists(names, column)
    _warn_of_spellings(names, column, findings)
    _warn_of_spaces(names, column, findings)
    _warn_of_several(names, column, findings)
    _warn_of_rare(train, column, findings)
    return names


def label_numbers(rows: Dataset, column: str, names: Sequence[str]) -> np.ndarray:
    """Returns the class number of each row, ``(n,)`` int64; `UNKNOWN` where there is no label.

    Raises:
        DataError: A label is none of ``names``.
    """
    feature = features_of(rows)[column]
    number = {name: index for index, name in enumerate(names)}
    numbers = np.full(len(rows), UNKNOWN, dtype=np.int64)
    unseen: defaultdict[str, list[int]] = defaultdict(list)
    for index, value in enumerate(column_values(rows, column)):
        if is_missing(value, feature):
            continue
        name = class_name(value, feature)
        if name in number:
            numbers[index] = number[name]
        else:
            unseen[name].append(index)
    _refuse_unseen(column, unseen, names)
    return numbers


def label_sets(rows: Dataset, column: str, names: Sequence[str]) -> np.ndarray:
    """Returns 1 for each label that a row's list has, ``(n, labels)`` int64.

    A row without a list is `UNKNOWN` throughout; an empty list is a row without labels.

    Raises:
        DataError: A label is none of ``names``.
    """
    number = {name: index for index, name in enumerate(names)}
    result = np.zeros((len(rows), len(names)), dtype=np.int64)
    unseen: defaultdict[str, list[int]] = defaultdict(list)
    for index, found in enumerate(_names_of_rows(rows, column)):
        if found is None:
            result[index] = UNKNOWN
            continue
        for name in found:
            if name in number:
                result[index, number[name]] = 1
            else:
                unseen[name].append(index)
    _refuse_unseen(column, unseen, names)
    return result


def _names_of_rows(rows: Dataset, column: str) -> Iterator[list[str] | None]:
    """The class names of each row, of one class or of a list of them; ``None``: no label."""
    feature = features_of(rows)[column]
    inner = feature.feature if isinstance(feature, List) else feature
    for value in column_values(rows, column):
        if not isinstance(feature, List):
            yield None if is_missing(value, inner) else [class_name(value, inner)]
        elif value is None:
            yield None
        else:
            yield [class_name(item, inner) for item in value if not is_missing(item, inner)]


def refuse_fractions(rows: Dataset, column: str, split: str) -> None:
    """Refuses labels such as 0.5, which are no classes.

    Raises:
        DataError: The column holds a number that is not whole.
    """
    if "float" not in str(getattr(features_of(rows)[column], "dtype", "")):
        return
    for value in column_values(rows, column):
        if value is not None and not np.isnan(value) and not float(value).is_integer():
            raise DataError(
                f'column "{column}" (label) of the {split} split holds fractions such as '
                f"{value:g}. To predict numbers, set --task regression; for classification put "
                "the numbers into classes first, or choose another column."
            )


def check_names(names: Sequence[str], what: str) -> list[str]:
    """The names of a head's outputs.

    Args:
        names: One for each output.
        what: What they are called in the message.

    Raises:
        DataError: There are not two different ones.
    """
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(f"two different {what} or more are needed, got {list(names)}.")
    return list(names)


def named_head(names: Sequence[str]) -> dict[str, Any]:
    """The number and the names of a head's outputs, as a model's config has them."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }


def _count(rows: Dataset, column: str, split: str) -> Counter[str]:
    """Rows per class name; a split without the column (hidden labels) has none."""
    if column not in features_of(rows):
        return Counter()
    refuse_fractions(rows, column, split)
    return Counter(name for found in _names_of_rows(rows, column) for name in found or ())


def _is_number(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit()


def _number(name: str) -> tuple[int, str]:
    """Sorts ``2`` before ``10``; of ``1`` and ``01`` (text) the order is fixed too."""
    return int(name), name


def _refuse_unseen(column: str, unseen: Mapping[str, Sequence[int]], names: Sequence[str]) -> None:
    """Refuses labels that train does not have.

    Args:
        column: Where they are.
        unseen: Each of them, with the places of its rows.
        names: Those that train has.

    Raises:
        DataError: There is one.
    """
    if unseen:
        rows = set().union(*unseen.values())
        count = f"{_rows(len(rows))}, first row {min(rows) + 1:,}"
        raise DataError(_unseen(column, list(unseen), count, names))


def _unseen(column: str, unseen: Sequence[str], count: str, names: Sequence[str]) -> str:
    labels = ", ".join(f'"{name}"' for name in unseen[:_SHOWN])
    return (
        f'label {labels} of column "{column}" ({count}) never occurs in train, so it '
        f"cannot be learned. The classes are {listed(names)}.{did_you_mean(unseen[0], names)} "
        "Remove these rows (for example with where), or add training rows of this class."
    )


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _refuse_written_lists(names: Sequence[str], column: str) -> None:
    """Refuses lists that were written as text and could not be read as lists.

    Raises:
        DataError: At least half of the classes look like one.
    """
    lists = [name for name in names if _WRITTEN.fullmatch(name)]
    if 2 * len(lists) >= len(names):
        raise DataError(
            f'the labels in "{column}" look like lists written as text, such as {lists[0]!r}, but '
            "not every one can be read as a list. Save the data as jsonl or parquet, with lists of "
            "labels."
        )


def _warn_of_spellings(names: Sequence[str], column: str, findings: Findings) -> None:
    """``pos`` and ``Pos `` are two classes, which is rarely meant."""
    groups = [same for same in spellings(names).values() if len(same) > 1]
    if groups:
        shown = [" and ".join(repr(name) for name in same) for same in groups[:_SHOWN]]
        more = f" and {len(groups) - len(shown)} more" if len(groups) > len(shown) else ""
        findings.warn(
            f'column "{column}": labels {"; ".join(shown)}{more} differ in case or spaces only, '
            "and are separate classes. Join them with --clean-labels."
        )


def _warn_of_spaces(names: Sequence[str], column: str, findings: Findings) -> None:
    """``pos `` looks like ``pos`` in every table, and answers have the space too."""
    alone = [same[0] for same in spellings(names).values() if len(same) == 1]
    spaced = [name for name in alone if name != name.strip()]
    if spaced:
        shown = ", ".join(map(repr, spaced[:_SHOWN]))
        more = f" and {len(spaced) - _SHOWN} more" if len(spaced) > _SHOWN else ""
        verb = "begins or ends" if len(spaced) == 1 else "begin or end"
        findings.warn(
            f'column "{column}": {"label" if len(spaced) == 1 else "labels"} {shown}{more} {verb} '
            "with a space, which is part of the class's name and of each answer. Leave it out with "
            "--clean-labels."
        )


def _warn_of_several(names: Sequence[str], column: str, findings: Findings) -> None:
    """``toxic,insult`` beside ``toxic`` are rather two labels of one row than a class."""
    known = set(names)
    for separator in (",", ";", "|"):
        for name in names:
            parts = [part.strip() for part in name.split(separator)]
            if len(parts) > 1 and any(part in known for part in parts):
                other = next(part for part in parts if part in known)
                findings.warn(
                    f'column "{column}": {name!r} is a class of its own beside {other!r}. If it '
                    "means several labels, give lists of labels (jsonl, parquet), or a column of 0 "
                    "and 1 for each."
                )
                return


def _warn_of_rare(train: Counter[str], column: str, findings: Findings) -> None:
    """Many classes of one row each are more likely an id or a free text."""
    once = sum(count == 1 for count in train.values())
    if len(train) > 20 and once > len(train) / 2:
        findings.warn(
            f'column "{column}" has {len(train):,} classes in {sum(train.values()):,} training '
            f"rows, {once:,} of them in one row only; is it the label? Choose another with --label."
        )

"""Makes sure there are disjoint train, validation and test splits, and says how.

What is missing is set aside from the training rows: stratified by label, seeded, and with
all copies of a text on one side, so that no validation or test text was trained on. A split
that is present never gets or gives rows. Rows without a text or without a label can neither
be trained on nor scored; they are dropped and counted.

Only a seeded generator and the order of the rows enter, so the result does not depend on
the hash seed of the process.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, DatasetDict

from lorafit.config import DataConfig
from lorafit.data.columns.choose import label_columns, require_columns
from lorafit.data.columns.values import class_name, column_values, is_missing, texts
from lorafit.data.read.splits import SPLITS
from lorafit.errors import DataError

log = logging.getLogger(__name__)

_SMALL_CLASS_NAMES = 5
"""How many names of classes a message lists."""


def carve(
    splits: DatasetDict,
    label: str | Sequence[str] | None,
    config: DataConfig,
    seed: int,
    *,
    text: Sequence[str] | None = None,
    stratify: bool = True,
    one_answer: bool = True,
) -> DatasetDict:
    """Returns train, validation and test splits without common rows.

    Args:
        splits: At least ``train``. Other names than train, validation, test are ignored.
        label: The label column, or several, without which a row is dropped; ``None``: there
            is none. By several no rows are stratified.
        config: ``validation_fraction``, ``test_fraction`` (of the training rows),
            ``max_train_samples``, ``max_eval_samples``.
        seed: Decides which rows are set aside.
        text: The text columns. With them, rows without text are dropped, copies of a text
            stay together, and copies between the given splits are counted.
        stratify: Keep the share of each label; without, rows are drawn at random.
        one_answer: A text has one right label; without (prompts and completions), rows are
            copies only where both are the same.

    Raises:
        DataError: There is no training split, or too few rows to set any aside.
    """
    if "train" not in splits:
        raise DataError(
            f"there is no train split to train on. There is {', '.join(splits) or 'none'}."
        )
    ignored = [name for name in splits if name not in SPLITS]
    if ignored:
        log.info("ignored splits: %s", ", ".join(ignored))
    result: dict[str, Dataset] = {}
    for split in SPLITS:
        if split in splits:
            rows = _usable(splits[split], split, label_columns(label), text)
            if rows is not None:
                result[split] = rows
    missing = [split for split in ("test", "validation") if split not in result]
    strata = label if stratify and isinstance(label, str) else None
    if missing:
        result.update(_set_aside(result["train"], missing, strata, config, seed, text))
    if text:
        result["train"] = _without_copies(result, text, label, config.dedupe, one_answer)
        _warn_of_copies(result, text)
    limits = {
        "train": config.max_train_samples,
        "validation": config.max_eval_samples,
        "test": config.max_eval_samples,
    }
    return DatasetDict(
        {split: _sample(result[split], split, limits[split], strata, seed) for split in SPLITS}
    )


def _usable(
    rows: Dataset, split: str, labels: Sequence[str], text: Sequence[str] | None
) -> Dataset | None:
    """The rows with text and label; ``None`` if a split for evaluation has no labels."""
    require_columns(rows, text or (), f"which is the text of the {split} split")
    keep = np.ones(len(rows), dtype=bool)
    for label in labels:
        feature = rows.features.get(label)
        if feature is None:
            labelled = np.zeros(len(rows), dtype=bool)
        else:
            values = column_values(rows, label)
            labelled = np.array([not is_missing(value, feature) for value in values])
        if not labelled.any():
            if split == "train":
                raise DataError(f'no row of the train split has a value in column "{label}".')
            log.warning(
                '%s split: not used, because none of its %s rows has a value in column "%s"',
                *(split, f"{len(rows):,}", label),
            )
            return None
        _say_dropped(split, int((keep & ~labelled).sum()), len(rows), f'no value in "{label}"')
        keep &= labelled
    if text:
        filled = np.array([any(part.strip() for part in row) for row in texts(rows, list(text))])
        if not filled.any():
            raise DataError(f"every row of the {split} split has an empty text.")
        _say_dropped(split, int((keep & ~filled).sum()), len(rows), "an empty text")
        keep &= filled
    if not keep.any():
        raise DataError(f"no row of the {split} split has both a text and a label.")
    return rows if keep.all() else rows.select(np.flatnonzero(keep).tolist())


def _say_dropped(split: str, count: int, total: int, reason: str) -> None:
    if count:
        log.warning(
            "%s split: dropped %s of %s rows with %s", split, f"{count:,}", f"{total:,}", reason
        )


@dataclass(frozen=True)
class _Units:
    """What is drawn: the rows of one text, all together."""

    rows: list[list[int]]
    strata: dict[Hashable, list[int]]
    """Class (of the first row) to units, both in the order of the rows."""
    names: dict[Hashable, str]


def _units(rows: Dataset, label: str | None, text: Sequence[str] | None) -> _Units:
    if text:
        groups: dict[tuple[str, ...], list[int]] = {}
        for index, key in enumerate(texts(rows, list(text))):
            groups.setdefault(key, []).append(index)
        members = list(groups.values())
    else:
        members = [[index] for index in range(len(rows))]
    strata: dict[Hashable, list[int]] = {}
    if label is None:
        return _Units(members, {None: list(range(len(members)))}, {})
    values = column_values(rows, label)
    values = [value if isinstance(value, Hashable) else repr(value) for value in values]
    for unit, indices in enumerate(members):
        strata.setdefault(values[indices[0]], []).append(unit)
    feature = rows.features[label]
    return _Units(members, strata, {value: class_name(value, feature) for value in strata})


def _set_aside(
    rows: Dataset,
    missing: list[str],
    label: str | None,
    config: DataConfig,
    seed: int,
    text: Sequence[str] | None,
) -> dict[str, Dataset]:
    """Takes the missing splits out of the training rows."""
    units = _units(rows, label, text)
    total = len(units.rows)
    if total <= len(missing):
        raise DataError(
            f"the train split has {total:,} usable row{'' if total == 1 else 's'}, too few to "
            f"set aside a {' and a '.join(missing)} split. Give more rows, or these splits."
        )
    fractions = {
        "validation": config.validation_fraction,
        "test": config.test_fraction,
    }
    sizes = [max(1, round(fractions[split] * total)) for split in missing]
    random = np.random.default_rng([seed, 0])
    # A class of fewer units than there are splits cannot be in all of them.
    small = [c for c, members in units.strata.items() if len(members) < len(missing) + 1]
    large = {c: members for c, members in units.strata.items() if c not in small}
    how = f"stratified by {label}" if label is not None else "drawn at random"
    # With few rows outside the small classes the splits would not be like the data.
    if 2 * sum(map(len, large.values())) < total:
        large, how = {None: list(range(total))}, "drawn at random"
        log.warning(
            "not stratified: %s of the %s classes of %s have fewer than %s different rows",
            *(len(small), len(units.strata), label, len(missing) + 1),
        )
    elif small:
        names = [units.names[value] for value in small[:_SMALL_CLASS_NAMES]]
        more = f" and {len(small) - len(names)} more" if len(small) > len(names) else ""
        log.warning(
            "too few rows to be in every split, all kept for training: %s%s (fewer than %s rows)",
            *(", ".join(names), more, len(missing) + 1),
        )
    shuffled = {value: random.permutation(members).tolist() for value, members in large.items()}
    taken: dict[str, list[int]] = {}
    for number, (split, size) in enumerate(zip(missing, sizes, strict=True)):
        # What is left of a class has to reach for the splits still to come and for train.
        leave = len(missing) - number
        quotas = _quotas({c: len(m) for c, m in shuffled.items()}, size, leave)
        chosen: list[int] = []
        for value, quota in quotas.items():
            chosen += shuffled[value][:quota]
            shuffled[value] = shuffled[value][quota:]
        taken[split] = sorted(row for unit in chosen for row in units.rows[unit])
    gone = {row for indices in taken.values() for row in indices}
    result = {split: rows.select(indices) for split, indices in taken.items()}
    result["train"] = rows.select([index for index in range(len(rows)) if index not in gone])
    for split in reversed(missing):
        log.info(
            "no %s split: %s of %s training rows set aside, %s, seed %s",
            *(split, f"{len(taken[split]):,}", f"{len(rows):,}", how, seed),
        )
    return result


def _quotas(counts: dict[Hashable, int], size: int, leave: int) -> dict[Hashable, int]:
    """Shares ``size`` among classes in proportion to their counts (largest remainder).

    Each class gives at least one, and keeps at least ``leave``; so the sum can differ from
    ``size`` when there are many classes for few rows.
    """
    total = sum(counts.values())
    exact = {value: size * count / total for value, count in counts.items()}
    quotas = {value: int(share) for value, share in exact.items()}
    order = sorted(counts, key=lambda value: quotas[value] - exact[value])
    for value in order[: size - sum(quotas.values())]:
        quotas[value] += 1
    return {
        value: max(0, min(max(1, quota), counts[value] - leave)) for value, quota in quotas.items()
    }


def _sample(rows: Dataset, split: str, limit: int | None, label: str | None, seed: int) -> Dataset:
    """At most ``limit`` rows, stratified by label, in the order of the data."""
    if limit is None or len(rows) <= limit:
        return rows
    units = _units(rows, label if label in rows.features else None, None)
    random = np.random.default_rng([seed, 1, SPLITS.index(split)])
    quotas = _proportional({c: len(m) for c, m in units.strata.items()}, limit)
    chosen = [
        index
        for value, members in units.strata.items()
        for index in random.permutation(members)[: quotas[value]].tolist()
    ]
    how = f"stratified by {label}, " if label is not None else ""
    log.info(
        "%s split: %s of %s rows used (limit set), %sseed %s",
        *(split, f"{limit:,}", f"{len(rows):,}", how, seed),
    )
    return rows.select(sorted(chosen))


def _proportional(counts: dict[Hashable, int], size: int) -> dict[Hashable, int]:
    """Shares exactly ``size`` by largest remainder, one for every class where that fits."""
    total = sum(counts.values())
    exact = {value: size * count / total for value, count in counts.items()}
    least = 1 if size >= len(counts) else 0
    quotas = {value: max(least, int(share)) for value, share in exact.items()}
    while (short := size - sum(quotas.values())) != 0:
        step = 1 if short > 0 else -1
        able = [
            value
            for value in counts
            if (quotas[value] < counts[value] if step > 0 else quotas[value] > least)
        ]
        # The class furthest from its exact share; the earliest of equals.
        value = max(able, key=lambda value: step * (exact[value] - quotas[value]))
        quotas[value] += step
    return quotas


def _without_copies(
    splits: dict[str, Dataset],
    text: Sequence[str],
    label: str | Sequence[str] | None,
    dedupe: bool,
    one_answer: bool,
) -> Dataset:
    """The training rows; copies are counted, and with ``dedupe`` left out.

    Copies of held-out texts are left out of train, so that the others stay comparable.
    """
    train = splits["train"]
    asked = texts(train, list(text))
    rows = asked if one_answer else texts(train, [*text, *label_columns(label)])
    held_out = {row for name in SPLITS[1:] for row in texts(splits[name], list(text))}
    first: dict[tuple[str, ...], int] = {}
    for index, row in enumerate(rows):
        first.setdefault(row, index)
    repeated = [index for index, row in enumerate(rows) if first[row] != index]
    leaked = [
        index for index, row in enumerate(rows) if first[row] == index and asked[index] in held_out
    ]
    if one_answer:
        _say_contradictions(train, rows, repeated, first, label)
    if not repeated and not (dedupe and leaked):
        return train
    if not dedupe:
        log.info(
            "%s of %s training rows have a text%s that stands in train before (--dedupe leaves "
            "them out)",
            *(f"{len(repeated):,}", f"{len(rows):,}", "" if one_answer else " with an answer"),
        )
        return train
    gone = {*repeated, *leaked}
    if len(gone) == len(rows):
        raise DataError("every training text also stands in validation or test: none is left.")
    log.info(
        "left out of %s training rows: %s repeated, %s that also stand in validation or test",
        *(f"{len(rows):,}", f"{len(repeated):,}", f"{len(leaked):,}"),
    )
    return train.select([index for index in range(len(rows)) if index not in gone])


def _say_contradictions(
    train: Dataset,
    rows: Sequence[tuple[str, ...]],
    repeated: Sequence[int],
    first: dict[tuple[str, ...], int],
    label: str | Sequence[str] | None,
) -> None:
    """Counts repeated texts that have another label than at first."""
    columns = [column_values(train, name) for name in label_columns(label)]
    if not columns:
        return
    other = sum(
        any(values[index] != values[first[rows[index]]] for values in columns) for index in repeated
    )
    if other:
        log.warning("%s repeated training texts have another label than at first", f"{other:,}")


def _warn_of_copies(splits: dict[str, Dataset], text: Sequence[str]) -> None:
    """Counts rows of validation and test whose text stands in train (or in validation)."""
    seen: set[tuple[str, ...]] = set()
    for split in SPLITS:
        rows = texts(splits[split], list(text))
        copies = sum(row in seen for row in rows) if seen else 0
        if copies:
            log.warning(
                "%s of %s %s rows have a text that also stands in an earlier split; scores on "
                "them are too good. Leave them out of train with --dedupe.",
                *(f"{copies:,}", f"{len(rows):,}", split),
            )
        seen.update(rows)

"""Makes sure there are disjoint train, validation and test splits, and says how.

What is missing is set aside from the training rows: stratified by label, seeded, and with
all copies of a text on one side, so that no validation or test text was trained on. A split
that is present never gets or gives rows. Rows without a text or without a label can neither
be trained on nor scored; they are dropped and counted.

Only a seeded generator and the order of the rows enter, so the result does not depend on
the hash seed of the process.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, DatasetDict

from lorafit.config import DataConfig
from lorafit.data.columns.choose import label_columns, require_columns
from lorafit.data.columns.values import class_name, column_values, features_of, is_missing, texts
from lorafit.data.findings import UNKEPT, Findings
from lorafit.data.read.splits import SPLITS
from lorafit.errors import DataError

_SMALL_CLASS_NAMES = 5
"""How many names of classes a message lists."""


@dataclass(frozen=True)
class Roles:
    """What the columns are for, as far as it matters to which rows belong together.

    Attributes:
        label: The label column, or several, without which a row is dropped; ``None``: there
            is none. By several no rows are stratified.
        text: The text columns. With them, rows without text are dropped, copies of a text
            stay together, and copies between the given splits are counted.
        stratify: Keep the share of each label; without, rows are drawn at random.
        one_answer: A text has one right label; without (prompts and completions), rows are
            copies only where both are the same.
    """

    label: str | Sequence[str] | None = None
    text: Sequence[str] = ()
    stratify: bool = True
    one_answer: bool = True

    @property
    def strata(self) -> str | None:
        """The column by which rows are stratified; ``None``: by none."""
        return self.label if self.stratify and isinstance(self.label, str) else None


def carve(
    splits: DatasetDict,
    roles: Roles,
    config: DataConfig,
    seed: int,
    findings: Findings = UNKEPT,
) -> DatasetDict:
    """Returns train, validation and test splits without common rows.

    Args:
        splits: At least ``train``. Other names than train, validation, test are ignored.
        roles: What the columns are for.
        config: ``validation_fraction``, ``test_fraction`` (of the training rows),
            ``max_train_samples``, ``max_eval_samples``, ``dedupe``.
        seed: Decides which rows are set aside.
        findings: Takes what was dropped, set aside and found twice.

    Raises:
        DataError: There is no training split, or too few rows to set any aside.
    """
    if "train" not in splits:
        raise DataError(
            f"there is no train split to train on. There is {', '.join(splits) or 'none'}."
        )
    ignored = [name for name in splits if name not in SPLITS]
    if ignored:
        findings.note(f"ignored splits: {', '.join(ignored)}")
    return _Carving(roles, config, seed, findings).carved(splits)


@dataclass(frozen=True)
class _Carving:
    """What every step of it goes by."""

    roles: Roles
    config: DataConfig
    seed: int
    findings: Findings

    def carved(self, splits: DatasetDict) -> DatasetDict:
        """The three splits."""
        result: dict[str, Dataset] = {}
        for split in SPLITS:
            if split in splits:
                rows = self._usable(splits[split], split)
                if rows is not None:
                    result[split] = rows
        missing = [split for split in ("test", "validation") if split not in result]
        if missing:
            result.update(self._set_aside(result["train"], missing))
        if self.roles.text:
            result["train"] = self._without_copies(result)
            self._warn_of_copies(result)
        limits = {
            "train": self.config.max_train_samples,
            "validation": self.config.max_eval_samples,
            "test": self.config.max_eval_samples,
        }
        return DatasetDict({s: self._sample(result[s], s, limits[s]) for s in SPLITS})

    def _usable(self, rows: Dataset, split: str) -> Dataset | None:
        """The rows with text and label; ``None`` if a split for evaluation has no labels."""
        text = self.roles.text
        require_columns(rows, text, f"which is the text of the {split} split")
        keep = np.ones(len(rows), dtype=bool)
        for label in label_columns(self.roles.label):
            feature = features_of(rows).get(label)
            if feature is None:
                labelled = np.zeros(len(rows), dtype=bool)
            else:
                values = column_values(rows, label)
                labelled = np.array([not is_missing(value, feature) for value in values])
            if not labelled.any():
                if split == "train":
                    raise DataError(f'no row of the train split has a value in column "{label}".')
                self.findings.warn(
                    f"{split} split: not used, because none of its {len(rows):,} rows has a value "
                    f'in column "{label}"'
                )
                return None
            self._say_dropped(split, keep & ~labelled, f'no value in "{label}"')
            keep &= labelled
        if text:
            filled = np.array(
                [any(part.strip() for part in row) for row in texts(rows, list(text))]
            )
            if not filled.any():
                raise DataError(f"every row of the {split} split has an empty text.")
            self._say_dropped(split, keep & ~filled, "an empty text")
            keep &= filled
        if not keep.any():
            raise DataError(f"no row of the {split} split has both a text and a label.")
        return rows if keep.all() else rows.select(np.flatnonzero(keep).tolist())

    def _say_dropped(self, split: str, dropped: np.ndarray, reason: str) -> None:
        if dropped.any():
            self.findings.warn(
                f"{split} split: dropped {dropped.sum():,} of {len(dropped):,} rows with {reason}"
            )

    def _set_aside(self, rows: Dataset, missing: list[str]) -> dict[str, Dataset]:
        """Takes the missing splits out of the training rows."""
        units = _units(rows, self.roles.strata, self.roles.text)
        total = len(units.rows)
        if total <= len(missing):
            few = f"{total:,} usable row{'' if total == 1 else 's'}"
            if total < len(rows):  # equal texts stay together
                few = f"{len(rows):,} rows, but {total:,} different text{'' if total == 1 else 's'}"
            raise DataError(
                f"the train split has {few}, too few to "
                f"set aside a {' and a '.join(missing)} split. Give more rows, or these splits."
            )
        fractions = {
            "validation": self.config.validation_fraction,
            "test": self.config.test_fraction,
        }
        sizes = [max(1, round(fractions[split] * total)) for split in missing]
        random = np.random.default_rng([self.seed, 0])
        large, how = self._large(units, len(missing) + 1)
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
            self.findings.note(
                f"no {split} split: {len(taken[split]):,} of {len(rows):,} training rows set "
                f"aside, {how}, seed {self.seed}"
            )
        return result

    def _large(self, units: _Units, least: int) -> tuple[dict[Hashable, list[int]], str]:
        """The classes that rows are taken from, with their units, and how that is called.

        Args:
            units: All of them.
            least: Splits there will be: a class of fewer units cannot be in all of them.
        """
        label, total = self.roles.strata, len(units.rows)
        small = [c for c, members in units.strata.items() if len(members) < least]
        large = {c: members for c, members in units.strata.items() if c not in small}
        # With few rows outside the small classes the splits would not be like the data.
        if 2 * sum(map(len, large.values())) < total:
            self.findings.warn(
                f"not stratified: {len(small)} of the {len(units.strata)} classes of {label} have "
                f"fewer than {least} different rows"
            )
            return {None: list(range(total))}, "drawn at random"
        if small:
            names = [units.names[value] for value in small[:_SMALL_CLASS_NAMES]]
            more = f" and {len(small) - len(names)} more" if len(small) > len(names) else ""
            self.findings.warn(
                "too few rows to be in every split, all kept for training: "
                f"{', '.join(names)}{more} (fewer than {least} rows)"
            )
        return large, f"stratified by {label}" if label is not None else "drawn at random"

    def _sample(self, rows: Dataset, split: str, limit: int | None) -> Dataset:
        """At most ``limit`` rows, stratified by label, in the order of the data."""
        if limit is None or len(rows) <= limit:
            return rows
        label = self.roles.strata
        units = _units(rows, label if label in features_of(rows) else None, ())
        random = np.random.default_rng([self.seed, 1, SPLITS.index(split)])
        quotas = _proportional({c: len(m) for c, m in units.strata.items()}, limit)
        chosen = [
            index
            for value, members in units.strata.items()
            for index in random.permutation(members)[: quotas[value]].tolist()
        ]
        how = f"stratified by {label}, " if label is not None else ""
        self.findings.note(
            f"{split} split: {limit:,} of {len(rows):,} rows used (limit set), {how}"
            f"seed {self.seed}"
        )
        return rows.select(sorted(chosen))

    def _without_copies(self, splits: dict[str, Dataset]) -> Dataset:
        """The training rows; copies are counted, and with ``dedupe`` left out.

        Copies of held-out texts are left out of train, so that the others stay comparable.
        """
        train, text, one_answer = splits["train"], self.roles.text, self.roles.one_answer
        asked = texts(train, list(text))
        rows = asked if one_answer else texts(train, [*text, *label_columns(self.roles.label)])
        held_out = {row for name in SPLITS[1:] for row in texts(splits[name], list(text))}
        first: dict[tuple[str, ...], int] = {}
        for index, row in enumerate(rows):
            first.setdefault(row, index)
        repeated = [index for index, row in enumerate(rows) if first[row] != index]
        leaked = [
            index
            for index, row in enumerate(rows)
            if first[row] == index and asked[index] in held_out
        ]
        if one_answer:
            self._say_contradictions(train, rows, repeated, first)
        if not repeated and not (self.config.dedupe and leaked):
            return train
        if not self.config.dedupe:
            what = "a text" if one_answer else "a text with an answer"
            self.findings.note(
                f"{len(repeated):,} of {len(rows):,} training rows have {what} that stands in "
                "train before (--dedupe leaves them out)"
            )
            return train
        gone = {*repeated, *leaked}
        if len(gone) == len(rows):
            raise DataError("every training text also stands in validation or test: none is left.")
        self.findings.note(
            f"left out of {len(rows):,} training rows: {len(repeated):,} repeated, {len(leaked):,} "
            "that also stand in validation or test"
        )
        return train.select([index for index in range(len(rows)) if index not in gone])

    def _say_contradictions(
        self,
        train: Dataset,
        rows: Sequence[tuple[str, ...]],
        repeated: Sequence[int],
        first: dict[tuple[str, ...], int],
    ) -> None:
        """Counts repeated texts that have another label than at first."""
        columns = [column_values(train, name) for name in label_columns(self.roles.label)]
        if not columns:
            return
        other = sum(
            any(values[index] != values[first[rows[index]]] for values in columns)
            for index in repeated
        )
        if other:
            self.findings.warn(
                f"{other:,} repeated training texts have another label than at first"
            )

    def _warn_of_copies(self, splits: dict[str, Dataset]) -> None:
        """Counts rows of validation and test whose text stands in train (or in validation)."""
        seen: set[tuple[str, ...]] = set()
        for split in SPLITS:
            rows = texts(splits[split], list(self.roles.text))
            copies = sum(row in seen for row in rows) if seen else 0
            if copies:
                self.findings.warn(
                    f"{copies:,} of {len(rows):,} {split} rows have a text that also stands in an "
                    "earlier split; scores on them are too good. Leave them out of train with "
                    "--dedupe."
                )
            seen.update(rows)


@dataclass(frozen=True)
class _Units:
    """What is drawn: the rows of one text, all together."""

    rows: list[list[int]]
    strata: dict[Hashable, list[int]]
    """Class (of the first row) to units, both in the order of the rows."""
    names: dict[Hashable, str]


def _units(rows: Dataset, label: str | None, text: Sequence[str]) -> _Units:
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
    feature = features_of(rows)[label]
    return _Units(members, strata, {value: class_name(value, feature) for value in strata})


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

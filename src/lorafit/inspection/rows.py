"""What the model will see of a data set, as plain data: counts, lengths, examples.

Rendering is the command line's job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, List

from lorafit.data.columns.choose import Columns, kind_of
from lorafit.data.columns.values import class_name, column_values, features_of, is_missing, texts
from lorafit.evidence import markup
from lorafit.inspection.reader import Reader
from lorafit.inspection.truth import Truth
from lorafit.units import count, shortened

PERCENTILES = (5, 25, 50, 75, 90, 95, 99, 100)
_BINS = 12
_MOST_LABELS = 30
"""Labels that a notebook shows, the most frequent first."""
_TOKENIZE_AT_ONCE = 1_000


@dataclass(frozen=True)
class Lengths:
    """Tokens per example, special tokens included, before truncation."""

    measured: int
    """Examples that were tokenized (a seeded sample of large data)."""
    mean: float
    percentiles: dict[int, int]
    histogram: list[tuple[int, int, int]]
    """(shortest, longest, examples) of each bin, both ends included."""
    max_length: int | None
    """Where the input is cut; ``None``: nowhere."""
    truncated: int
    truncated_share: float
    tokens_lost_share: float
    """Share of all tokens that is cut off."""


@dataclass(frozen=True)
class Example:
    """One row as the model will see it."""

    split: str
    row: int
    label: str | None
    kept: tuple[str, ...]
    """The part of each text that is read."""
    cut: tuple[str, ...]
    """The part of each text that is truncated away, ``""`` if none."""
    cut_from: str
    """The side that is truncated, ``right`` or ``left``."""
    tokens: list[str]


@dataclass(frozen=True)
class TokenExample:
    """One example whose tokens have labels, as the model will see it."""

    split: str
    row: int
    pieces: list[tuple[str, str]]
    """Text and what becomes of it: ``trained``, ``masked`` (read, not learned), ``cut``."""
    tokens: int
    trained: int
    padding: int
    """Padding tokens, if the examples shown were one batch."""


@dataclass(frozen=True)
class Preview:
    """Everything `lorafit preview` shows."""

    columns: dict[str, str]
    """Name to what it holds."""
    text: tuple[str, ...]
    text_reason: str
    label: str | list[str] | None
    label_reason: str
    rows: dict[str, int]
    labels: dict[str, dict[str, int]]
    """Split to class to rows, the most frequent class of train first."""
    unlabelled: dict[str, int]
    empty: dict[str, int]
    """Split to rows without text."""
    duplicates: dict[str, int]
    """Split to rows that stand in an earlier row of the split: their text, or prompt and answer."""
    shared: dict[str, int]
    """Split to rows whose text also stands in an earlier split (leaks)."""
    lengths: dict[str, Lengths]
    examples: list[Example]
    token_examples: list[TokenExample] = field(default_factory=list)
    """Instead of ``examples``, of a task whose tokens have labels."""
    task: str = ""
    truth: Truth | None = None
    """What the encoded examples teach, and why training would stop; ``None``: not encoded."""

    def __repr__(self) -> str:
        label = ", ".join(self._label_columns) or "none"
        rows = ", ".join(f"{split} {count(n)}" for split, n in self.rows.items())
        parts = [f"text {', '.join(self.text) or 'none'}", f"label {label}", f"rows {rows}"]
        if self.task:
            parts.insert(0, self.task.replace("_", " "))
        return f"Preview({'; '.join(shortened(part, 45) for part in parts)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: columns, rows, labels, and what would stop training."""
        roles = dict.fromkeys(self.text, f"text ({self.text_reason})")
        roles |= dict.fromkeys(self._label_columns, f"label ({self.label_reason})")
        columns = [(name, kind, roles.get(name, "")) for name, kind in self.columns.items()]
        counted = [self.rows, self.unlabelled, self.empty, self.duplicates, self.shared]
        rows = [(split, *(count(n.get(split, 0)) for n in counted)) for split in self.rows]
        header = ("split", "rows", "without label", "without text", "repeated", "in an earlier one")
        parts = [
            markup.table("Columns", columns, ("column", "holds", "read as")),
            markup.table("Rows", rows, header),
        ]
        splits = [split for split, balance in self.labels.items() if balance]
        if splits:
            names = list(self.labels[splits[0]])
            balance = [
                (name, *(count(self.labels[split].get(name, 0)) for split in splits))
                for name in names[:_MOST_LABELS]
            ]
            more = len(names) - _MOST_LABELS
            note = f"and {count(more)} more" if more > 0 else ""
            parts.append(markup.table("Labels", balance, ("label", *splits), note))
        if self.truth is not None:
            said = [("training would stop", problem) for problem in self.truth.problems]
            said += [("warning", warning) for warning in self.truth.warnings]
            parts.append(markup.table("", said) if said else "")
        return f"<div>{''.join(parts)}</div>"

    @property
    def _label_columns(self) -> list[str]:
        """The label columns: none, one or several."""
        if self.label is None:
            return []
        return self.label if isinstance(self.label, list) else [self.label]

    def spoken(self, words: Callable[[str], str]) -> Preview:
        """The same with what it advises in other words: keywords for flags."""
        if self.truth is None:
            return self
        problems, warnings = (
            tuple(map(words, said)) for said in (self.truth.problems, self.truth.warnings)
        )
        return replace(self, truth=replace(self.truth, problems=problems, warnings=warnings))

    def to_dict(self) -> dict[str, object]:
        """Returns everything as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Sampling:
    """How much of large data is looked at.

    Attributes:
        seed: Chooses the examples and the rows to measure.
        examples: How many rows of the first split to show.
        most_rows: Rows per split whose lengths are measured; larger splits are sampled.
    """

    seed: int = 0
    examples: int = 3
    most_rows: int = 20_000


USUAL = Sampling()


def preview(
    splits: DatasetDict,
    columns: Columns,
    reader: Reader,
    *,
    answer: Sequence[str] = (),
    sampling: Sampling = USUAL,
) -> Preview:
    """Describes a data set without training.

    Args:
        splits: The data, before or after `carve`.
        columns: One or two text columns, the label column if there is one, and why these.
        reader: How the model reads the texts.
        answer: Columns that have to be the same as well where a row repeats another.
        sampling: How much is looked at.
    """
    text = list(columns.text)
    label = columns.label
    first = next(iter(splits))
    by_split = {split: texts(rows, text) for split, rows in splits.items()}
    whole = {split: texts(rows, [*text, *answer]) for split, rows in splits.items()}
    random = np.random.default_rng([sampling.seed, 2])
    seen: set[tuple[str, ...]] = set()
    shared: dict[str, int] = {}
    for split, found in by_split.items():
        shared[split] = sum(row in seen for row in found)
        seen.update(found)
    order = _class_order(splits, label)
    lengths: dict[str, Lengths] = {}
    for split, found in by_split.items():
        measured = found
        if len(found) > sampling.most_rows:
            chosen = np.sort(random.choice(len(found), sampling.most_rows, replace=False))
            measured = [found[index] for index in chosen]
        lengths[split] = lengths_of(_token_counts(measured, reader), reader.max_length)
    shown = np.sort(random.permutation(len(splits[first]))[: sampling.examples])
    return Preview(
        columns={name: kind_of(feature) for name, feature in features_of(splits[first]).items()},
        text=tuple(text),
        text_reason=columns.text_reason,
        label=label,
        label_reason=columns.label_reason,
        rows={split: len(rows) for split, rows in splits.items()},
        labels={split: _balance(rows, label, order) for split, rows in splits.items()},
        unlabelled={split: _unlabelled(rows, label) for split, rows in splits.items()},
        empty={
            split: sum(not any(part.strip() for part in row) for row in found)
            for split, found in by_split.items()
        },
        duplicates={split: len(found) - len(set(found)) for split, found in whole.items()},
        shared=shared,
        lengths=lengths,
        examples=[_example(splits[first], first, int(row), columns, reader) for row in shown],
    )


def _token_counts(rows: Sequence[tuple[str, ...]], reader: Reader) -> np.ndarray:
    """Returns tokens per example, ``(n,)``, special tokens included and nothing cut."""
    counts: list[int] = []
    for at in range(0, len(rows), _TOKENIZE_AT_ONCE):
        parts = [list(part) for part in zip(*rows[at : at + _TOKENIZE_AT_ONCE], strict=True)]
        encoded = reader.read(*parts, truncation=False)
        counts.extend(len(ids) for ids in encoded["input_ids"])
    return np.asarray(counts, dtype=np.int64)


def _class_order(splits: DatasetDict, label: str | None) -> list[str]:
    """Classes from frequent to rare over all splits; equal counts by name."""
    counts: Counter[str] = Counter()
    for rows in splits.values():
        counts.update(_named_labels(rows, label))
    return sorted(counts, key=lambda name: (-counts[name], name))


def _named_labels(rows: Dataset, label: str | None) -> list[str]:
    """The label of each row that has one; of lists of labels each label."""
    if label is None or label not in features_of(rows):
        return []
    feature: Any = features_of(rows)[label]
    inner = feature.feature if isinstance(feature, List) else feature
    values = [
        item
        for value in column_values(rows, label)
        for item in ((value or []) if isinstance(feature, List) else [value])
    ]
    return [class_name(value, inner) for value in values if not is_missing(value, inner)]


def _balance(rows: Dataset, label: str | None, order: list[str]) -> dict[str, int]:
    counts = Counter(_named_labels(rows, label))
    return {name: counts[name] for name in order}


def _unlabelled(rows: Dataset, label: str | None) -> int:
    """Rows without a label, or without a list of labels."""
    if label is None:
        return 0
    if label not in features_of(rows):
        return len(rows)
    feature: Any = features_of(rows)[label]
    return sum(is_missing(value, feature) for value in column_values(rows, label))


def lengths_of(counts: np.ndarray, max_length: int | None) -> Lengths:
    """Sums up tokens per example, ``(n,)``, before they are cut at ``max_length``."""
    over = np.zeros_like(counts) if max_length is None else np.maximum(counts - max_length, 0)
    percentiles = np.percentile(counts, PERCENTILES, method="higher")
    return Lengths(
        measured=len(counts),
        mean=float(counts.mean()),
        percentiles={p: int(value) for p, value in zip(PERCENTILES, percentiles, strict=True)},
        histogram=_histogram(counts),
        max_length=max_length,
        truncated=int((over > 0).sum()),
        truncated_share=float((over > 0).mean()),
        tokens_lost_share=float(over.sum() / max(1, counts.sum())),
    )


def _histogram(counts: np.ndarray) -> list[tuple[int, int, int]]:
    """Bins of whole numbers of equal width; the last one takes the long tail."""
    low, high = int(counts.min()), int(counts.max())
    # One very long document would squeeze all others into the first bin.
    usual = int(np.percentile(counts, 99, method="higher"))
    width = max(1, -(-(usual - low + 1) // _BINS))
    bins: list[tuple[int, int, int]] = []
    start = low
    while start <= high:
        end = start + width - 1 if len(bins) < _BINS - 1 else high
        inside = int(((counts >= start) & (counts <= end)).sum())
        bins.append((start, min(end, high), inside))
        start = end + 1
    return bins


def _example(rows: Dataset, split: str, row: int, columns: Columns, reader: Reader) -> Example:
    values = rows[row]
    parts = ["" if values[name] is None else str(values[name]) for name in columns.text]
    encoded = reader.cut(*([part] for part in parts))
    cut_parts = [_cut(part, number, encoded, reader) for number, part in enumerate(parts)]
    label, name = columns.label, None
    if label is not None and label in features_of(rows):
        feature = features_of(rows)[label]
        missing = is_missing(values[label], feature)
        name = None if missing else class_name(values[label], feature)
    return Example(
        split=split,
        row=row,
        label=name,
        kept=tuple(kept for kept, _ in cut_parts),
        cut=tuple(cut for _, cut in cut_parts),
        cut_from=reader.cut_from,
        tokens=list(reader.tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])),
    )


def _cut(part: str, number: int, encoded: Any, reader: Reader) -> tuple[str, str]:
    """The part of a text that the encoding kept, and the part it cut."""
    tokenizer, side = reader.tokenizer, reader.cut_from
    alone = reader.read([part], add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
    whole = alone["input_ids"][0]
    if tokenizer.is_fast:
        kept = sum(sequence == number for sequence in encoded.sequence_ids(0))
    else:
        special = tokenizer.num_special_tokens_to_add(pair=False)
        kept = min(len(whole), len(encoded["input_ids"][0]) - special)
    if kept >= len(whole):
        return part, ""
    if not tokenizer.is_fast:
        ids = (whole[-kept:], whole[:-kept]) if side == "left" else (whole[:kept], whole[kept:])
        return str(tokenizer.decode(ids[0])), str(tokenizer.decode(ids[1]))
    # Offsets give the text itself, where decoding would give it lower-cased and re-spaced.
    offsets = alone["offset_mapping"][0]
    if side == "left":
        border = offsets[len(whole) - kept][0] if kept else len(part)
        return part[border:], part[:border]
    border = offsets[kept - 1][1] if kept else 0
    return part[:border], part[border:]

"""What encoded examples of any task really teach: checked before the first step.

A mask that hides every answer, answers cut off by the longest length, an end of the text that
is never learned: training runs through all of them and the loss falls. They are counted here,
on the numbers that the model is given, so that no task can get them wrong unseen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from lorafit.data.columns.values import column_table, features_of
from lorafit.data.findings import Findings
from lorafit.errors import DataError
from lorafit.tasks.base import Supervision

MASKED = -100
"""Label of a token that is not learned."""
MOST_UNTRAINED = 0.01
"""Share of the examples in which nothing may be learned."""
IMBALANCED = 10.0
"""Factor between the most frequent and the rarest class from which on it is said."""
MANY_UNKNOWN = 0.01
"""Share of unknown tokens from which on it is a warning."""


@dataclass(frozen=True)
class SplitTruth:
    """One encoded split.

    Attributes:
        examples: How many there are.
        tokens: All their tokens.
        longest: Tokens of the longest one.
        truncated: Examples that lost tokens.
        trained: Losses that are learned from: one an example, or one a labelled token.
        untrained: Examples in which nothing is learned.
        answers_cut: Examples with a masked prompt whose answer was cut off, or cut away.
        ends: Examples in which the end of the text is learned.
        unknown: Tokens that the tokenizer has no piece for.
        labels: Class to examples (or tokens); empty where the labels are no classes.
    """

    examples: int
    tokens: int
    longest: int
    truncated: int
    trained: int
    untrained: int
    answers_cut: int
    ends: int
    unknown: int
    labels: dict[str, int]


@dataclass(frozen=True)
class Truth:
    """All splits, and what follows.

    Attributes:
        splits: By name.
        problems: Why training would be in vain; each is one sentence with what to do.
        warnings: What should be known.
    """

    splits: dict[str, SplitTruth]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    def enforce(self, findings: Findings) -> None:
        """Hands over the warnings, and refuses what cannot be learned.

        Args:
            findings: Takes them.

        Raises:
            DataError: There are problems.
        """
        for warning in self.warnings:
            findings.warn(warning)
        if self.problems:
            raise DataError("\n".join(self.problems))

    def to_dict(self) -> dict[str, object]:
        """Everything as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Lesson:
    """What encoded examples are there to teach.

    Attributes:
        supervision: ``example``: one label each; otherwise labels are lists, of which `MASKED`
            is not learned: of a ``token``, the ``next_token``, or another text (``target``).
        label_names: The classes, in the order of their numbers.
        unknown_token: The tokenizer's number for what it does not know.
        ends: Tokens that end a text.
        max_truncated: Share of training examples whose answer may be cut off.
    """

    supervision: Supervision
    label_names: Sequence[str] = ()
    unknown_token: int | None = None
    ends: Collection[int] = ()
    max_truncated: float = 0.05

    @property
    def per_token(self) -> bool:
        """Whether tokens have labels, rather than whole examples."""
        return self.supervision != "example"

    @property
    def writes(self) -> bool:
        """Whether text is learned, which has to end."""
        return self.supervision in ("next_token", "target")


def inspect(
    encoded: Mapping[str, Dataset], lesson: Lesson, batches: Iterable[Sequence[int]] = ()
) -> Truth:
    """Counts what is learned and finds what cannot be.

    Args:
        encoded: Split to examples with ``input_ids``, ``labels`` and perhaps ``truncated``.
        lesson: What they are there to teach.
        batches: Training examples of each batch.
    """
    splits: dict[str, SplitTruth] = {}
    trained: np.ndarray = np.zeros(0, dtype=np.int64)
    for name, examples in encoded.items():
        counts, splits[name] = _split(examples, lesson)
        if name == "train":
            trained = counts
    problems = [*_empty(splits), *_untrained(splits, trained, batches, lesson.per_token)]
    problems += [*_cut(splits, lesson.max_truncated), *_absent(splits)]
    if lesson.writes:
        problems += _endless(splits, lesson.ends)
    return Truth(splits, tuple(problems), (*_imbalance(splits), *_unknown(splits)))


def _split(examples: Dataset, lesson: Lesson) -> tuple[np.ndarray, SplitTruth]:
    """Learned losses of each example, and the whole split."""
    ends = lesson.ends if lesson.writes else ()
    ids, lengths, _ = _lists(examples, "input_ids")
    n = len(examples)
    truncated = np.zeros(n, dtype=bool)
    if "truncated" in features_of(examples):
        truncated = np.asarray(column_table(examples, ["truncated"]).column(0)).astype(bool)
    answers_cut = has_end = np.zeros(n, dtype=bool)
    if lesson.per_token:
        labels, label_lengths, owner = _lists(examples, "labels")
        learned = labels != MASKED
        counts = np.bincount(owner[learned], minlength=n)
        ending = np.isin(labels, list(ends)) & learned
        has_end = np.bincount(owner[ending], minlength=n) > 0
        # Only an answer to a masked prompt can be cut off; plain text just goes on.
        is_answer = (counts < label_lengths) | (lesson.supervision == "target")
        answers_cut = truncated & is_answer & ~has_end if ends else answers_cut
        values = labels[learned]
    else:
        values, counts = _labels(examples)
    return counts, SplitTruth(
        examples=n,
        tokens=int(lengths.sum()),
        longest=int(lengths.max(initial=0)),
        truncated=int(truncated.sum()),
        trained=int(counts.sum()),
        untrained=int((counts == 0).sum()),
        answers_cut=int(answers_cut.sum()),
        ends=int(has_end.sum()),
        unknown=0 if lesson.unknown_token is None else int((ids == lesson.unknown_token).sum()),
        labels=_classes(values, lesson.label_names),
    )


def _lists(examples: Dataset, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All values of a column of lists, the length of each list, and the list of each value."""
    if len(examples) == 0:
        return (np.zeros(0, dtype=np.int64),) * 3
    chunks = column_table(examples, [column]).column(column)
    array = chunks.combine_chunks() if isinstance(chunks, pa.ChunkedArray) else chunks
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0), dtype=np.int64)
    values = np.asarray(pc.list_flatten(array))
    return values, lengths, np.repeat(np.arange(len(lengths)), lengths)


def _labels(examples: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Labels of whole examples, and 1 for each example that has one."""
    column = column_table(examples, ["labels"]).column("labels")
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        values = np.array(column.to_pylist(), dtype=np.int64).reshape(len(examples), -1)
        return values, (values != MASKED).any(axis=1).astype(np.int64)
    values = np.asarray(column)
    known = np.isfinite(values) if values.dtype.kind == "f" else values != MASKED
    return values, known.astype(np.int64)


def _classes(values: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """How often each class occurs, the most frequent first."""
    if not names or values.dtype.kind == "f":
        return {}
    if values.ndim == 2:
        found = (values == 1).sum(axis=0)
    else:
        found = np.bincount(values[values >= 0], minlength=len(names))[: len(names)]
    pairs = zip(names, map(int, found), strict=True)
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


def _empty(splits: Mapping[str, SplitTruth]) -> Iterable[str]:
    for name, split in splits.items():
        if split.examples == 0:
            yield f"the {name} split is empty: no example is left. Give more rows, or a split."


def _untrained(
    splits: Mapping[str, SplitTruth],
    trained: np.ndarray,
    batches: Iterable[Sequence[int]],
    per_token: bool,
) -> Iterable[str]:
    what = "every label is masked" if per_token else "they have no label"
    hint = (
        "Usually the prompt alone fills the longest length: raise --max-length, or shorten the "
        "prompts. `lorafit preview` shows what is masked."
        if per_token
        else "Give them labels, or leave them out with --where."
    )
    for name, split in splits.items():
        share = split.untrained / max(split.examples, 1)
        if share > MOST_UNTRAINED:
            yield (
                f"nothing is learned from {_of(split.untrained, split.examples)} {name} examples "
                f"(at most {MOST_UNTRAINED:.0%} are allowed): {what}. {hint}"
            )
            if name == "train":
                return
    if splits.get("train") is None or not splits["train"].untrained:
        return
    empty = [batch for batch in batches if not trained[list(batch)].any()]
    if empty:
        yield (
            f"nothing is learned in {len(empty):,} of the batches, such as the one of training "
            f"example {empty[0][0]}: {what}. Leave such rows out, or take larger batches "
            "(--batch-size)."
        )


def _cut(splits: Mapping[str, SplitTruth], most: float) -> Iterable[str]:
    train = splits.get("train")
    if train and train.answers_cut > most * train.examples:
        yield (
            f"the answer is cut off in {_of(train.answers_cut, train.examples)} training examples "
            f"at {train.longest} tokens (data.max_truncated allows {most:.1%}): the model would "
            "learn to stop nowhere. Raise --max-length, shorten the prompts, or allow more with "
            "--set data.max_truncated=SHARE."
        )


def _absent(splits: Mapping[str, SplitTruth]) -> Iterable[str]:
    train = splits.get("train")
    absent = [name for name, count in train.labels.items() if count == 0] if train else []
    if absent:
        yield (
            f"label {', '.join(repr(name) for name in absent[:10])} never occurs in the training "
            "examples, so it cannot be learned (its rows are in another split, or were dropped "
            "or cut). Add training rows of this class, or leave it out (--where)."
        )


def _endless(splits: Mapping[str, SplitTruth], ends: Collection[int]) -> Iterable[str]:
    train = splits.get("train")
    if not train or not train.examples or train.ends:
        return
    if not ends:
        yield (
            "the end of a text is never learned: the tokenizer has no end token, so the model "
            "would not know when to stop. Name a token that it knows as eos_token in its "
            "tokenizer_config.json."
        )
        return
    yield (
        "the end of a text is never learned: no training label is an end token "
        f"({', '.join(map(str, sorted(ends)))}), so the model would not know when to stop. End "
        "the answers with the tokenizer's eos_token, or make them fit into --max-length."
    )


def _imbalance(splits: Mapping[str, SplitTruth]) -> Iterable[str]:
    """Classes of very different frequency; ``O``, no class of its own, is left out."""
    train = splits.get("train")
    counts = {n: c for n, c in train.labels.items() if c and n != "O"} if train else {}
    if len(counts) < 2:
        return
    (most, many), *_, (least, few) = counts.items()
    if many >= IMBALANCED * few:
        yield (
            f'classes are imbalanced: "{most}" occurs {many:,} times in train, "{least}" {few:,} '
            "times. Look at the F1 of each class, not at the accuracy alone."
        )


def _unknown(splits: Mapping[str, SplitTruth]) -> Iterable[str]:
    for name, split in splits.items():
        share = split.unknown / max(split.tokens, 1)
        if share > MANY_UNKNOWN:
            yield (
                f"{_of(split.unknown, split.tokens)} tokens of the {name} split are unknown to "
                "the tokenizer: the model cannot read them. Is it made for this language?"
            )


def _of(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({count / max(total, 1):.1%})"

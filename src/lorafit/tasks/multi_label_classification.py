"""Any number of labels per text, or per pair of texts: a list of labels, or 0/1 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from scipy.special import expit
from torch.nn import functional as F

from lorafit.config import DataConfig
from lorafit.data.columns.choose import (
    LABEL_NAMES,
    check_asked,
    choose_columns,
    described,
    label_columns,
)
from lorafit.data.columns.labelled import binary_columns, find_label, find_labels, has_text, holds
from lorafit.data.columns.values import class_name, column_values, features_of, is_missing
from lorafit.data.findings import Findings
from lorafit.data.read.splits import train_rows
from lorafit.errors import DataError
from lorafit.evidence import MetricInfo, Table
from lorafit.evidence.json import Json
from lorafit.tasks import tasks
from lorafit.tasks.base import Fit, ModelKind
from lorafit.tasks.parts.answers import Predicted
from lorafit.tasks.parts.constant import Constant
from lorafit.tasks.parts.labels import (
    UNKNOWN,
    check_names,
    label_sets,
    named_head,
    read_label_names,
)
from lorafit.tasks.parts.metrics import F1, Metric
from lorafit.tasks.parts.tables import per_class
from lorafit.tasks.parts.texts import TextTask
from lorafit.units import listed

THRESHOLD = 0.0
"""Logit from which on a label is predicted: probability one half."""


@tasks.register("multi_label_classification")
class MultiLabelClassification(TextTask):
    """Each label is a yes or no of its own; the loss is the mean of their cross entropies.

    Attributes:
        label: The column with lists of labels, or the columns of 0 and 1, one for each label.
        label_names: The labels; a label's output is its place here.
    """

    name: ClassVar[str] = "multi_label_classification"
    metric: str = "micro_f1"
    reading: ClassVar[Sequence[str]] = (
        "with torch.no_grad():",
        "    probabilities = model(**inputs).logits.sigmoid()[0]",
        "print({id2label[i]: round(p, 3) for i, p in enumerate(probabilities.tolist())})",
    )
    fields: ClassVar[tuple[str, ...]] = ("text", "label", "label_names")
    needs: ClassVar[str] = "a text column (or two) and a column of lists of labels, or 0/1 columns"

    def __init__(
        self, text: Sequence[str], label: str | Sequence[str], label_names: Sequence[str]
    ) -> None:
        """Binds the task to columns and labels.

        Raises:
            DataError: There are not one or two text columns, or not two different labels.
        """
        super().__init__(text, label)
        self.label_names = check_names(label_names, "labels")

    @classmethod
    def fits(cls, rows: Dataset, config: DataConfig, model: ModelKind) -> Fit | None:
        """Text, and lists of labels or several columns of 0 and 1."""
        sets = find_label(rows, config, "sets")
        if sets is not None:
            return Fit(f"text, and lists of labels in {sets.column}", sets.certain)
        named = set(LABEL_NAMES) & {name.lower() for name in rows.column_names}
        columns, asked = binary_columns(rows, config), label_columns(config.label)
        if len(columns) < len(asked) > 1 and has_text(rows, config, asked):
            return Fit(f"text, and the labels {listed(asked)}", certain=False)
        if len(columns) < 2 or (named and config.label is None) or not has_text(rows, config):
            return None
        return Fit(f"text, and 0 or 1 in {listed(columns)}")

    @classmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> MultiLabelClassification:
        """Reads columns and labels off the data; what is guessed is said.

        Args:
            splits: At least ``train``.
            config: ``text`` and ``label``; ``None``: guess.

        Raises:
            DataError: There are no labels, or one occurs in another split and never in train.
        """
        train = train_rows(splits)
        check_asked(train, config)
        label, why = _label(train, config)
        findings = Findings()
        columns = choose_columns(_without(splits, label), config.text, need_label=False)
        findings.note(str(columns))
        if isinstance(label, str):
            names = read_label_names(splits, label, findings)
        else:
            names = list(label)
            _check_columns(train, names)
        findings.note(f"{len(names)} labels, any number a row: {listed(names)}")
        task = cls(columns.text, label, names)
        task.findings = findings
        task.reasons = {"text": columns.text_reason, "label": why}
        return task

    def model_kwargs(self) -> dict[str, Any]:
        """The number and the names of the labels."""
        return named_head(self.label_names) | {"problem_type": "multi_label_classification"}

    @property
    def outputs(self) -> int:
        """One logit a label."""
        return len(self.label_names)

    @property
    def named_outputs(self) -> str:
        """The labels."""
        return f" ({listed(self.label_names)})"

    def read_labels(self, rows: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """1 for each label a row has, ``(n, labels)`` int64; a row without a list is unknown."""
        if isinstance(self.label, str):
            labels = label_sets(rows, self.label, self.label_names)
        else:
            labels = np.stack([_binary(rows, column) for column in self.label], axis=1)
            labels[(labels == UNKNOWN).any(axis=1)] = UNKNOWN
        return labels, (labels != UNKNOWN).all(axis=1)

    def unknown(self, count: int) -> np.ndarray:
        """``UNKNOWN`` (-100), ``(count, labels)``."""
        return np.full((count, len(self.label_names)), UNKNOWN, dtype=np.int64)

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean binary cross entropy over the labels of each example, in nats, float32.

        Args:
            logits: ``(n, labels)``, any float type.
            labels: ``(n, labels)``, 0, 1 or ``UNKNOWN``, which has no loss.
        """
        known = labels != UNKNOWN
        losses = F.binary_cross_entropy_with_logits(
            logits.float(), labels.where(known, 0).float(), reduction="none"
        )
        return (losses * known).mean(dim=-1)

    @property
    def metrics(self) -> dict[str, Metric]:
        """F1 over all decisions and averaged over labels; share of rows with all labels right."""
        return dict(_METRICS)

    def decode(
        self,
        logits: Sequence[np.ndarray] | np.ndarray,
        encoded: Dataset | None = None,
        rows: Dataset | None = None,
    ) -> list[Json]:
        """The labels of each example, and the probability of each label."""
        values = np.asarray(logits, dtype=np.float64)
        return [
            {
                "labels": [
                    name
                    for name, value in zip(self.label_names, row, strict=True)
                    if value > THRESHOLD
                ],
                "probabilities": {
                    name: float(expit(value))
                    for name, value in zip(self.label_names, row, strict=True)
                },
            }
            for row in values
        ]

    def predicted(
        self, outputs: np.ndarray | Sequence[np.ndarray], labels: np.ndarray, encoded: Dataset
    ) -> Predicted | None:
        """The labels that are more likely than not; right if all of them are.

        The probability of an answer is that of exactly these labels, as if they were independent.
        """
        values = np.asarray(outputs, dtype=np.float64)
        said, probabilities = _predicted(values), expit(values)
        return Predicted(
            labels=[self._named(row == 1) for row in labels],
            answers=[self._named(row) for row in said],
            right=(said == (labels == 1)).all(axis=-1),
            probability=np.where(said, probabilities, 1.0 - probabilities).prod(axis=-1),
            probabilities=probabilities.astype(np.float32),
        )

    def _named(self, has: np.ndarray) -> list[str]:
        return [name for name, one in zip(self.label_names, has, strict=True) if one]

    def constant(self, encoded: Dataset) -> Constant:
        """The most frequent labels, as many as make micro F1 the highest.

        The labels that more than half of the examples have would often be none, with an F1 of 0.
        """
        labels = np.array(encoded["labels"]) == 1
        often = labels.sum(axis=0)
        order = np.argsort(-often, kind="stable")
        said = len(labels) * np.arange(1, len(order) + 1)
        f1 = 2 * often[order].cumsum() / (said + often.sum())
        best = order[: int(f1.argmax()) + 1] if often.any() else order[:0]
        chosen = np.isin(np.arange(len(order)), best)
        names = [f'"{name}"' for name, has in zip(self.label_names, chosen, strict=True) if has]
        kept = np.broadcast_to(np.where(chosen, 1.0, -1.0) + THRESHOLD, labels.shape)
        return Constant(" and ".join(names) or "no label", kept)

    def never_predicted(self, kept: np.ndarray, labels: np.ndarray) -> list[str]:
        """The labels that some examples have and none was given."""
        missed = (labels == 1).any(axis=0) & ~_predicted(kept).any(axis=0)
        return [name for name, none in zip(self.label_names, missed, strict=True) if none]

    def tables(self, kept: np.ndarray, labels: np.ndarray) -> list[Table]:
        """Each label."""
        return [per_class(labels, _predicted(kept).astype(int), self.label_names)]


def _label(rows: Dataset, config: DataConfig) -> tuple[str | list[str], str]:
    """The label column or columns, and why."""
    asked = label_columns(config.label)
    if len(asked) > 1:
        return list(asked), "as asked"
    if asked and holds(rows, asked[0]) == "sets":
        return asked[0], "as asked"
    if asked:
        raise DataError(
            f'column "{asked[0]}" (label) holds no lists of labels. Give a column of lists, or '
            "several columns of 0 and 1 (--label a --label b)."
        )
    sets = [labels.column for labels in find_labels(rows, config) if labels.holds == "sets"]
    if len(sets) == 1:
        return sets[0], "lists of labels"
    columns = binary_columns(rows, config)
    if not sets and len(columns) > 1:
        return list(columns), "columns of 0 and 1"
    found = f"{listed(sets)} could all be" if sets else "none is"
    raise DataError(
        f"which column holds the lists of labels is not clear: {found}. There are "
        f"{described(rows)}. Choose with --label."
    )


def _without(splits: DatasetDict, label: str | Sequence[str]) -> DatasetDict:
    """The splits less the labels: what is left may be text."""
    columns = label_columns(label)
    return DatasetDict(
        {
            split: rows.remove_columns([name for name in columns if name in features_of(rows)])
            for split, rows in splits.items()
        }
    )


def _check_columns(rows: Dataset, columns: Sequence[str]) -> None:
    """Refuses columns of something else than 0 and 1, and labels that no row has.

    Raises:
        DataError: There is such a column.
    """
    never = [column for column in columns if not (_binary(rows, column) == 1).any()]
    if never:
        raise DataError(
            f"no training row has a 1 in {listed(never)}, so it cannot be learned. Leave it out "
            "of the label columns, or add training rows that have it."
        )


def _binary(rows: Dataset, column: str) -> np.ndarray:
    """A column of 0 and 1, ``(n,)`` int64; ``UNKNOWN`` where there is nothing."""
    feature = features_of(rows)[column]
    numbers = np.full(len(rows), UNKNOWN, dtype=np.int64)
    for index, value in enumerate(column_values(rows, column)):
        if is_missing(value, feature):
            continue
        if isinstance(value, str) or value not in (0, 1):
            raise DataError(
                f'column "{column}" (label) holds {class_name(value, feature)!r} in row '
                f"{index + 1}; several label columns have to hold 0 and 1 only."
            )
        numbers[index] = int(value)
    return numbers


def _predicted(logits: np.ndarray) -> np.ndarray:
    return logits > THRESHOLD


def _counts(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each label: how often it was rightly predicted; how often it is true plus predicted."""
    said, true = _predicted(logits), labels == 1
    return (said & true).sum(axis=0), said.sum(axis=0) + true.sum(axis=0)


def _micro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """As scikit-learn's, without its checks: called thousands of times by the bootstrap."""
    both, either = _counts(logits, labels)
    return float(2 * both.sum() / max(either.sum(), 1))


def _macro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    both, either = _counts(logits, labels)
    return float((2 * both / np.maximum(either, 1)).mean())


def _right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    right: np.ndarray = (_predicted(logits) == (labels == 1)).all(axis=1)
    return right


def _exact_match(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(_right(logits, labels).mean())


_METRICS = {
    "micro_f1": Metric(
        _micro_f1,
        MetricInfo(
            "micro F1",
            "F1 over all decisions at once, which frequent labels rule; 1 is perfect",
            low=0,
            high=1,
            hub="f1",
        ),
    ),
    "macro_f1": Metric(
        _macro_f1,
        MetricInfo("macro F1", f"mean over the labels of F1, {F1}", low=0, high=1, hub="f1"),
    ),
    "exact_match": Metric(
        _exact_match,
        MetricInfo(
            "exact match",
            "share of examples of which everything is right",
            form="share",
            low=0,
            high=1,
        ),
        right=_right,
    ),
}

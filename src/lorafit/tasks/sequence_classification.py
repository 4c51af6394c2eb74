"""One label per text, or per pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from scipy.special import softmax
from torch.nn import functional as F

from lorafit.config import DataConfig
from lorafit.data.columns.choose import LABEL_NAMES, choose_columns, label_columns
from lorafit.data.columns.labelled import find_label, find_labels
from lorafit.data.columns.values import features_of
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
    label_numbers,
    named_head,
    read_label_names,
    refuse_fractions,
)
from lorafit.tasks.parts.metrics import F1, Metric
from lorafit.tasks.parts.tables import tables_of_classes
from lorafit.tasks.parts.texts import TextTask
from lorafit.units import listed


@tasks.register("sequence_classification")
class SequenceClassification(TextTask):
    """Single-label classification of texts or text pairs, two classes or more.

    Attributes:
        label: The label column.
        label_names: The classes; a class's number is its place here.
    """

    name: ClassVar[str] = "sequence_classification"
    metric: str = "accuracy"
    stratified: ClassVar[bool] = True
    reading: ClassVar[Sequence[str]] = (
        "with torch.no_grad():",
        "    probabilities = model(**inputs).logits.softmax(dim=-1)[0]",
        "print({id2label[i]: round(p, 3) for i, p in enumerate(probabilities.tolist())})",
    )
    fields: ClassVar[tuple[str, ...]] = ("text", "label", "label_names")
    needs: ClassVar[str] = "a text column (or two) and a column of classes"

    label: str

    def __init__(self, text: Sequence[str], label: str, label_names: Sequence[str]) -> None:
        """Binds the task to columns and classes.

        Raises:
            DataError: There are not one or two text columns, or not two different classes.
        """
        super().__init__(text, label)
        self.label_names = check_names(label_names, "classes")

    @classmethod
    def fits(cls, rows: Dataset, config: DataConfig, model: ModelKind) -> Fit | None:
        """Text, and one class a row."""
        if len(label_columns(config.label)) > 1:
            return None
        found = find_label(rows, config, "classes")
        if found is None:
            return None
        columns = [one.column for one in find_labels(rows, config) if one.holds == "classes"]
        return Fit(f"text, and classes in {' or '.join(columns)}", found.certain)

    @classmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> SequenceClassification:
        """Reads columns and labels off the data; what is guessed is said.

        Args:
            splits: At least ``train``, before or after missing splits are carved.
            config: ``text`` and ``label``; ``None``: guess.

        Raises:
            DataError: No such column, no clear candidate, one class only, labels that are
                fractions, or a label in another split that never occurs in train.
        """
        train = train_rows(splits)
        # Before columns are chosen: a column that is certainly the label deserves this word.
        for column in label_columns(config.label) or LABEL_NAMES:
            if column in features_of(train):
                refuse_fractions(train, column, "train")
        if isinstance(config.label, list):
            raise DataError(
                f"one label column is needed, got {len(config.label)} ({', '.join(config.label)})."
                " For several labels a row set --task multi_label_classification."
            )
        findings = Findings()
        columns = choose_columns(splits, config.text, config.label)
        findings.note(str(columns))
        assert columns.label is not None  # choose_columns raises when it finds none
        names = read_label_names(splits, columns.label, findings)
        findings.note(f"{len(names)} classes: {listed(names)}")
        task = cls(columns.text, columns.label, names)
        task.findings = findings
        task.reasons = {"text": columns.text_reason, "label": columns.label_reason}
        return task

    def model_kwargs(self) -> dict[str, Any]:
        """The number and the names of the labels."""
        return named_head(self.label_names) | {"problem_type": "single_label_classification"}

    @property
    def outputs(self) -> int:
        """One logit a class."""
        return len(self.label_names)

    @property
    def named_outputs(self) -> str:
        """The classes."""
        return f" ({listed(self.label_names)})"

    def read_labels(self, rows: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """The class number of each row, ``(n,)`` int64."""
        labels = label_numbers(rows, self.label, self.label_names)
        return labels, labels != UNKNOWN

    def unknown(self, count: int) -> np.ndarray:
        """``UNKNOWN`` (-100), ``(count,)``."""
        return np.full(count, UNKNOWN, dtype=np.int64)

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross entropy of each example in nats, float32; 0 where the label is ``UNKNOWN``.

        Args:
            logits: ``(n, classes)``, any float type.
            labels: ``(n,)``, int64.
        """
        return F.cross_entropy(logits.float(), labels, reduction="none", ignore_index=UNKNOWN)

    @property
    def metrics(self) -> dict[str, Metric]:
        """Accuracy, macro F1 (over the classes that occur), Matthews' correlation.

        The micro F1 of one label a row is the accuracy.
        """
        return dict(_METRICS)

    def decode(
        self,
        logits: Sequence[np.ndarray] | np.ndarray,
        encoded: Dataset | None = None,
        rows: Dataset | None = None,
    ) -> list[Json]:
        """The most probable label of each example, its probability, and those of all labels."""
        probabilities = softmax(np.asarray(logits, dtype=np.float64), axis=-1)
        return [
            {
                "label": self.label_names[int(row.argmax())],
                "probability": float(row.max()),
                "probabilities": {
                    name: float(value) for name, value in zip(self.label_names, row, strict=True)
                },
            }
            for row in probabilities
        ]

    def predicted(
        self, outputs: np.ndarray | Sequence[np.ndarray], labels: np.ndarray, encoded: Dataset
    ) -> Predicted | None:
        """The most probable class; the probability of every class."""
        probabilities = softmax(np.asarray(outputs, dtype=np.float64), axis=-1)
        said = probabilities.argmax(axis=-1)
        return Predicted(
            labels=[self.label_names[int(number)] for number in labels],
            answers=[self.label_names[int(number)] for number in said],
            right=said == labels,
            probability=probabilities.max(axis=-1),
            probabilities=probabilities.astype(np.float32),
        )

    def constant(self, encoded: Dataset) -> Constant:
        """The most frequent class."""
        labels = np.array(encoded["labels"])
        kept = np.zeros((len(labels), len(self.label_names)))
        most = int(np.bincount(labels).argmax())
        kept[:, most] = 1.0
        return Constant(f'"{self.label_names[most]}"', kept)

    def never_predicted(self, kept: np.ndarray, labels: np.ndarray) -> list[str]:
        """The classes that some examples have and none was given."""
        missed = np.setdiff1d(labels, kept.argmax(axis=-1))
        return [self.label_names[index] for index in missed]

    def tables(self, kept: np.ndarray, labels: np.ndarray) -> list[Table]:
        """Each class, the confusion matrix, and of a large one the most frequent mistakes."""
        return tables_of_classes(labels, kept.argmax(axis=-1), self.label_names)


def _right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    right: np.ndarray = logits.argmax(axis=-1) == labels
    return right


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(_right(logits, labels).mean())


def _macro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    # Here: the package takes 40 MB, and training alone does without.
    from sklearn.metrics import f1_score

    return float(f1_score(labels, logits.argmax(axis=-1), average="macro", zero_division=0.0))


def _mcc(logits: np.ndarray, labels: np.ndarray) -> float:
    predicted = logits.argmax(axis=-1)
    # scikit-learn warns of a single class, for which it has 0 too.
    if len(np.union1d(labels, predicted)) < 2:
        return 0.0
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predicted))


# The same of drawn counts ``(resamples, cells)``, and the cells' labels and predictions.


def _count_accuracy(counts: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    right: np.ndarray = counts[:, labels == predictions].sum(axis=1) / counts.sum(axis=1)
    return right


def _of_classes(counts: np.ndarray, cells: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The counts of the cells of each class, ``(resamples, classes)`` float64.

    A product with a matrix of cells by classes would grow with the square of the classes.

    Args:
        counts: ``(resamples, cells)``.
        cells: The class of each cell.
        classes: All of them, in order.
    """
    found = np.zeros((len(counts), len(classes)))
    if len(cells):
        order = np.argsort(cells, kind="stable")
        occurring, starts = np.unique(cells[order], return_index=True)
        sums = np.add.reduceat(counts[:, order], starts, axis=1)
        found[:, np.searchsorted(classes, occurring)] = sums
    return found


def _count_macro_f1(counts: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """As scikit-learn's: the mean over the classes that occur as a label or a prediction."""
    classes = np.union1d(labels, predictions)
    right = labels == predictions
    both = _of_classes(counts[:, right], labels[right], classes)
    either = _of_classes(counts, labels, classes) + _of_classes(counts, predictions, classes)
    f1 = 2.0 * both / np.maximum(either, 1.0)
    mean: np.ndarray = f1.sum(axis=1) / (either > 0).sum(axis=1)
    return mean


def _count_mcc(counts: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Matthews' correlation of several classes (Gorodkin 2004); 0 where it has no value."""
    classes = np.union1d(labels, predictions)
    n = counts.sum(axis=1).astype(np.float64)
    true = _of_classes(counts, labels, classes)
    said = _of_classes(counts, predictions, classes)
    right = counts[:, labels == predictions].sum(axis=1)
    covariance = right * n - (true * said).sum(axis=1)
    spread = np.sqrt((n**2 - (true**2).sum(axis=1)) * (n**2 - (said**2).sum(axis=1)))
    mcc: np.ndarray = np.where(spread > 0, covariance / np.where(spread > 0, spread, 1.0), 0.0)
    return mcc


_METRICS = {
    "accuracy": Metric(
        _accuracy,
        MetricInfo(
            "accuracy",
            "share of examples labelled correctly",
            form="share",
            low=0,
            high=1,
            hub="accuracy",
        ),
        counted=_count_accuracy,
        right=_right,
    ),
    "macro_f1": Metric(
        _macro_f1,
        MetricInfo("macro F1", f"mean over the labels of F1, {F1}", low=0, high=1, hub="f1"),
        counted=_count_macro_f1,
    ),
    "mcc": Metric(
        _mcc,
        MetricInfo(
            "Matthews correlation",
            "agreement with the labels beyond chance: 0 is guessing, 1 is perfect",
            low=-1,
            high=1,
            hub="matthews_correlation",
        ),
        counted=_count_mcc,
    ),
}

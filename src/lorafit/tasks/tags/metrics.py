"""Metrics of tagged words and spans, from what `TokenClassification.keep` counts.

``kept`` is ``(n, 1 + 3 * kinds)``: words tagged right, then of each kind of span how many are
right, predicted and true; ``labels`` is ``(n,)``, the words of each example.
"""

from __future__ import annotations

import numpy as np

from lorafit.evidence import MetricInfo
from lorafit.tasks.parts.metrics import F1, Metric


def by_kind(kept: np.ndarray) -> np.ndarray:
    """Right, predicted and true spans of each kind, ``(kinds, 3)``."""
    counts: np.ndarray = kept[:, 1:].sum(axis=0).reshape(-1, 3)
    return counts


def totals(kept: np.ndarray) -> tuple[int, int, int]:
    """Right, predicted and true spans of all kinds."""
    right, said, true = by_kind(kept).sum(axis=0)
    return int(right), int(said), int(true)


def f1(kept: np.ndarray, _labels: np.ndarray) -> float:
    """F1 of all spans."""
    right, said, true = totals(kept)
    return 2 * right / max(said + true, 1)


def precision(kept: np.ndarray, _labels: np.ndarray) -> float:
    """Precision of all spans."""
    right, said, _ = totals(kept)
    return right / max(said, 1)


def recall(kept: np.ndarray, _labels: np.ndarray) -> float:
    """Recall of all spans."""
    right, _, true = totals(kept)
    return right / max(true, 1)


def macro_f1(kept: np.ndarray, _labels: np.ndarray) -> float:
    """The mean F1 of the kinds that occur."""
    right, said, true = by_kind(kept).T
    occurs = said + true > 0
    return float((2 * right[occurs] / (said + true)[occurs]).mean())


def accuracy(kept: np.ndarray, labels: np.ndarray) -> float:
    """Share of the words with the right tag."""
    return float(kept[:, 0].sum() / np.maximum(labels, 0).sum())


OF_TAGS = {
    "accuracy": Metric(
        accuracy,
        MetricInfo(
            "accuracy",
            "share of words tagged correctly",
            form="share",
            low=0,
            high=1,
            hub="accuracy",
        ),
    ),
    "macro_f1": Metric(
        macro_f1,
        MetricInfo("macro F1", f"mean over the tags of F1, {F1}", low=0, high=1, hub="f1"),
    ),
}
"""Of single tags."""

OF_SPANS = {
    "f1": Metric(f1, MetricInfo("F1", f"F1 of all spans, {F1}", low=0, high=1, hub="f1")),
    "precision": Metric(
        precision,
        MetricInfo(
            "precision",
            "share of the spans it names that are right; 1 is perfect",
            low=0,
            high=1,
            hub="precision",
        ),
    ),
    "recall": Metric(
        recall,
        MetricInfo(
            "recall",
            "share of the true spans that it finds; 1 is perfect",
            low=0,
            high=1,
            hub="recall",
        ),
    ),
    "word_accuracy": Metric(
        accuracy,
        MetricInfo("word accuracy", "share of words with the right tag", low=0, high=1),
    ),
}
"""Of spans of words."""

"""What a model that looks at no text comes to, and what the tuned one never says.

A file of an earlier version says neither: there it follows from the confusion matrix.
"""

from __future__ import annotations

from lorafit.evidence.baseline import Baseline
from lorafit.evidence.confusion import confusion_of
from lorafit.evidence.evaluation import Evaluation


def baseline_of(evaluation: Evaluation) -> Baseline | None:
    """Always the same answer; ``None``: there is none, or it is not known."""
    if evaluation.baseline is not None:
        return evaluation.baseline
    matrix = confusion_of(evaluation.tables)
    if matrix is None or not matrix.total:
        return None
    name, share = matrix.most_frequent
    shares = [metric for metric in evaluation.tuned if evaluation.info(metric).is_share]
    return Baseline(answer=f'"{name}"', metrics=dict.fromkeys(shares, share))


def never_predicted(evaluation: Evaluation) -> list[str]:
    """Classes of the examples that the tuned model gave to none of them."""
    if evaluation.never_predicted:
        return evaluation.never_predicted
    matrix = confusion_of(evaluation.tables)
    return [] if matrix is None else matrix.never_predicted

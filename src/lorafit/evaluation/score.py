"""What a model says on a split, and how sure the metrics made of it are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset

from lorafit.data.batches import evaluation_order, fetch, lengths
from lorafit.engine.answers import answer
from lorafit.engine.base import Engine
from lorafit.engine.halving import Halving
from lorafit.errors import DataError, DivergenceError
from lorafit.evaluation.bootstrap import Sample, resampled, resampled_mean
from lorafit.evaluation.intervals import of_metric, percentiles, wilson
from lorafit.evidence import Interval
from lorafit.tasks.base import Task
from lorafit.tasks.parts.labels import UNKNOWN
from lorafit.tasks.parts.metrics import described


@dataclass(frozen=True)
class Scores:
    """A model's answers, in the order of the data.

    Attributes:
        logits: ``(n, ...)``: the logits, or what `Task.keep` makes of them.
        labels: ``(n, ...)``: the labels, likewise.
        losses: ``(n,)``, summed over each example's units, float32.
        units: ``(n,)``, how many losses each sum has, int64; ``None``: one each.
    """

    logits: np.ndarray
    labels: np.ndarray
    losses: np.ndarray
    units: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.losses)


def score(engine: Engine, encoded: Dataset, batch_size: int) -> Scores:
    """Computes logits and losses of every example, in evaluation mode, in the data's order.

    Args:
        engine: Computes the logits, and the losses of its task.
        encoded: The encoded split.
        batch_size: Examples per batch.

    Raises:
        DataError: There are no examples.
        DivergenceError: Logits are not finite.
    """
    if len(encoded) == 0:
        raise DataError("there are 0 examples to score.")
    found = answer(engine, encoded, batch_size)
    result, finite = Scores(found.kept, found.labels, found.losses, found.units), found.finite
    if not finite.all():
        raise DivergenceError(
            f"the model gives logits that are not finite for {(~finite).sum():,} of "
            f"{len(result):,} examples (the first is example {int(np.argmin(finite)) + 1}). "
            "With float16 weights, use bfloat16 or float32; otherwise the training diverged."
        )
    return result


def all_logits(engine: Engine, task: Task, encoded: Dataset, batch_size: int) -> list[np.ndarray]:
    """Returns the logits of every example, in the order of the data.

    Logits of every token come without those of padding. A batch that does not fit into memory is
    computed in halves.

    Raises:
        TrainingError: Not even one example fits.
    """
    found: list[np.ndarray] = [np.empty(0)] * len(encoded)
    tokens = lengths(encoded)
    per_token = task.supervision in ("token", "next_token")
    halving = Halving()

    def of_some(indices: list[int]) -> np.ndarray:
        logits = engine.logits(engine.collate(fetch(encoded, indices)))
        of_all: np.ndarray = logits.float().cpu().numpy()
        return of_all

    for batch in evaluation_order(tokens, batch_size).batches:
        for indices, logits in halving.of(batch, of_some):
            for index, row in zip(indices, logits, strict=True):
                found[index] = row[: tokens[index]] if per_token else row
    return found


def intervals(
    scores: Scores, task: Task, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Returns every metric of the task, and the mean loss, each with its interval.

    A share of examples that are right has Wilson's interval; the mean loss (``nll``, nats per
    example, or what ``task.loss_name`` says) and all other metrics the percentile bootstrap over
    examples. No interval reaches beyond the bounds of its metric; that of a perfect score has a
    width (`lorafit.evaluation.intervals.of_metric`).

    Args:
        scores: Of labelled examples.
        task: Has the metrics.
        confidence: Level of the intervals.
        seed: Of the bootstrap.

    Raises:
        DataError: Examples have no label.
    """
    check_labelled(scores)
    result: dict[str, Interval] = {}
    n = len(scores)
    for number, (name, metric) in enumerate(described(task.metrics).items()):
        value = metric(scores.logits, scores.labels)
        if metric.right is not None:
            right = metric.right(scores.logits, scores.labels)
            found = replace(wilson(int(right.sum()), n, confidence), value=value)
        else:
            random = np.random.default_rng([seed, number])
            sample = Sample(scores.labels, (scores.logits,))
            found = percentiles(value, resampled(metric, sample, random)[0], n, confidence)
        result[name] = of_metric(found, metric.info)
    random = np.random.default_rng([seed, -1 % 2**32])
    means = resampled_mean(scores.losses, random, scores.units)
    loss = percentiles(mean_loss(scores), means, n, confidence)
    result[task.loss_name] = loss.within(task.loss_info.low, task.loss_info.high)
    return result


def mean_loss(scores: Scores) -> float:
    """The mean loss of a unit."""
    total = len(scores) if scores.units is None else scores.units.sum()
    return float(scores.losses.sum(dtype=np.float64) / total)


def check_labelled(scores: Scores) -> None:
    """Refuses scores of examples without labels.

    Raises:
        DataError: An example has no label, so that it cannot be right or wrong.
    """
    labels = scores.labels.reshape(len(scores), -1)
    missing = np.isnan(labels) if labels.dtype.kind == "f" else labels == UNKNOWN
    unknown = missing.all(axis=1)
    if unknown.any():
        raise DataError(
            f"{unknown.sum():,} of {len(scores):,} examples have no label, so they cannot be "
            "scored. Give data with the label column, or use predict."
        )

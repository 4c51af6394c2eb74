"""The order of batches: similar lengths together, and a pure function of (seed, epoch).

Padding costs as much as text, so a batch should hold examples of similar length. Sorting
everything would show the model the same batches each epoch; instead each epoch shuffles
all examples, sorts within large pieces of the shuffled order (as ``group_by_length`` of
the Hugging Face Trainer does), cuts batches, and shuffles the batches.

Because nothing but the seed and the epoch enters, a run resumes at (epoch, batch index)
without any stored state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from lorafit.data.columns.values import column_table

Example = Mapping[str, Any]
"""An encoded example as datasets gives it: ``input_ids`` (not padded), ``labels``, and what else
the tokenizer and the task put there."""

DEFAULT_BUCKET = 50
"""Batches in one sorted piece; the value of transformers' ``LengthGroupedSampler``."""


def lengths(encoded: Dataset) -> list[int]:
    """Length in tokens of each encoded example."""
    tokens = column_table(encoded, ["input_ids"]).column("input_ids")
    counts: list[int] = pc.list_value_length(tokens).to_pylist()
    return counts


def fetch(encoded: Dataset, indices: list[int]) -> list[Example]:
    """The examples at some indices, as a list of rows."""
    rows: list[Example] = encoded.__getitems__(indices)
    return rows


class BatchOrder:
    """Which examples form which batch in which epoch.

    Every example is in exactly one batch of an epoch; one batch may be smaller than the
    others, and none is dropped.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        bucket: int | None = DEFAULT_BUCKET,
    ) -> None:
        """Prepares the order; nothing random happens here.

        Args:
            lengths: Tokens of each example, ``(n,)``.
            batch_size: Examples in a batch.
            seed: At least 0.
            bucket: Batches in a piece that is sorted by length; ``None``: lengths do not
                matter, batches are uniformly random.

        Raises:
            ValueError: ``batch_size`` or ``bucket`` is below 1, ``seed`` below 0, or there
                are no examples.
        """
        if len(lengths) == 0:
            raise ValueError("there are no examples to order")
        if batch_size < 1 or (bucket is not None and bucket < 1) or seed < 0:
            raise ValueError(
                f"batch_size {batch_size} and bucket {bucket} have to be at least 1, "
                f"seed {seed} at least 0"
            )
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.bucket = bucket

    def __len__(self) -> int:
        """Batches in an epoch; the same in each."""
        return -(-len(self.lengths) // self.batch_size)

    def epoch(self, epoch: int) -> list[list[int]]:
        """Returns the batches of an epoch, each a list of example indices."""
        # A seed sequence of both numbers: epochs are independent, and seed 0 epoch 1 is
        # not seed 1 epoch 0.
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.lengths))
        if self.bucket is not None:
            piece = self.bucket * self.batch_size
            order = np.concatenate(
                [self._sorted(order[at : at + piece]) for at in range(0, len(order), piece)]
            )
        batches = _cut(order, self.batch_size)
        return [batches[index] for index in random.permutation(len(batches))]

    def _sorted(self, piece: np.ndarray) -> np.ndarray:
        """A piece by falling length; equal lengths stay in their shuffled order."""
        return piece[np.argsort(-self.lengths[piece], kind="stable")]


@dataclass(frozen=True)
class EvaluationOrder:
    """Batches by falling length, and the way back to the order of the rows."""

    batches: list[list[int]]
    inverse: np.ndarray
    """``(n,)``: ``concatenated[inverse]`` has the results in the order of the rows."""


def evaluation_order(lengths: Sequence[int], batch_size: int) -> EvaluationOrder:
    """Returns batches of least padding; the longest come first, so memory peaks at once.

    Raises:
        ValueError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} has to be at least 1")
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return EvaluationOrder(_cut(order, batch_size), inverse)


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Returns the share of positions that are padding when batches are padded to their longest."""
    real = sum(int(lengths[index]) for batch in batches for index in batch)
    padded = sum(len(batch) * max(int(lengths[i]) for i in batch) for batch in batches)
    return 1.0 - real / padded if padded else 0.0


def _cut(order: np.ndarray, size: int) -> list[list[int]]:
    return [order[at : at + size].tolist() for at in range(0, len(order), size)]

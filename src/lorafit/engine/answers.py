"""What a model says of a whole split, computed in batches."""

from __future__ import annotations

from datasets import Dataset

from lorafit.data.batches import evaluation_order, fetch, lengths
from lorafit.engine.base import Answers, Engine
from lorafit.engine.halving import Halving


def answer(engine: Engine, encoded: Dataset, batch_size: int) -> Answers:
    """The answers to every example, in evaluation mode and in the order of the data.

    Examples of like length are computed together, longest first: less padding, and a batch
    that does not fit into memory is met at once; it is computed in halves.

    Args:
        engine: Computes the batches.
        encoded: The encoded split; not empty.
        batch_size: Examples per batch, where they fit.

    Raises:
        TrainingError: Not even one example does.
    """
    order = evaluation_order(lengths(encoded), batch_size)
    halving = Halving()

    def of_some(indices: list[int]) -> Answers:
        return engine.answers(engine.collate(fetch(encoded, indices)))

    parts = [part for indices in order.batches for _, part in halving.of(indices, of_some)]
    return Answers.joined(parts, order.inverse)

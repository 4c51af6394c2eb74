"""What a model says of a whole split, computed in batches."""

from __future__ import annotations

from datasets import Dataset

from lorafit.data.batches import evaluation_order, fetch, lengths
from lorafit.engine.base import Answers, Engine


def answer(engine: Engine, encoded: Dataset, batch_size: int) -> Answers:
    """The answers to every example, in evaluation mode and in the order of the data.

    Examples of like length are computed together, longest first: less padding, and a batch
    that does not fit into memory is met at once.

    Args:
        engine: Computes the batches.
        encoded: The encoded split; not empty.
        batch_size: Examples per batch.
    """
    order = evaluation_order(lengths(encoded), batch_size)
    batches = (engine.collate(fetch(encoded, indices)) for indices in order.batches)
    return Answers.joined([engine.answers(batch) for batch in batches], order.inverse)

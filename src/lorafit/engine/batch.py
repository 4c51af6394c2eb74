"""Examples laid end to end: what the packed engines' batches have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lorafit.data.batches import Example
from lorafit.engine.base import Batch
from lorafit.engine.frozen import padded_rows
from lorafit.engine.packing import Packing
from lorafit.errors import DataError


def check_examples(examples: Sequence[Example]) -> list[int]:
    """The lengths of a batch's examples, in tokens.

    Raises:
        DataError: There is no example, or an empty one.
    """
    lengths = [len(example["input_ids"]) for example in examples]
    if not lengths or min(lengths) < 1:
        raise DataError(f"a batch of {len(lengths)} examples has an empty one, or none")
    return lengths


def pack_examples(examples: Sequence[Example], pad: int, room: int, dtype: torch.dtype) -> Batch:
    """Lays the examples' tokens end to end.

    A last sequence of padding tokens, which nothing looks at, rounds the number of rows up
    (`padded_rows`).

    Args:
        examples: With ``input_ids`` and perhaps ``token_type_ids``.
        pad: The padding token.
        room: Positions the model has.
        dtype: What its products are computed in.

    Returns:
        ``input_ids``, ``positions`` (from 0 in each example), ``packing``, and how many
        examples (``count``) and tokens (``tokens``) are real.

    Raises:
        DataError: There is no example, an empty one, or one longer than the model takes.
    """
    lengths = check_examples(examples)
    if max(lengths) > room:
        raise DataError(
            f"an example has {max(lengths)} tokens, the model has {room} positions; "
            f"set max_length to {room} or less"
        )
    fill = padded_rows(sum(lengths), dtype) - sum(lengths)
    if fill > room:
        fill = 0
    packed = [*lengths, fill] if fill else lengths
    ids = [token for example in examples for token in example["input_ids"]]
    batch: Batch = {
        "input_ids": torch.tensor(ids + [pad] * fill),
        "positions": torch.cat([torch.arange(n) for n in packed]),
        "packing": Packing.of(packed),
        "count": len(lengths),
        "tokens": sum(lengths),
    }
    if "token_type_ids" in examples[0]:
        types = [t for example in examples for t in example["token_type_ids"]]
        batch["token_type_ids"] = torch.tensor(types + [0] * fill)
    return batch

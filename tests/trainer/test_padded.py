"""Batches taken apart: every real token once, nothing of the padding, and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorafit.engine.support import Unsupported
from lorafit.trainer.padded import take_apart

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=5)


def batch(lengths: list[int], left: bool, room: int) -> dict[str, torch.Tensor]:
    longest = max(lengths) + room
    ids = torch.zeros(len(lengths), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, n in enumerate(lengths):
        where = slice(longest - n, None) if left else slice(0, n)
        ids[row, where] = torch.arange(1, n + 1) + 10 * row
        mask[row, where] = 1
        labels[row, where] = ids[row, where]
        labels[row, where.start] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@given(LENGTHS, st.booleans(), st.integers(0, 3))
def test_examples_are_the_real_tokens_and_logits_go_back_to_their_places(
    lengths: list[int], left: bool, room: int
) -> None:
    inputs = batch(lengths, left, room)
    found = take_apart(inputs, "next_token", 0, padded_left=True)
    assert [example["input_ids"] for example in found.examples] == [
        [10 * row + k for k in range(1, n + 1)] for row, n in enumerate(lengths)
    ]
    assert [len(example["labels"]) for example in found.examples] == lengths
    rows = [torch.tensor(example["input_ids"]).float()[:, None] for example in found.examples]
    logits = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1.0)
    assert torch.equal(found.scattered(logits)[..., 0], inputs["input_ids"].float())


@given(LENGTHS, st.booleans(), st.integers(1, 3))
def test_a_label_at_padding_is_refused(lengths: list[int], left: bool, room: int) -> None:
    inputs = batch(lengths, left, room)
    inputs["labels"][0, 0 if left else -1] = 5
    with pytest.raises(Unsupported, match="padding has labels"):
        take_apart(inputs, "tokens", 0, padded_left=True)


@given(LENGTHS, st.integers(1, 3))
def test_a_first_token_that_is_predicted_from_padding_is_refused(
    lengths: list[int], room: int
) -> None:
    inputs = batch(lengths, True, room)
    inputs["labels"][0, -lengths[0]] = 5
    with pytest.raises(Unsupported, match="padding has labels"):
        take_apart(inputs, "next_token", 0, padded_left=True)
    assert take_apart(inputs, "tokens", 0, padded_left=True).labels is not None

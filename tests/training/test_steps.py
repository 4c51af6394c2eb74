import pytest

from lorafit.data.batches import lengths
from lorafit.errors import DataError
from lorafit.training.steps import StepPlan
from tests.training import toy


def plan(n=22, rank=0, size=1, **train):
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2} | train
    return StepPlan(toy.examples(n), toy.config(**settings), rank, size)


def test_every_epoch_sees_every_example_once():
    steps = list(plan().steps())
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    for epoch in (steps[:3], steps[3:]):
        seen = [index for step in epoch for batch in step.batches for index in batch]
        assert sorted(seen) == list(range(22))
    assert [step.epoch for step in steps][2::3] == [1.0, 2.0]


def test_any_step_can_be_resumed_at():
    whole = list(plan().steps())
    for done in range(len(whole) + 1):
        assert list(plan().steps(done)) == whole[done:]


def test_processes_share_the_same_steps():
    alone = list(plan(gradient_accumulation_steps=4).steps())
    shares = [list(plan(rank=rank, size=2).steps()) for rank in range(2)]
    for step, first, second in zip(alone, *shares, strict=True):
        assert sorted(first.batches + second.batches) == sorted(step.batches)
        assert step.epoch == first.epoch == second.epoch


def test_last_step_is_always_evaluated_and_saved():
    found = plan(eval_steps=4, save_steps=5)
    assert [step for step in range(1, 7) if found.evaluates(step)] == [4, 6]
    assert [step for step in range(1, 7) if found.saves(step)] == [5, 6]


def test_tiny_data_is_evaluated_every_step():
    assert plan(n=8).eval_steps == 1


def test_lengths_follow_selections():
    encoded = toy.examples(10)
    assert lengths(encoded) == [len(ids) for ids in encoded["input_ids"]]
    assert lengths(encoded.select([3, 1])) == [lengths(encoded)[3], lengths(encoded)[1]]


def test_no_examples_is_an_error():
    with pytest.raises(DataError, match="no training examples"):
        plan(n=0)

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorafit.data.batches import BatchOrder, evaluation_order, padding_share

LENGTHS = st.lists(st.integers(1, 512), min_size=1, max_size=300)
SIZES = st.integers(1, 40)
BUCKETS = st.one_of(st.none(), st.integers(1, 8))


@given(LENGTHS, SIZES, BUCKETS, st.integers(0, 2**40), st.integers(0, 1000))
def test_every_example_is_in_exactly_one_batch(lengths, size, bucket, seed, epoch):
    order = BatchOrder(lengths, size, seed, bucket=bucket)
    batches = order.epoch(epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert len(batches) == len(order)
    sizes = sorted(map(len, batches), reverse=True)
    assert all(found == size for found in sizes[:-1])
    assert 1 <= sizes[-1] <= size


@given(LENGTHS, SIZES, BUCKETS, st.integers(0, 100), st.integers(0, 10))
def test_an_epoch_is_a_pure_function_of_seed_and_epoch(lengths, size, bucket, seed, epoch):
    one = BatchOrder(lengths, size, seed, bucket=bucket)
    for earlier in range(epoch):
        one.epoch(earlier)
    assert one.epoch(epoch) == BatchOrder(lengths, size, seed, bucket=bucket).epoch(epoch)


def test_epochs_and_seeds_differ():
    lengths = [index % 17 + 1 for index in range(500)]
    orders = [BatchOrder(lengths, 8, seed).epoch(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(orders[a] != orders[b] for a in range(4) for b in range(a))


def test_the_order_of_an_epoch_does_not_change_between_releases():
    # A run is resumed at (epoch, index): this order is part of the format of a checkpoint.
    assert BatchOrder([3, 1, 2, 5, 4, 9, 7], 2, seed=0).epoch(1) == [[3, 4], [1], [5, 6], [0, 2]]


@given(LENGTHS, SIZES, st.integers(0, 9))
@settings(max_examples=50)
def test_grouping_full_batches_by_length_never_pads_more_in_a_bucket_of_all(lengths, size, seed):
    # Which batch is the partial one is drawn; with full batches the sorted grouping is the best.
    lengths = (lengths * size)[: len(lengths) // size * size or size]
    grouped = BatchOrder(lengths, size, seed, bucket=len(lengths)).epoch(0)
    shuffled = BatchOrder(lengths, size, seed, bucket=None).epoch(0)
    assert padding_share(lengths, grouped) <= padding_share(lengths, shuffled) + 1e-12


def test_grouping_by_length_saves_most_of_the_padding():
    lengths = [8 + (index * 7919) % 100 for index in range(6400)]
    grouped = BatchOrder(lengths, 32, seed=0).epoch(0)
    shuffled = BatchOrder(lengths, 32, seed=0, bucket=None).epoch(0)
    assert padding_share(lengths, shuffled) > 0.4
    assert padding_share(lengths, grouped) < 0.05


def test_batches_are_not_in_the_order_of_their_lengths():
    lengths = list(range(1, 321))
    longest = [max(lengths[i] for i in batch) for batch in BatchOrder(lengths, 8, 0).epoch(0)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


@given(LENGTHS, SIZES)
def test_evaluation_batches_are_sorted_and_can_be_put_back(lengths, size):
    order = evaluation_order(lengths, size)
    flat = [index for batch in order.batches for index in batch]
    assert [lengths[index] for index in flat] == sorted(lengths, reverse=True)
    assert [flat[place] for place in order.inverse] == list(range(len(lengths)))


def test_no_examples_have_an_empty_evaluation_order():
    order = evaluation_order([], 4)
    assert order.batches == []
    assert len(order.inverse) == 0


@pytest.mark.parametrize(
    "arguments", [([], 4, 0, 2), ([1], 0, 0, 2), ([1], 4, -1, 2), ([1], 4, 0, 0)]
)
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=r"at least|no examples"):
        BatchOrder(*arguments)
    with pytest.raises(ValueError, match="at least"):
        evaluation_order([1], 0)

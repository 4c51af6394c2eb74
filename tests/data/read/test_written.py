from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from lorafit.config import DataConfig
from lorafit.data.read.source import load_splits
from lorafit.data.read.written import parse_list


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("['a', \"b's\"]", ["a", "b's"]),
        (" [0, 0, 1] ", [0, 0, 1]),
        ("[]", []),
        ("[{'role': 'user', 'content': None}]", [{"role": "user", "content": None}]),
        ("('a', 'b')", ["a", "b"]),
        ("('a',)", ["a"]),
        ("('a')", None),
        ("('a' 'b', 'c')", None),
        ("['a' 'b']", None),  # what numpy prints; Python reads it as ['ab']
        ("['a'\n 'b']", None),
        ("['it is \" \" quoted', 'b']", ['it is " " quoted', "b"]),
        ("[music] a film [music]", None),
        ("[a, b]", None),
        ('{"a": 1}', None),
        ("[__import__('os')]", None),
    ],
)
def test_a_text_that_is_a_list_is_read_as_one(text: str, found: list[Any] | None) -> None:
    assert parse_list(text) == found


def column(tmp_path: Path, *cells: str) -> Any:
    path = tmp_path / "rows.csv"
    rows = ['a film,"{}"\n'.format(cell.replace('"', '""')) for cell in cells]
    path.write_text("text,labels\n" + "".join(rows))
    return load_splits(path, DataConfig(path=""))["train"]["labels"][:]


def test_a_column_of_lists_is_read_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lorafit"):
        assert column(tmp_path, "['x', 'y']", "", '["x"]') == [["x", "y"], None, ["x"]]
        assert column(tmp_path, "('x', 'y')", "('x',)") == [["x", "y"], ["x"]]
    assert 'column "labels" has lists written as text: they are read as lists' in caplog.text


def test_a_column_of_which_a_cell_is_no_list_stays_text_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = ("['x']", "['x' 'y']")
    assert column(tmp_path, *cells) == list(cells)
    assert "row 2 is none that can be read: it stays text" in caplog.text
    assert column(tmp_path, "['x']", "[1]") == ["['x']", "[1]"]
    assert "of values of several kinds: it stays text" in caplog.text
    caplog.clear()
    assert column(tmp_path, "['x']", "['y']", "x") == ["['x']", "['y']", "x"]
    assert "row 3 is none that can be read: it stays text" in caplog.text
    caplog.clear()
    assert column(tmp_path, "['x']", "x") == ["['x']", "x"]
    assert column(tmp_path, "(1999, remake)", "(laughs)") == ["(1999, remake)", "(laughs)"]
    assert "(1999, remake)" not in caplog.text


def test_words_and_tags_in_a_csv_are_lists(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("""tokens,ner_tags\n"['is', 'a', 'rome']","['O', 'O', 'B-LOC']"\n""" * 1)
    rows = load_splits(path, DataConfig(path=""))["train"]
    assert rows[0] == {"tokens": ["is", "a", "rome"], "ner_tags": ["O", "O", "B-LOC"]}

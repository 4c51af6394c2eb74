"""Tables of thousands of columns: read in time that grows with their number, named in one line."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from lorafit.config import DataConfig
from lorafit.data.columns.choose import choose_columns
from lorafit.data.columns.labelled import find_labels
from lorafit.data.columns.values import column_table, features_of, replace_columns
from lorafit.data.read.source import load_splits
from lorafit.errors import DataError
from lorafit.units import listed

MANY = 4_000
LINE = 2_000
"""Characters that a message about many columns may have."""


def wide(columns: int) -> pa.Table:
    """A text, a label, and so many columns of numbers."""
    numbers = {f"c{i}": [i + 0.5, i + 1.25, 2.0, 3.0] for i in range(columns)}
    return pa.table({"text": ["a", "b", "c", "d"], "label": ["x", "y"] * 2} | numbers)


def seconds(columns: int) -> float:
    """Processor time of reading a table and finding its labels; the better of two."""
    table, took = wide(columns), []
    for _ in range(2):
        start = time.process_time()
        rows = load_splits(table, DataConfig(path="wide"))["train"]
        find_labels(rows, DataConfig(path="wide"))
        took.append(time.process_time() - start)
    return min(took)


def test_reading_takes_time_in_proportion_to_the_columns() -> None:
    few, many = seconds(MANY // 4), seconds(MANY)
    assert many < 8 * few  # the square would be 16 times


@pytest.mark.parametrize("ask", [{"label": "lable"}, {"text": ["txt"]}, {"label": "c1"}])
def test_messages_name_some_columns_and_count_the_others(ask: dict[str, object]) -> None:
    rows = load_splits(wide(MANY), DataConfig(path="wide"))
    with pytest.raises(DataError) as error:
        choose_columns(rows, **ask)  # type: ignore[arg-type]
    assert len(str(error.value)) < LINE


def test_too_many_candidates_are_named_in_part() -> None:
    columns = {f"words {i}": ["a b", "c d", "e f"] for i in range(MANY)}
    with pytest.raises(DataError, match=r"more than one column.* and 3,980 more") as error:
        choose_columns(load_splits(columns, DataConfig(path="wide")), need_label=False)
    assert len(str(error.value)) < LINE


def test_columns_are_read_in_the_order_of_the_rows() -> None:
    rows = Dataset.from_dict({"a": ["x", "y", "z"], "b": [1, 2, 3]}).select([2, 0])
    table = column_table(rows, ["b", "a"])
    assert table.column_names == ["b", "a"]
    assert table.to_pydict() == {"b": [3, 1], "a": ["z", "x"]}


def test_replaced_columns_have_their_new_type_and_the_others_keep_theirs() -> None:
    features = Features({"a": Value("string"), "b": ClassLabel(names=["no", "yes"])})
    rows = Dataset.from_dict({"a": ["1", "2", "3"], "b": [0, 1, 1]}, features=features)
    found = replace_columns(rows.select([2, 0]), {"a": pa.array([[3], [1]])})
    assert found.to_dict() == {"a": [[3], [1]], "b": [1, 0]}
    assert features_of(found)["b"] == features["b"]
    assert found.column_names == ["a", "b"]


@pytest.mark.parametrize(
    ("n", "said"), [(2, "0, 1"), (3, "0, 1, 2"), (1_203, "0, 1, 2 and 1,200 more")]
)
def test_lists_say_how_many_more_there_are(n: int, said: str) -> None:
    assert listed([str(i) for i in range(n)], 3) == said

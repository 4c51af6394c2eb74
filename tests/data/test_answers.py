from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lorafit.data.answers import AnswerFile
from lorafit.errors import DataError

PREDICTION = {
    "label": "pos",
    "probability": 0.75,
    "probabilities": {"neg": 0.25, "pos": 0.75},
}


def written(
    path: Path, rows: Iterable[tuple[object, ...]], columns: tuple[str, ...] = ("text",)
) -> Path:
    with AnswerFile(path, columns) as answers:
        for row in rows:
            answers.add(*row)  # type: ignore[arg-type]
    return path


def test_csv_has_row_texts_answer_and_probability(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", [(1, 'a "fine"\nfilm', PREDICTION), (3, "ü", PREDICTION)])
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"row": "1", "text": 'a "fine"\nfilm', "answer": "pos", "probability": "0.75"},
            {"row": "3", "text": "ü", "answer": "pos", "probability": "0.75"},
        ]


def test_jsonl_and_parquet_have_every_probability(tmp_path: Path) -> None:
    expected = {"row": 2, "a": "x", "b": "y", "answer": "pos"} | {
        name: PREDICTION[name] for name in ("probability", "probabilities")
    }
    rows = ((2, ["x", "y"], PREDICTION),)
    lines = written(tmp_path / "a.jsonl", rows, columns=("a", "b")).read_text("utf-8")
    assert [json.loads(line) for line in lines.splitlines()] == [expected]
    table = pq.read_table(written(tmp_path / "a.parquet", rows, columns=("a", "b")))
    assert table.to_pylist() == [expected]


def test_lists_of_labels_and_spans_are_written(tmp_path: Path) -> None:
    sets: tuple[tuple[int, str, dict[str, Any]], ...]
    sets = ((1, "a", {"labels": [], "probabilities": {"x": 0.1}}),)
    sets += ((2, "b", {"labels": ["x", "y"], "probabilities": {"x": 0.9}}),)
    assert written(tmp_path / "a.csv", sets).read_text("utf-8").splitlines() == [
        "row,text,answer",
        "1,a,",
        '2,b,"x, y"',
    ]
    assert pq.read_table(written(tmp_path / "a.parquet", sets))["answer"].to_pylist() == [
        [],
        ["x", "y"],
    ]
    spans = [{"type": "LOC", "text": "Rome"}]
    tagged = {"label": "Rome (LOC)", "spans": spans, "words": ["Rome"], "tags": ["B-LOC"]}
    rows = ((1, ["Rome"], tagged | {"spans": [], "label": ""}), (2, ["Rome"], tagged))
    found = pq.read_table(written(tmp_path / "b.parquet", rows, columns=("tokens",))).to_pylist()
    assert json.loads(found[1]["spans"]) == spans
    assert (found[1]["tokens"], found[1]["tags"]) == ('["Rome"]', ["B-LOC"])


def test_a_column_of_the_same_name_keeps_its_text(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", [(1, "a film", PREDICTION)], columns=("answer",))
    assert path.read_text("utf-8").splitlines()[0] == "row,answer_text,answer,probability"


def test_more_rows_than_a_group_are_all_there(tmp_path: Path) -> None:
    rows = [(n, str(n), PREDICTION) for n in range(1, 5001)]
    assert pq.read_table(written(tmp_path / "a.parquet", rows))["row"].to_pylist() == [
        n for n, *_ in rows
    ]


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[object, ...]]:
        yield (1, "a", PREDICTION)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        written(tmp_path / "a.csv", rows())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.xlsx", 'cannot be written as "a.xlsx".*csv, .tsv, .jsonl, .parquet'),
        ("there.csv", "exists and is not overwritten"),
        ("none/a.csv", "there is no folder"),
    ],
)
def test_a_target_that_is_none_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "there.csv").touch()
    with pytest.raises(DataError, match=message):
        AnswerFile(tmp_path / name, ["text"])

"""Data files that are damaged, or made to fill the memory: read, or refused in one line."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from datasets.features import features

import lorafit
from lorafit import unpacked
from lorafit.config import DataConfig
from lorafit.data.read.files import read_file
from lorafit.data.read.folder import read_folder
from lorafit.data.read.reading import Reading
from lorafit.data.read.rows import to_dataset
from lorafit.data.read.source import load_splits
from lorafit.errors import DataError
from tests import tiny_text

SMALL = Reading(max_unpacked=1_000_000)
ROWS = {"text": [f"a film of {n} parts" for n in range(60)], "label": ["good", "bad"] * 30}


def arrow(table: pa.Table, stream: bool = False) -> bytes:
    sink = io.BytesIO()
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opened(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def mutated(content: bytes, generator: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(generator.randint(1, 6)):
        changed[generator.randrange(len(changed))] = generator.choice(
            [0, 1, 127, 128, 255, generator.randrange(256)]
        )
    return bytes(changed)


CHILD = """
import sys
from pathlib import Path
from lorafit.data.read.files import read_file
from lorafit.errors import DataError

for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, end=" ", flush=True)
    try:
        rows = read_file(path)[:]
        for values in rows.values():
            for value in values:
                if isinstance(value, str):
                    value.encode()
        print("read", flush=True)
    except DataError:
        print("refused", flush=True)
"""


def test_damaged_arrow_files_are_read_or_refused_and_end_no_process(tmp_path: Path) -> None:
    """200 mutants in a process of their own: a segmentation fault would be the end of it."""
    generator = random.Random(5)
    table = pa.table(ROWS | {"score": pa.array(np.arange(60.0))})
    categories = table.set_column(1, "label", table.column("label").dictionary_encode())
    whole = [arrow(table), arrow(table, stream=True), arrow(categories)]
    for number in range(200):
        suffix = generator.choice(["arrow", "feather"])
        content = mutated(generator.choice(whole), generator)
        (tmp_path / f"{number:03}.{suffix}").write_bytes(content)
    found = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(lorafit.__file__).parents[1])},
    )
    assert found.returncode == 0, found.stdout[-200:] + found.stderr[-2000:]
    said = [line.split()[1] for line in found.stdout.splitlines()]
    assert len(said) == 200
    assert {"read", "refused"} == set(said)


def broken_offsets() -> pa.Table:
    """A column of texts whose second one begins far outside of the buffer."""
    offsets = pa.py_buffer(np.array([0, 2**30, 8], np.int32).tobytes())
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a filmed")])
    return pa.table({"text": texts, "label": ["good", "bad"]})


@pytest.mark.parametrize("stream", [False, True])
def test_texts_of_other_memory_are_refused(stream: bool, tmp_path: Path) -> None:
    file = tmp_path / "x.arrow"
    file.write_bytes(arrow(broken_offsets(), stream))
    with pytest.raises(DataError, match="damaged"):
        read_file(file)


def test_a_damaged_folder_of_save_to_disk_is_refused(tmp_path: Path) -> None:
    DatasetDict({"train": Dataset.from_dict(ROWS)}).save_to_disk(str(tmp_path / "saved"))
    assert len(read_folder(tmp_path / "saved")["train"]) == 60
    file = next((tmp_path / "saved").rglob("*.arrow"))
    file.write_bytes(arrow(broken_offsets(), stream=True))
    with pytest.raises(DataError, match="damaged"):
        read_folder(tmp_path / "saved")


def saved_with(folder: Path, name: str) -> Path:
    """A data set of one split whose state.json names another file, which holds broken offsets."""
    DatasetDict({"train": Dataset.from_dict(ROWS)}).save_to_disk(str(folder / "saved"))
    state = folder / "saved" / "train" / "state.json"
    content = json.loads(state.read_text())
    content["_data_files"] = [{"filename": name.format(folder)}]
    state.write_text(json.dumps(content))
    for place in (folder, folder / "saved", state.parent):
        for other in ("other.bin", "other.arrow"):
            (place / other).write_bytes(arrow(broken_offsets(), stream=True))
    return folder / "saved"


@pytest.mark.parametrize(
    "name",
    [
        *("other.bin", "../other.arrow", "../../other.arrow", "{}/other.arrow", ""),
        *(".", "..", "file://{}/other.arrow", "zip://x.arrow::http://127.0.0.1/x", "other.arrow"),
    ],
)
def test_a_saved_data_set_reads_no_file_that_was_not_checked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.load_from_disk", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(DataError, match=r"cannot be read|damaged"):
        read_folder(saved_with(tmp_path, name))


@pytest.mark.parametrize(
    "splits", [["../elsewhere"], ["/"], [".."], [1], [None], "train", {"train": 1}, None, [[]]]
)
def test_a_saved_data_set_reads_no_split_of_another_folder(
    splits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved_with(tmp_path, "data-00000-of-00001.arrow")
    (folder / "train").rename(tmp_path / "elsewhere")
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    monkeypatch.setattr("datasets.load_from_disk", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(DataError, match="cannot be read"):
        read_folder(folder)


OPENING = [
    kind
    for kind in vars(features).values()
    if isinstance(kind, type) and getattr(kind, "decode", False) and kind is not datasets.Json
]
assert {datasets.Audio, datasets.Image, datasets.Video} <= {*OPENING}


@pytest.mark.parametrize("kind", OPENING, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("inside", ["column", "list", "object"])
@pytest.mark.parametrize("way", ["parquet", "saved", "live"])
def test_files_that_a_data_file_names_are_not_opened(
    kind: Any, inside: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """datasets opens, or fetches, what a column of images names when a row is asked for."""
    value: Any = {"bytes": None, "path": str(tmp_path / "secret")}
    type_ = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    media: Any = kind()
    if media.pa_type != type_:
        value, type_ = None, media.pa_type
    if inside == "list":
        value, type_, media = [value], pa.list_(type_), datasets.List(media)
    if inside == "object":
        value, type_, media = {"x": value}, pa.struct({"x": type_}), {"x": media}
    monkeypatch.setattr(kind, "decode_example", lambda *_, **__: pytest.fail("it was opened"))
    about = datasets.Features({"text": datasets.Value("string"), "media": media})
    table = pa.table({"text": ["a"], "media": pa.array([value], type_)})
    rows = Dataset(table, info=datasets.DatasetInfo(features=about))
    data: Any = rows
    if way == "parquet":
        schema = about.arrow_schema  # its metadata say what the columns are
        data = tmp_path / "x.parquet"
        pq.write_table(table.cast(schema), data)
    if way == "saved":
        data = tmp_path / "saved"
        Dataset(table).save_to_disk(str(data))
        facts = json.loads((data / "dataset_info.json").read_text())
        facts["features"] = about.to_dict()
        (data / "dataset_info.json").write_text(json.dumps(facts))
    found = load_splits(data, DataConfig(path=str(data)))["train"]
    assert found[0]["text"] == "a"
    assert found[0]["media"] == value
    found.save_to_disk(str(tmp_path / "again"))  # as a comparison does; it would put the file in


def test_a_selection_of_rows_stays_one() -> None:
    about = datasets.Features({"text": datasets.Value("string"), "image": datasets.Image()})
    image = {"bytes": b"", "path": None}
    table = {"text": ["a", "b", "c"], "image": [image] * 3}
    found = to_dataset(Dataset.from_dict(table, features=about).select([2, 0]), "it")
    assert found["text"][:] == ["c", "a"]


@pytest.mark.parametrize("suffix", ["arrow", "feather", "parquet"])
def test_a_column_name_that_is_no_text_is_refused(suffix: str, tmp_path: Path) -> None:
    table = pa.table({"nameXX": ROWS["text"], "label": ROWS["label"]})
    sink = io.BytesIO()
    if suffix == "parquet":
        pq.write_table(table, sink, store_schema=False)
    content = (sink.getvalue() or arrow(table)).replace(b"nameXX", b"name\xff\xfe")
    file = tmp_path / f"x.{suffix}"
    file.write_bytes(content)
    with pytest.raises(DataError, match="not UTF-8"):
        read_file(file)


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_labels_in_half_precision_are_numbers(suffix: str, tmp_path: Path) -> None:
    halves = pa.array(np.arange(60, dtype=np.float16) / 8)
    table = pa.table(
        {"text": ROWS["text"], "stars": halves, "lists": pa.array([[np.float16(1)]] * 60)}
    )
    file = tmp_path / f"x.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, file)
    else:
        file.write_bytes(arrow(table))
    base = tiny_text.save_base(tmp_path / "base")
    found = lorafit.preview(base, file, label="stars", text="text", progress=False)
    assert found.task == "regression"
    assert read_file(file)["stars"][:4] == [0.0, 0.125, 0.25, 0.375]
    assert read_file(file)["lists"][0] == [1.0]


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


ROOM = b"text,label\n" + b"\n" * 3_000_000
BOMBS: dict[str, Callable[[], bytes]] = {
    "x.csv.bz2": lambda: bz2.compress(ROOM),
    "x.csv.gz": lambda: gzip.compress(ROOM),
    "x.tsv.xz": lambda: lzma.compress(ROOM),
    "x.csv.zst": lambda: pa.compress(ROOM, "zstd", asbytes=True),
    "x.json.xz": lambda: lzma.compress(b"[" + b" " * 3_000_000 + b"]"),
    "x.jsonl.gz": lambda: gzip.compress(b"\n" * 3_000_000),
    "x.conll.gz": lambda: gzip.compress(b"\n" * 3_000_000),
    "rows.parquet": lambda: parquet(text=pa.nulls(2_000_000)),
    "one.parquet": lambda: parquet(text=["x" * 1_000] * 20_000),
    "categories.parquet": lambda: parquet(text=pa.array(["x" * 500] * 9_000).dictionary_encode()),
    "packed.parquet.gz": lambda: gzip.compress(parquet(text=["x" * 1_000] * 20_000)),
    "categories.arrow": lambda: arrow(
        pa.table({"text": pa.array(["x" * 500] * 9_000).dictionary_encode()})
    ),
    "packed.arrow.gz": lambda: gzip.compress(arrow(pa.table({"text": ["x" * 1_000] * 3_000}))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_fills_the_memory_is_stopped(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(BOMBS[name]())
    assert file.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"data\.max_unpacked_gb"):
        read_file(file, SMALL)


def test_the_limit_is_a_setting(tmp_path: Path) -> None:
    file = tmp_path / "x.csv.gz"
    text = "text,label\n" + "".join(f"a film {n},{'ab'[n % 2]}\n" for n in range(200))
    file.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match="max_unpacked_gb"):
        load_splits(file, DataConfig(path="x", max_unpacked_gb=1e-6))
    assert len(load_splits(file, DataConfig(path="x", max_unpacked_gb=1e-3))["train"]) == 200
    assert len(load_splits(file, DataConfig(path="x"))["train"]) == 200


def test_a_gigabyte_or_fifty_times_the_file_is_allowed() -> None:
    assert Reading().limit(10) == 10**9
    assert Reading().limit(10**8) == 5 * 10**9
    assert Reading(max_unpacked=5).limit(10**8) == 5


def test_many_parts_of_a_parquet_file_are_one_table() -> None:
    content = parquet(**ROWS)
    table = unpacked.read_parquet(content, 10**9, Path("x.parquet"), rows_at_once=(1, 1), many=10)
    assert table.to_pydict() == ROWS
    assert {column.num_chunks for column in table.columns} == {1}

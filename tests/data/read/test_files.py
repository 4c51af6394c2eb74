import bz2
import contextlib
import csv
import gzip
import io
import json
import logging
import lzma

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorafit.data.read.files import is_utf8_after_all, read_file
from lorafit.data.read.reading import Reading
from lorafit.errors import DataError

TEXT = "text,label\ngood film,1\nbad film,0\n"
ROWS = {"text": ["good film", "bad film"], "label": [1, 0]}
LINES = '{"text": "good film", "label": 1}\n{"text": "bad film", "label": 0}\n'


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(path):
    return read_file(path).to_dict()


def zst(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", TEXT),
        ("a.CSV", TEXT),
        ("a.csv", "\ufeff" + TEXT),
        ("a.csv", TEXT.replace("\n", "\r\n")),
        ("a.csv", TEXT.rstrip("\n")),
        ("a.csv", "\n\n" + TEXT + "\n\n"),
        ("a.csv", TEXT.replace(",", ";")),
        ("a.csv", TEXT.replace(",", "\t")),
        ("a.csv", TEXT.replace(",", "|")),
        ("a.tsv", TEXT.replace(",", "\t")),
        ("a.csv", '"text","label"\n"good film","1"\n"bad film","0"\n'),
        ("a.jsonl", LINES),
        ("a.ndjson", LINES),
        ("a.json", LINES),
        ("a.jsonl", "\ufeff" + LINES + "\n\n"),
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps({"version": 1, "data": [json.loads(x) for x in LINES.splitlines()]})),
        ("a.json", json.dumps([json.loads(line) for line in LINES.splitlines()], indent=2)),
        ("a.csv.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("a.csv.bz2", bz2.compress(TEXT.encode())),
        ("a.csv.xz", lzma.compress(TEXT.encode())),
        ("a.csv.zst", zst(TEXT.encode())),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("a.jsonl.zst", zst(LINES.encode())),
        ("a.csv", gzip.compress(TEXT.encode(), mtime=0)),
    ],
)
def test_every_spelling_of_the_same_rows_reads_the_same(tmp_path, name, content):
    assert read(write(tmp_path / name, content)) == ROWS


def test_parquet_and_arrow_are_read(tmp_path):
    table = pa.table(ROWS)
    pq.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, str(tmp_path / "b.feather"))
    with pa.ipc.new_file(tmp_path / "c.arrow", table.schema) as writer:
        writer.write(table)
    with pa.ipc.new_stream(tmp_path / "d.arrow", table.schema) as writer:
        writer.write(table)
    for name in ("a.parquet", "b.feather", "c.arrow", "d.arrow"):
        assert read(tmp_path / name) == ROWS


def test_class_names_in_a_parquet_file_are_kept(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    Dataset.from_dict(ROWS, features=features).to_parquet(tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet").features["label"].names == ["neg", "pos"]


def test_reading_leaves_nothing_behind(tmp_path):
    path = write(tmp_path / "a.csv", TEXT)
    data = read_file(path)
    assert data.cache_files == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


def test_quotes_line_breaks_tabs_and_commas_inside_a_field_are_text(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"He said ""no"",\nand\tleft",x\n5" screen,y\n')
    assert read(path) == {
        "text": ['He said "no",\nand\tleft', '5" screen'],
        "label": ["x", "y"],
    }


def test_backslash_escaped_quotes_are_understood_and_said(tmp_path, caplog):
    path = write(tmp_path / "a.csv", 'text,label\n"He said \\"no\\", ok",1\n')
    with caplog.at_level(logging.INFO, "lorafit"):
        assert read(path)["text"] == ['He said "no", ok']
    assert "quotes inside fields" in caplog.text


@pytest.mark.parametrize(
    "lines",
    [['"hello there', "fine"], ['"a', 'b"'], ['a "quoted" word', '"start and" middle']],
)
def test_stray_quotes_in_a_tsv_are_text(tmp_path, lines):
    path = write(tmp_path / "a.tsv", "text\tlabel\n" + "".join(f"{x}\t1\n" for x in lines))
    assert read(path)["text"] == lines


def test_another_delimiter_than_the_suffix_promises_is_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lorafit"):
        read_file(write(tmp_path / "a.csv", TEXT.replace(",", ";")))
    assert "separated by semicolons, not commas" in caplog.text


def test_a_csv_may_have_one_column(tmp_path):
    assert read(write(tmp_path / "a.csv", "text\ngood\n\nbad\n")) == {"text": ["good", "bad"]}


def test_a_huge_field_is_read(tmp_path):
    limit = csv.field_size_limit()
    data = read(write(tmp_path / "a.csv", f"text,label\n{'x' * 3_000_000},1\n"))
    assert len(data["text"][0]) == 3_000_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-2", "0"], [1, -2, 0]),
        (["1", "", "3"], [1, None, 3]),
        (["1.5", "2", "nan"], None),
        (["1e-3", ".5", "2."], [0.001, 0.5, 2.0]),
        (["True", "False", "True"], [True, False, True]),
        (["true", "", "false"], [True, None, False]),
        (["01", "02", "10"], ["01", "02", "10"]),
        (["None", "NA", "null"], ["None", "NA", "null"]),
        (["1", "two", ""], ["1", "two", ""]),
        (["99999999999999999999", "1", "2"], ["99999999999999999999", "1", "2"]),
        (["1_000", "2", "3"], ["1_000", "2", "3"]),
        (["inf", "1", "2"], ["inf", "1", "2"]),
        (["2020-01-01", "x", "y"], ["2020-01-01", "x", "y"]),
        (["", "", ""], ["", "", ""]),
    ],
)
def test_a_column_has_a_type_only_if_all_its_values_have_it(tmp_path, values, expected):
    path = write(tmp_path / "a.csv", "text,x\n" + "".join(f"t,{value}\n" for value in values))
    found = read(path)["x"]
    if expected is None:
        assert [str(value) for value in found] == ["1.5", "2.0", "nan"]
    else:
        assert found == expected
        assert [type(value) for value in found] == [type(value) for value in expected]


def test_a_type_is_inferred_over_all_chunks(tmp_path):
    values = [*map(str, range(70_000)), "x"]
    path = write(tmp_path / "a.csv", "text,x\n" + "".join(f"t,{value}\n" for value in values))
    assert read(path)["x"] == values


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "\n\n", "is empty"),
        ("a.csv", "\ufeff", "is empty"),
        ("a.csv", "text,label\n", r"0 rows \(columns: text, label\)"),
        ("a.csv", "text,label,text\na,1,b\n", "more than one column called 'text'"),
        ("a.csv", "text,label\ngood\n", "line 2 has 1 field, the header has 2"),
        ("a.csv", "text,label\nok,1\n\ngood, really,1\n", "line 4 has 3 fields, the header has 2"),
        ("a.csv", 'text,label\nok,1\n"open,1\nmore,2\n', r"line 3: a quote is opened and never"),
        ("a.csv", 'text,label\n"a" b,1\n', "line 2"),
        ("a.tsv", "text\tlabel\nx\ty\tz\n", r"line 2 has 3 fields.*separated by tabs"),
        ("a.jsonl", LINES + '{"text": "x"\n', "line 3: not JSON"),
        ("a.jsonl", LINES + "[1, 2]\n", "line 3: .* is no object"),
        ("a.jsonl", LINES + "[" * 100_000 + "\n", "line 3: not JSON"),
        ("a.jsonl", LINES + '{"text": 3, "label": 0}\n', r'"text" mixes types: row 0 holds text'),
        ("a.jsonl", "\n", "0 rows|no columns"),
        ("a.jsonl", "{}\n", "no columns|0 rows"),
        ("a.json", "[]", "0 rows|no columns"),
        ("a.json", "   ", "is empty"),
        ("a.json", "{", "not JSON: line 1"),
        ("a.json", "[1, 2]", "holds no table"),
        ("a.json", '"x"', "holds no table"),
        (
            "a.json",
            '{"text": ["a"], "label": [1, 2]}',
            "not of one length: text has 1, label has 2",
        ),
        ("a.json", '{"text": ["a"], "label": 3}', "not a list of values"),
        ("a.parquet", "no parquet", "cannot be read as parquet"),
        ("a.arrow", "no arrow", "cannot be read as arrow"),
        ("a.csv.gz", TEXT, "not compressed as its suffix .gz says"),
        ("a.csv.gz", gzip.compress(TEXT.encode() * 9, mtime=0)[:-12], "cannot be read as gz"),
        ("a.csv.bz2", bz2.compress(TEXT.encode())[:-9], "cannot be read as bz2"),
        ("a.csv.xz", lzma.compress(TEXT.encode())[:-9], "cannot be read as xz"),
        ("a.csv.zst", zst(TEXT.encode())[:9], "cannot be read as zst|is empty"),
        ("a.csv", b"\x1f\x8bnonsense", "cannot be read as gz"),
        ("a.xlsx", "x", "not a data file lorafit reads. It reads csv"),
        ("a.pkl", "x", "not a data file"),
        ("a.zip", "x", "Unpack the archive"),
        ("a", "x", "not a data file"),
    ],
)
def test_a_broken_file_says_where_and_what(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_file(path)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_a_file_in_another_encoding_names_line_and_byte(tmp_path, name):
    text = (TEXT if name == "a.csv" else LINES).replace("bad", "café")
    path = write(tmp_path / name, text.encode("latin-1"))
    offset = text.index("é")
    line = text[:offset].count("\n") + 1
    with pytest.raises(DataError, match=rf"line {line}, byte {offset} is 0xe9.*café.*iconv"):
        read_file(path)


def test_a_late_wrong_byte_in_a_compressed_file_is_located(tmp_path):
    good = b"text,label\n" + b"fine,1\n" * 50_000
    path = write(tmp_path / "a.csv.gz", gzip.compress(good + b"caf\xe9,0\n"))
    with pytest.raises(DataError, match=rf"line 50002, byte {len(good) + 3}"):
        read_file(path)


def test_utf_16_and_binary_files_are_recognised(tmp_path):
    with pytest.raises(DataError, match="UTF-16"):
        read_file(write(tmp_path / "a.csv", TEXT.encode("utf-16")))
    with pytest.raises(DataError, match="not a text file"):
        read_file(write(tmp_path / "b.csv", b"\x89PNG\x00\x00\xff"))


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_file(tmp_path / "gone.csv")


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_what_csv_writes_is_read_back(tmp_path, rows):
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["one", "two"])
        writer.writerows([["text " + a, "text " + b] for a, b in rows])
    data = read(path)
    assert list(zip(data["one"], data["two"], strict=True)) == [
        ("text " + a, "text " + b) for a, b in rows
    ]


@given(content=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".json"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_any_bytes_are_rows_or_a_data_error(tmp_path, content, suffix):
    path = write(tmp_path / f"a{suffix}", content)
    with contextlib.suppress(DataError):
        assert len(read_file(path)) > 0


def test_lines_that_cannot_be_read_are_left_out_and_counted_when_asked(tmp_path, caplog):
    lines = '{"text": "a", "label": 1}\n{"text": \n[1]\n{"text": "b", "label": 0}\n'
    for name in ("a.jsonl", "b.json"):
        path = write(tmp_path / name, lines)
        with pytest.raises(DataError, match=r"line 2: not JSON.*--skip-bad-rows"):
            read_file(path)
        assert read_file(path, Reading(skip_bad_rows=True))["text"][:] == ["a", "b"]
    assert "skipped 2 lines that cannot be read; first: " in caplog.text


def test_delimited_lines_that_do_not_fit_are_left_out_when_asked(tmp_path, caplog):
    path = write(tmp_path / "a.csv", 'text,label\na,1\nb\n"c"d,2\n"e, f",3\n')
    with pytest.raises(DataError, match=r"line 3 has 1 field.*--skip-bad-rows"):
        read_file(path)
    assert read_file(path, Reading(skip_bad_rows=True)).to_dict() == {
        "text": ["a", "e, f"],
        "label": [1, 3],
    }
    assert "skipped 2 lines that do not fit; first: line 3 has 1 field" in caplog.text


def test_a_quote_that_never_closes_cannot_be_skipped(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\na\n"b,2\nc,3\n')
    with pytest.raises(DataError, match=r"line 3: a quote is opened and never closed.*Mend it"):
        read_file(path, Reading(skip_bad_rows=True))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "UTF8", "latin_1"])
def test_an_encoding_that_is_named_is_read(tmp_path, encoding):
    path = write(tmp_path / "a.csv", "text,label\ncafé,1\n".encode(encoding))
    assert read_file(path, Reading(encoding=encoding))["text"][0] == "café"


@pytest.mark.parametrize("encoding", ["cp1252", "latin_1", "cp1251", "iso8859-15"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.tsv"])
def test_utf8_is_read_as_that_where_another_encoding_is_said(tmp_path, caplog, encoding, name):
    text = '{"text": "Rückgabe"}\n' if name == "a.jsonl" else "text\nRückgabe\n"
    path = write(tmp_path / name, text.encode())
    assert read_file(path, Reading(encoding=encoding))["text"][0] == "Rückgabe"
    assert f"is UTF-8, and is read so: not {encoding}" in caplog.text


@pytest.mark.parametrize("encoding", [None, "cp1252", "utf-16", "shift_jis", "ascii", "utf-8"])
def test_only_what_can_be_nothing_but_utf8_is_taken_for_it(encoding):
    plain = io.BytesIO(b"text\nplain ascii\n")
    assert not is_utf8_after_all(encoding, lambda: plain)
    cp1252 = io.BytesIO("text\nRückgabe\n".encode("cp1252"))
    assert not is_utf8_after_all(encoding, lambda: cp1252)
    utf8 = io.BytesIO("text\nRückgabe\n".encode())
    assert is_utf8_after_all(encoding, lambda: utf8) == (encoding == "cp1252")


@pytest.mark.parametrize("encoding", ["latin-x", "hex", ""])
def test_an_encoding_that_is_none_is_refused(tmp_path, encoding):
    path = write(tmp_path / "a.csv", TEXT)
    with pytest.raises(DataError, match=f'no encoding "{encoding}".*cp1252'):
        read_file(path, Reading(encoding=encoding))


def test_a_file_of_another_encoding_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", b"text,label\ncaf\xe9,1\n")
    with pytest.raises(DataError, match="is not ascii text"):
        read_file(path, Reading(encoding="ascii"))


@pytest.mark.parametrize("said", [b'"x"', b"[1]", b'{"info": {"features": "x"}}', b"{"])
def test_a_schema_that_says_something_odd_of_its_columns_is_refused(tmp_path, said):
    table = pa.table({"text": ["a film"]}).replace_schema_metadata({b"huggingface": said})
    feather.write_feather(table, str(tmp_path / "odd.feather"))
    with pytest.raises(DataError, match="a type that cannot be used"):
        read_file(tmp_path / "odd.feather")

import bz2
import io

import pytest

from lorafit.data.read.conll import read_conll
from lorafit.data.read.files import read_file
from lorafit.data.read.reading import Reading
from lorafit.errors import DataError

TEXT = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
"""


def test_the_columns_of_conll_2003_have_their_names():
    rows = read_conll(io.StringIO(TEXT), "x")
    assert rows[0] == {
        "tokens": ["EU", "rejects"],
        "pos_tags": ["NNP", "VBZ"],
        "chunk_tags": ["B-NP", "B-VP"],
        "ner_tags": ["B-ORG", "O"],
    }
    assert len(rows) == 2


def test_tabs_hold_words_with_spaces_and_comments_are_left_out():
    rows = read_conll(io.StringIO("# id = 1\nNew York\tB-LOC\n# \tO\n"), "x")
    assert rows == [{"tokens": ["New York", "# "], "ner_tags": ["B-LOC", "O"]}]


def test_a_line_that_does_not_fit_is_named_or_its_sentence_skipped(caplog):
    text = "a O\nb\n\nc O\n"
    with pytest.raises(DataError, match=r"x, line 2: 1 columns where the first line has 2: b"):
        read_conll(io.StringIO(text), "x")
    assert read_conll(io.StringIO(text), "x", Reading(skip_bad_rows=True)) == [
        {"tokens": ["c"], "ner_tags": ["O"]}
    ]
    assert "skipped 1 sentences" in caplog.text


def test_a_file_without_tags_is_refused():
    with pytest.raises(DataError, match="one column only"):
        read_conll(io.StringIO("word\nword\n"), "x")
    with pytest.raises(DataError, match="holds no sentences"):
        read_conll(io.StringIO("\n\n"), "x")


def test_a_compressed_file_is_read_by_its_suffix(tmp_path):
    path = tmp_path / "train.conll.bz2"
    path.write_bytes(bz2.compress(TEXT.encode()))
    assert read_file(path)["tokens"][1] == ["Peter"]

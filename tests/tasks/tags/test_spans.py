import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from lorafit.tasks.tags.spans import check_iob1, scheme_of, spans

TAGS = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("PER", "LOC"))]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(TAGS), max_size=12))
def test_spans_are_those_of_seqeval(tags):
    assert spans(tags) == [tuple(span) for span in get_entities(tags)]


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["B-PER", "I-PER", "O"], "IOB"),
        (["O", "I-PER"], "IOB"),
        (["B-X", "E-X", "S-X", "O"], "BIOES"),
        (["B-X", "I-X", "L-X", "U-X", "O"], "BILOU"),
        (["NOUN", "VERB"], None),
        (["NNP", "O", "NN"], None),
        (["0", "1", "2"], None),
    ],
)
def test_the_scheme_is_read_off_the_tags(tags, scheme):
    assert scheme_of(tags) == scheme


def test_bilou_is_bioes_by_other_names():
    assert spans(["U-A", "B-A", "L-A", "O"]) == spans(["S-A", "B-A", "E-A", "O"])


def test_iob1_is_told_from_iob2():
    assert check_iob1([["O", "I-PER", "I-PER"]])
    assert not check_iob1([["B-PER", "I-PER", "O", "B-PER"]])

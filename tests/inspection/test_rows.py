import itertools
import json

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lorafit.data.columns.choose import Columns, choose_columns
from lorafit.inspection.reader import Reader
from lorafit.inspection.rows import Sampling, preview

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def tokenizer(side="right"):
    vocabulary = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}
    vocabulary |= {word: 4 + index for index, word in enumerate(WORDS)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", truncation_side=side
    )


def columns(text, label):
    return Columns(tuple(text), label, "as asked", "as asked")


FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})


def splits():
    train = {
        "text": ["one", "one two", "one two three four five", "", None, "one", "nine"],
        "label": [0, 1, 1, 1, 1, 0, None],
    }
    test = {"text": ["one", "six"], "label": [1, -1]}
    return DatasetDict(
        {
            "train": Dataset.from_dict(train, features=FEATURES),
            "test": Dataset.from_dict(test, features=FEATURES),
        }
    )


def test_counts_per_split():
    found = preview(splits(), columns(["text"], "label"), Reader(tokenizer(), 5))
    assert found.columns == {"text": "text", "label": "class label"}
    assert found.rows == {"train": 7, "test": 2}
    assert found.labels == {"train": {"pos": 4, "neg": 2}, "test": {"pos": 1, "neg": 0}}
    assert found.unlabelled == {"train": 1, "test": 1}
    assert found.empty == {"train": 2, "test": 0}
    assert found.duplicates == {"train": 2, "test": 0}
    assert found.shared == {"train": 0, "test": 1}


def test_lengths_and_truncation():
    lengths = preview(splits(), columns(["text"], "label"), Reader(tokenizer(), 5)).lengths["train"]
    # Lengths with [CLS] and [SEP]: 3, 4, 7, 2, 2, 3, 3.
    assert lengths.measured == 7
    assert lengths.mean == pytest.approx(24 / 7)
    assert lengths.percentiles[50] == 3
    assert lengths.percentiles[100] == 7
    assert lengths.truncated == 1
    assert lengths.truncated_share == pytest.approx(1 / 7)
    assert lengths.tokens_lost_share == pytest.approx(2 / 24)
    assert sum(count for _, _, count in lengths.histogram) == 7
    assert lengths.histogram[0] == (2, 2, 2)
    unlimited = preview(splits(), columns(["text"], "label"), Reader(tokenizer(), None)).lengths[
        "train"
    ]
    assert (unlimited.truncated, unlimited.max_length) == (0, None)


def test_one_very_long_text_does_not_hide_the_others():
    rows = Dataset.from_dict(
        {"text": [" ".join(["one"] * (i % 24)) + " two" for i in range(500)] + ["one " * 5000]}
    )
    histogram = (
        preview(DatasetDict({"train": rows}), columns(["text"], None), Reader(tokenizer(), 8))
        .lengths["train"]
        .histogram
    )
    assert len(histogram) <= 12
    assert sum(count > 0 for _, _, count in histogram) > 8
    assert histogram[-1][1] == 5002
    assert sum(count for _, _, count in histogram) == 501
    assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(histogram))


@pytest.mark.parametrize(
    ("side", "kept", "cut"),
    [("right", "one Two  three", "  four five"), ("left", "three  four five", "one Two  ")],
)
def test_the_truncated_part_of_an_example_is_marked(side, kept, cut):
    rows = Dataset.from_dict({"text": ["one Two  three  four five"], "label": ["x"]})
    found = preview(
        DatasetDict({"train": rows}), columns(["text"], "label"), Reader(tokenizer(side), 5)
    )
    (example,) = found.examples
    assert (example.kept, example.cut, example.cut_from) == ((kept,), (cut,), side)
    assert len(example.tokens) == 5
    assert example.tokens[0] == "[CLS]"
    assert example.label == "x"


def test_text_pairs_are_shown_as_one_input():
    rows = Dataset.from_dict(
        {"premise": ["one two three four"], "hypothesis": ["five six"], "label": [1]}
    )
    found = preview(
        DatasetDict({"train": rows}),
        columns(["premise", "hypothesis"], "label"),
        Reader(tokenizer(), 7),
    )
    (example,) = found.examples
    assert example.kept == ("one two", "five six")
    assert example.cut == (" three four", "")
    assert example.tokens == ["[CLS]", "one", "two", "[SEP]", "five", "six", "[SEP]"]
    assert found.lengths["train"].percentiles[100] == 9


def test_a_limit_that_leaves_no_text_cuts_all_of_it():
    rows = Dataset.from_dict({"text": ["one two"]})
    (example,) = preview(
        DatasetDict({"train": rows}), columns(["text"], None), Reader(tokenizer(), 2)
    ).examples
    assert (example.kept, example.cut, example.label) == (("",), ("one two",), None)


def test_examples_are_seeded():
    rows = Dataset.from_dict({"text": [f"one {index}" for index in range(100)], "label": [0] * 100})
    data = DatasetDict({"train": rows})
    shown = [
        [
            example.row
            for example in preview(
                data,
                columns(["text"], "label"),
                Reader(tokenizer(), 5),
                sampling=Sampling(seed=seed),
            ).examples
        ]
        for seed in (0, 0, 1)
    ]
    assert shown[0] == shown[1] != shown[2]
    assert len(set(shown[0])) == 3
    few = preview(
        data.copy() | {"train": rows.select([0])},
        columns(["text"], "label"),
        Reader(tokenizer(), 5),
    )
    assert len(few.examples) == 1


def test_large_data_is_sampled_for_lengths():
    rows = Dataset.from_dict({"text": ["one two"] * 50, "label": [0] * 50})
    found = preview(
        DatasetDict({"train": rows}),
        columns(["text"], "label"),
        Reader(tokenizer(), 5),
        sampling=Sampling(most_rows=10),
    )
    assert found.lengths["train"].measured == 10
    assert found.rows["train"] == 50


def test_the_reasons_of_the_choice_are_carried_and_all_is_json():
    data = splits()
    found = preview(data, choose_columns(data), Reader(tokenizer(), 5))
    assert (found.text_reason, found.label_reason) == ("by its name", "2 classes")
    assert json.loads(json.dumps(found.to_dict()))["rows"] == {"train": 7, "test": 2}


def test_a_split_without_the_label_column_is_counted_as_unlabelled():
    data = splits()
    data["test"] = data["test"].remove_columns("label")
    found = preview(data, columns(["text"], "label"), Reader(tokenizer(), 5))
    assert found.unlabelled["test"] == 2
    assert found.labels["test"] == {"pos": 0, "neg": 0}


def test_a_prompt_with_another_answer_is_no_repetition():
    rows = Dataset.from_dict({"text": ["a", "a", "a", "b"], "answer": ["x", "y", "x", "x"]})
    data = DatasetDict({"train": rows})
    assert preview(data, columns(["text"], None), Reader(tokenizer(), None)).duplicates == {
        "train": 2
    }
    found = preview(data, columns(["text"], None), Reader(tokenizer(), None), answer=["answer"])
    assert found.duplicates == {"train": 1}

import json
import logging
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

import lorafit
from lorafit.config import DataConfig
from lorafit.errors import ConfigError, DataError, ModelError
from lorafit.tasks import tasks
from lorafit.tasks.sequence_classification import SequenceClassification
from tests import tiny, tiny_text

CONFIG = DataConfig(path="memory")


def data(train, validation=None, test=None, features=None):
    made = {"train": train, "validation": validation, "test": test}
    return DatasetDict(
        {
            split: Dataset.from_dict(
                {"text": [f"film {i}" for i in range(len(labels))], "label": labels},
                features=features,
            )
            for split, labels in made.items()
            if labels is not None
        }
    )


def names_of(splits, **config):
    return SequenceClassification.from_data(splits, DataConfig(path="memory", **config)).label_names


@pytest.fixture
def task():
    return SequenceClassification.from_data(tiny_text.splits(), CONFIG)


@pytest.fixture
def tokenizer(tmp_path):
    return tiny_text.bert_tokenizer(tmp_path)


def test_it_is_registered_under_the_name_of_the_hub_task():
    assert tasks["sequence_classification"] is SequenceClassification


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["b", "a", "c", "a"], ["a", "b", "c"]),
        ([10, 2, 2, 10], ["2", "10"]),
        ([1.0, 0.0, 2.0, 1.0], ["0", "1", "2"]),
        ([-1, 1, 1, -1], ["-1", "1"]),
        ([True, False, True, False], ["False", "True"]),
        (["10", "9", "9", "10"], ["9", "10"]),
    ],
    ids=["text", "ints", "whole floats", "negative ints", "bools", "numbers as text"],
)
def test_labels_of_every_type_have_names_in_a_fixed_order(labels, expected):
    assert names_of(data(labels)) == expected
    assert names_of(data(labels[::-1])) == expected


def test_class_labels_keep_their_order_and_lose_classes_without_rows(caplog):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["z", "gone", "a"])})
    with caplog.at_level(logging.INFO, "lorafit"):
        assert names_of(data([2, 0, 2, 0], features=features)) == ["z", "a"]
    assert "no training row has them: gone" in caplog.text


def test_missing_labels_are_no_class():
    assert names_of(data(["a", None, "b", " "])) == ["a", "b"]
    assert names_of(data([1.0, float("nan"), 0.0, None])) == ["0", "1"]


def test_a_label_of_the_test_split_that_train_lacks_is_named():
    with pytest.raises(DataError, match=r'"possitive".*2 rows of the test split.*"positive"'):
        names_of(data(["negative", "positive"] * 3, test=["possitive", "possitive", "negative"]))


def test_one_class_only_is_refused():
    with pytest.raises(DataError, match=r'one class only.*all 3 of them are "a"'):
        names_of(data(["a", "a", "a"]))


@pytest.mark.parametrize("asked", [None, "label"])
def test_fractions_are_refused_with_a_word_on_regression(asked):
    with pytest.raises(DataError, match=r"2\.5.*set --task regression"):
        names_of(data([1.0, 2.5, 3.0]), label=asked)
    with pytest.raises(DataError, match="the test split holds fractions"):
        names_of(data([1.0, 2.0, 1.0], test=[1.5]), label=asked)


def test_all_spellings_are_one_warning(caplog):
    names_of(data(["Pos", "pos ", "neg", "NEG", "odd"]))
    [record] = caplog.records
    assert "labels 'NEG' and 'neg'; 'Pos' and 'pos ' differ in case" in record.getMessage()
    assert "--clean-labels" in record.getMessage()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["pos ", "neg", "neg"], "label 'pos ' begins or ends with a space"),
        (["pos ", " neg", "odd"], "labels ' neg', 'pos ' begin or end with a space"),
        ([f"{n} x " for n in range(30)], " more begin or end with a space"),
        (["pos", "neg", "a b"], None),
        (["pos", "pos ", "neg"], None),  # of which more is said
    ],
)
def test_labels_with_outer_spaces_are_pointed_out(labels, said, caplog):
    names_of(data(labels))
    found = [r.getMessage() for r in caplog.records if "with a space" in r.getMessage()]
    assert len(found) == (said is not None)
    assert not found or said in found[0]
    assert not found or found[0].endswith("Leave it out with --clean-labels.")


def test_several_labels_in_one_cell_are_pointed_out(caplog):
    names_of(data(["toxic", "toxic,insult", "none"]))
    assert "'toxic,insult' is a class of its own beside 'toxic'" in caplog.text
    caplog.clear()
    names_of(data(["Rome, Italy", "Paris, France"]))
    assert caplog.text == ""


def test_labels_that_look_like_lists_are_refused():
    with pytest.raises(
        DataError, match="look like lists written as text, such as \"\\['a' 'b'\\]\""
    ):
        names_of(data(["['a' 'b']", "['a']", "['b']"]))
    for labels in (["{'a', 'b'}", "{'a'}"], ['{"a": 1}', '{"a": 0}'], ["('a' 'b')", "('a')"]):
        with pytest.raises(DataError, match="look like lists written as text"):
            names_of(data(labels))
    assert names_of(data(["(other)", "{x}"])) == ["(other)", "{x}"]


def test_labels_that_differ_in_spelling_only_are_pointed_out(caplog):
    names_of(data(["Pos", "pos ", "neg"]))
    assert "'Pos' and 'pos ' differ in case or spaces only" in caplog.text


def test_many_classes_of_one_row_are_pointed_out(caplog):
    names_of(data([*range(30), 0, 0]), label="label")
    assert "30 classes in 32 training rows, 29 of them in one row only" in caplog.text


def test_a_missing_train_split_or_column_is_an_error():
    with pytest.raises(DataError, match="no train split"):
        SequenceClassification.from_data(DatasetDict({"test": tiny_text.rows()}), CONFIG)
    with pytest.raises(DataError, match=r'no column "labl"'):
        names_of(tiny_text.splits(), label="labl")


def test_labels_are_in_the_arguments_of_the_model(task):
    assert task.model_kwargs() == {
        "num_labels": 2,
        "id2label": {0: "neg", 1: "pos"},
        "label2id": {"neg": 0, "pos": 1},
        "problem_type": "single_label_classification",
    }


def test_encoding_gives_ids_labels_and_what_was_cut(task, tokenizer, caplog):
    rows = Dataset.from_dict(
        {"text": ["a film", "a good film and a story"], "label": ["neg", "pos"]}
    )
    with caplog.at_level(logging.INFO, "lorafit"):
        encoded = task.encode(rows, tokenizer, 6)
    assert encoded["input_ids"][0] == tokenizer("a film")["input_ids"]
    assert len(encoded["input_ids"][1]) == 6
    assert list(encoded["labels"]) == [0, 1]
    assert list(encoded["truncated"]) == [False, True]
    assert "1 of 2 texts (50.0 %) are longer than 6 tokens" in caplog.text


def test_a_text_that_just_fits_is_not_called_cut(task, tokenizer):
    rows = Dataset.from_dict({"text": ["a good film"], "label": ["pos"]})
    assert list(task.encode(rows, tokenizer, 5)["truncated"]) == [False]
    assert list(task.encode(rows, tokenizer, 4)["truncated"]) == [True]


def test_pairs_are_two_segments_and_share_the_room(tokenizer):
    rows = Dataset.from_dict(
        {
            "premise": ["a good film", "a film"],
            "hypothesis": ["it is a very good film with a plot", None],
            "label": ["yes", "no"],
        }
    )
    task = SequenceClassification.from_data(DatasetDict({"train": rows}), CONFIG)
    assert task.text == ("premise", "hypothesis")
    encoded = task.encode(rows, tokenizer, 12)
    whole = tokenizer("a good film", "it is a very good film with a plot")
    assert encoded["input_ids"][0][:5] == whole["input_ids"][:5]
    assert set(encoded["token_type_ids"][0]) == {0, 1}
    assert list(encoded["truncated"]) == [True, False]
    assert len(encoded["input_ids"][0]) == 12


def test_rows_without_text_or_label_are_dropped_and_counted(task, tokenizer, caplog):
    rows = Dataset.from_dict(
        {"text": ["a film", " ", None, "a plot"], "label": ["neg", "pos", "pos", None]}
    )
    encoded = task.encode(rows, tokenizer, 16)
    assert len(encoded) == 1
    assert "dropped 1 of 4 rows without a label" in caplog.text
    assert "dropped 2 of 4 rows without text" in caplog.text


def test_rows_to_predict_are_all_kept_and_have_no_label(task, tokenizer):
    encoded = task.encode(Dataset.from_dict({"text": ["a film", "a plot"]}), tokenizer, 16)
    assert list(encoded["labels"]) == [-100, -100]
    with pytest.raises(DataError, match="text 2 of 2 is empty"):
        task.encode(Dataset.from_dict({"text": ["a film", ""]}), tokenizer, 16)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"text": ["", " "], "label": ["neg", "pos"]}, "every one of the 2 rows is empty"),
        ({"text": ["a", "b"], "label": [None, " "]}, "has no text or no label"),
        ({"text": [], "label": []}, "0 rows"),
        ({"txt": ["a"], "label": ["neg"]}, r'no column "text".*Did you mean "txt"'),
        ({"text": ["a"], "label": ["Neg"]}, r'"Neg".*never occurs in train.*neg, pos'),
    ],
)
def test_rows_that_cannot_be_encoded_are_refused(task, tokenizer, rows, message):
    with pytest.raises(DataError, match=message):
        task.encode(Dataset.from_dict(rows), tokenizer, 16)


def test_no_room_for_text_is_refused(task, tokenizer):
    with pytest.raises(ConfigError, match=r"max_length 2 leaves no room.*at least 3"):
        task.encode(tiny_text.rows(), tokenizer, 2)


def test_labels_are_known_by_name_whatever_their_type(tokenizer):
    task = SequenceClassification(["text"], "label", ["0", "1"])
    for labels in ([0, 1], [0.0, 1.0], ["0", "1"]):
        rows = Dataset.from_dict({"text": ["a", "the"], "label": labels})
        assert list(task.encode(rows, tokenizer, 8)["labels"]) == [0, 1]


def test_pieces_of_large_data_fit_together(task, tokenizer):
    rows = tiny_text.rows(2_345)
    encoded = task.encode(rows, tokenizer, 16)
    assert len(encoded) == 2_345
    assert encoded["input_ids"][2_344] == tokenizer(rows["text"][2_344])["input_ids"][:16]


def test_collating_pads_and_masks(task, tokenizer):
    encoded = task.encode(tiny_text.rows(4), tokenizer, 16)
    batch = task.collate(encoded.__getitems__([0, 1, 2]), tokenizer)
    lengths = torch.tensor([len(ids) for ids in encoded["input_ids"][:3]])
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
    assert torch.equal(batch["attention_mask"].sum(1), lengths)
    assert batch["labels"].tolist() == [0, 1, 0]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_tokenizer_without_padding_pads_with_the_end_of_sequence(task, caplog):
    tokenizer = tiny_text.gpt2_tokenizer()
    encoded = task.encode(tiny_text.rows(4), tokenizer, 16)
    with caplog.at_level(logging.INFO, "lorafit"):
        batch = task.collate(encoded.__getitems__([0, 1, 2, 3]), tokenizer)
    assert tokenizer.pad_token == "<|endoftext|>"
    assert (batch["input_ids"][batch["attention_mask"] == 0] == tokenizer.eos_token_id).all()
    assert "no padding token" in caplog.text


def test_a_tokenizer_with_neither_is_refused(task):
    tokenizer = tiny_text.gpt2_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="neither a padding nor an end-of-sequence"):
        task.collate(task.encode(tiny_text.rows(2), tokenizer, 16).__getitems__([0]), tokenizer)


def test_losses_are_cross_entropy_in_float32(task):
    logits = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 1, 0, -100])
    losses = task.losses(logits.bfloat16(), labels)
    assert losses.dtype == torch.float32
    expected = -logits.bfloat16().float().log_softmax(-1)[torch.arange(4), labels[:4]]
    torch.testing.assert_close(losses[:4], expected)
    assert losses[4] == 0.0


def test_metrics_agree_with_scikit_learn(task):
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(200, 4)), random.integers(3, size=200)
    predicted = logits.argmax(-1)
    assert list(task.metrics) == ["accuracy", "macro_f1", "mcc"]
    assert task.metrics["accuracy"](logits, labels) == accuracy_score(labels, predicted)
    assert task.metrics["macro_f1"](logits, labels) == f1_score(labels, predicted, average="macro")
    assert task.metrics["mcc"](logits, labels) == matthews_corrcoef(labels, predicted)


def test_decoding_names_the_label_and_its_probability(task):
    decoded = task.decode(np.array([[0.0, 0.0], [-1000.0, 1000.0]], dtype=np.float32))
    assert decoded[0]["probabilities"] == {"neg": 0.5, "pos": 0.5}
    assert (decoded[1]["label"], decoded[1]["probability"]) == ("pos", 1.0)
    json.dumps(decoded)


def test_a_damaged_task_is_refused():
    with pytest.raises(DataError, match="lacks label, label_names"):
        SequenceClassification.from_dict({"name": "sequence_classification", "text": ["t"]})
    with pytest.raises(DataError, match='"other" task'):
        SequenceClassification.from_dict({"name": "other"})
    with pytest.raises(DataError, match="two different classes"):
        SequenceClassification(["text"], "label", ["a", "a"])


@pytest.mark.parametrize("family", tiny.CLASSIFIERS)
def test_live_classifiers_of_every_family_are_accepted_with_as_many_labels(task, family):
    task.check(tiny.classifier(family, num_labels=2))
    with pytest.raises(ModelError, match=r"has 3 labels and the data has 2 \(neg, pos\)"):
        task.check(tiny.classifier(family, num_labels=3))


def test_a_live_model_without_a_head_is_refused(task):
    with pytest.raises(ModelError, match="has no head with 2 outputs"):
        task.check(tiny.language_model("gpt2"))


def test_a_task_stored_before_text_was_text_reads_control_tokens(task, tokenizer):
    stored = task.to_dict()
    assert stored.pop("special_tokens") == "text"
    old = SequenceClassification.from_dict(stored)
    assert old.special_tokens == "control"
    assert SequenceClassification.from_dict(old.to_dict()).special_tokens == "control"
    rows = Dataset.from_dict({"text": ["a [SEP] film"]})
    end = tokenizer.sep_token_id
    found = [one.encode(rows, tokenizer, 20)["input_ids"][0].count(end) for one in (task, old)]
    assert found == [1, 2]


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_row_with_the_name_of_the_token_that_ends_texts_is_learned(family, tmp_path):
    base = tiny_text.save_base(tmp_path / "base", family, tokenizer=False, eos_token_id=1)
    tiny_text.ending_tokenizer().save_pretrained(base)
    rows = [dict(row) for row in tiny_text.rows(60)]
    rows[7]["text"] += " </s> it"
    quick: dict[str, Any] = {
        "strategy": "none",
        "max_steps": 3,
        "progress": False,
        "run.dir": str(tmp_path),
    }
    run = lorafit.train(base, rows, **quick)
    assert run.status == "done"
    assert run.config.data.special_tokens == "text"
    assert len(lorafit.predict(run, ["a </s> film", "good </s></s>"])) == 2


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_tokenizer_that_does_not_end_texts_is_refused_before_training(family, tmp_path):
    base = tiny_text.save_base(tmp_path / "base", family, eos_token_id=1)
    for call in (lorafit.preview, lorafit.train):
        with pytest.raises(ModelError, match=r"end-of-sequence token .* adds none"):
            call(base, tiny_text.rows(20), runs_dir=str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_row_with_two_ends_is_named_where_control_tokens_are_asked_for(tmp_path):
    base = tiny_text.save_base(tmp_path / "base", "t5", tokenizer=False, eos_token_id=1)
    tiny_text.ending_tokenizer().save_pretrained(base)
    rows = [dict(row) for row in tiny_text.rows(20)]
    rows[7]["text"] += " </s> it"
    with pytest.raises(DataError, match='has the end-of-sequence token "</s>" 2 times'):
        lorafit.preview(base, rows, special_tokens="control")

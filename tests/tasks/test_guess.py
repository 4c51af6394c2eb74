import logging
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from lorafit.config import DataConfig, ModelConfig
from lorafit.errors import DataError
from lorafit.model.kind import kind_of_model
from lorafit.tasks import tasks
from lorafit.tasks.base import ModelKind
from lorafit.tasks.guess import guess_task
from tests import tiny, tiny_text

BERT = ModelKind("bert")
TEXTS = [f"a film about the number {number}" for number in range(8)]


def guess(columns, model=BERT, **config):
    splits = DatasetDict({"train": Dataset.from_dict(columns)})
    found, why = guess_task(splits, DataConfig(path="memory", **config), model)
    return found.name, why


@pytest.mark.parametrize(
    ("columns", "task", "why"),
    [
        ({"text": TEXTS, "label": [0, 1] * 4}, "sequence_classification", "classes in label"),
        ({"text": TEXTS, "stars": [1.0, 2.0] * 4}, "sequence_classification", "classes in stars"),
        ({"text": TEXTS, "kind": ["a", "b"] * 4}, "sequence_classification", "classes in kind"),
        ({"text": TEXTS, "label": [0.5, 1.0] * 4}, "regression", "fractions in label"),
        ({"text": TEXTS, "labels": [["a"], []] * 4}, "multi_label_classification", "lists"),
        (
            {"tokens": [["a", "b"]] * 8, "ner_tags": [["O", "B-X"]] * 8},
            *("token_classification", "lists of words in tokens, and as many tags in ner_tags"),
        ),
        (
            {"text": TEXTS, "rude": [0, 1] * 4, "obscene": [1, 0] * 4},
            *("multi_label_classification", "0 or 1 in rude, obscene"),
        ),
        ({"text": TEXTS, "score": [0.5, 1.0] * 4}, "regression", "fractions in score"),
        (
            {"sentence1": TEXTS, "sentence2": TEXTS, "similarity": [0.1, 0.9] * 4},
            *("regression", "fractions in similarity"),
        ),
    ],
)
def test_the_columns_say_the_task_and_why(columns, task, why, caplog):
    with caplog.at_level(logging.INFO, "lorafit"):
        found, reason = guess(columns)
    assert found == task
    assert why in reason
    assert f"task: {task.replace('_', ' ')} ({reason})" in caplog.text


def test_a_label_that_was_asked_for_decides():
    columns = {"text": TEXTS, "label": [0, 1] * 4, "price": [0.5, 2.25] * 4}
    assert guess(columns)[0] == "sequence_classification"
    assert guess(columns, label="price")[0] == "regression"


def test_text_that_never_repeats_is_a_completion_for_a_language_model_only():
    columns = {"q": TEXTS, "a": [f"{text} again" for text in TEXTS]}
    found, why = guess(columns, ModelKind("gpt2", generates=True), label="a")
    assert (found, why) == ("causal_lm", "a language model, and prompt: q, completion: a")
    assert guess(columns, ModelKind("t5", encoder_decoder=True), label="a")[0] == "seq2seq"
    assert guess(columns, label="a")[0] == "sequence_classification"  # whose error then says why
    columns["a"] = ["good", "bad"] * 4
    gpt2 = ModelKind("gpt2", generates=True)
    assert guess(columns, gpt2, label="a")[0] == "sequence_classification"


def test_a_name_wins_over_what_a_column_holds():
    columns = {"text": TEXTS, "year": [1999, 2000] * 4, "label": [0.5, 1.25] * 4}
    assert guess(columns)[0] == "regression"


def test_what_fits_two_tasks_is_an_error_that_names_them():
    columns = {"text": TEXTS, "category": ["a", "b"] * 4, "rating": [0.5, 1.25] * 4}
    with pytest.raises(
        DataError,
        match=r"more than one task fits.*regression \(.*rating\), sequence_classification "
        r"\(.*category\).*Choose one with --task",
    ):
        guess(columns)


def test_one_column_of_0_and_1_among_several_is_not_taken_alone():
    columns = {"comment": TEXTS, "toxic": [0, 1] * 4, "obscene": [1, 0] * 4}
    with pytest.raises(DataError, match=r"more than one task fits.*multi_label.*toxic, obscene"):
        guess(columns)
    assert guess(columns, label="toxic")[0] == "sequence_classification"
    assert guess(columns, label=["toxic", "obscene"])[0] == "multi_label_classification"


def test_what_fits_no_task_is_an_error_that_says_what_each_needs():
    with pytest.raises(DataError, match=r"no task fits.*text \(text\).*bert.*regression needs"):
        guess({"text": TEXTS})


GPT2, T5 = ModelKind("gpt2", generates=True), ModelKind("t5", encoder_decoder=True)
SHARED = [[{"from": "human", "value": "a film"}, {"from": "gpt", "value": "good"}]] * 8
OTHER_CHAT = [[{"speaker": "a", "says": "b"}]] * 8


@pytest.mark.parametrize(
    ("columns", "model", "message"),
    [
        (
            {"prompt": TEXTS, "chosen": TEXTS, "rejected": TEXTS},
            *(GPT2, "these are preferences.*--text prompt --label chosen"),
        ),
        ({"prompt": TEXTS, "chosen": TEXTS, "rejected": TEXTS}, BERT, "these are preferences"),
        ({"chosen": SHARED, "rejected": SHARED}, GPT2, "these are preferences.*--text chosen"),
        ({"id": TEXTS, "conversations": OTHER_CHAT}, GPT2, "lists of objects of speaker, says"),
        ({"id": TEXTS, "messages": [1, 2] * 4}, GPT2, "called like conversations, but holds int"),
        ({"id": TEXTS, "conversations": SHARED}, BERT, "only a language model learns.*is bert"),
        ({"id": TEXTS, "conversations": SHARED}, T5, "only a language model learns"),
        (
            {"instruction": TEXTS, "output": [{"mood": "good"}] * 8},
            *(GPT2, r'answers in "output" are objects, such as {"mood": "good"}.*json.dumps'),
        ),
        ({"instruction": TEXTS, "output": [["good"]] * 8}, GPT2, "are lists, such as .*json.dumps"),
        ({"instruction": TEXTS, "output": [["good"]] * 8}, T5, "are lists"),
        ({"instruction": TEXTS, "output": [1, 2] * 4}, GPT2, r"are numbers \(int64\), such as 1"),
        ({"prompt": TEXTS, "answers": [{"text": ["a"]}] * 8}, GPT2, "answers in .* are objects"),
        ({"question": TEXTS, "responses": [["a"]] * 8}, GPT2, "are lists"),
        ({"instruction": TEXTS, "output": [None] * 8}, GPT2, '"output" are all empty.*--text inst'),
        ({"id": TEXTS, "dialog": SHARED}, GPT2, "dialog holds conversations.*--text dialog"),
        ({"title": TEXTS, "a": SHARED, "b": SHARED}, GPT2, "a and b hold conversations"),
        ({"dialog": SHARED}, GPT2, "--text dialog"),
    ],
)
def test_data_that_would_be_learned_wrongly_are_refused_with_the_remedy(columns, model, message):
    with pytest.raises(DataError, match=message):
        guess(columns, model)


@pytest.mark.parametrize("output", [[{"mood": "good"}] * 8, [["a"]] * 8, [1, 2] * 4, [1.5, 2] * 4])
@pytest.mark.parametrize("model", [GPT2, T5])
def test_what_a_model_is_to_write_is_never_taken_for_a_label(output, model):
    columns = {"instruction": TEXTS, "output": output}
    with pytest.raises(DataError, match=r'the answers in "output" are (objects|lists|numbers)'):
        guess(columns, model, text=["instruction"], label="output")
    named = {"review": TEXTS, "output": [1, 2] * 4}
    assert guess(named, model, text=["review"], label="output")[0] == "sequence_classification"
    columns = {"question": TEXTS, "answer": [None] * 8, "label": ["a", "b"] * 4}
    assert guess(columns, model)[0] == "sequence_classification"


@pytest.mark.parametrize("output", [[{"mood": "good"}] * 8, [["a"]] * 8, [1.5, 2] * 4])
def test_answers_that_were_asked_for_and_are_no_text_are_refused(output):
    columns = {"instruction": TEXTS, "output": output}
    splits = DatasetDict({"train": Dataset.from_dict(columns)})
    config = DataConfig(path="memory", text=["instruction"], label="output")
    for name in ("causal_lm", "seq2seq"):
        with pytest.raises(DataError, match=r'the answers in "output" are (objects|lists|numbers)'):
            tasks[name].from_data(splits, config)


def test_columns_that_were_named_are_taken_whatever_else_is_there():
    columns: dict[str, list[Any]] = {"text": TEXTS, "chosen": TEXTS, "rejected": TEXTS}
    assert guess(columns | {"chat": OTHER_CHAT}, GPT2, text=["text"])[0] == "causal_lm"
    columns["messages"] = [1, 2] * 4
    assert guess(columns, text=["text"], label="messages")[0] == "sequence_classification"
    assert guess({"id": TEXTS, "conversations": SHARED}, GPT2)[0] == "causal_lm"
    assert guess({"id": TEXTS, "dialog": SHARED}, GPT2, text=["dialog"])[0] == "causal_lm"
    history = {"text": TEXTS, "history": SHARED, "label": ["a", "b"] * 4}
    assert guess(history, GPT2)[0] == guess(history)[0] == "sequence_classification"
    question = {"question": TEXTS, "answer": [1, 2] * 4}
    assert guess(question, GPT2, label="answer")[0] == "sequence_classification"


def test_a_label_in_another_language_is_found_and_a_doubtful_one_is_not_claimed():
    columns = {"Anfrage": TEXTS, "Kategorie": ["a", "b"] * 4, "Priorität": ["x", "y"] * 4}
    assert guess(columns)[1] == "text, and classes in Kategorie"
    columns["Art"] = columns.pop("Kategorie")
    assert guess(columns)[1] == "text, and classes in Priorität or Art"


def test_an_id_is_no_text():
    splits = DatasetDict({"train": Dataset.from_dict({"id": TEXTS, "label": [0, 1] * 4})})
    with pytest.raises(DataError, match="no column is the text: id names the rows"):
        tasks["sequence_classification"].from_data(splits, DataConfig(path="memory"))


@pytest.mark.parametrize("setting", [{"label": "labl"}, {"text": ["txt"]}])
def test_a_column_that_does_not_exist_is_said_whatever_the_task(setting):
    with pytest.raises(DataError, match=r'no column "(labl|txt)".*Did you mean "(label|text)"'):
        guess({"text": TEXTS, "label": [0, 1] * 4}, **setting)


@pytest.mark.parametrize(
    ("family", "generates", "both"),
    [
        ("bert", False, False),
        ("distilbert", False, False),
        ("roberta", False, False),
        ("gpt2", True, False),
        ("llama", True, False),
        ("t5", False, True),
    ],
)
def test_the_kind_of_a_model_is_read_off_its_config(tmp_path, family, generates, both):
    expected = ModelKind(family, generates, both)
    folder = tiny_text.save_base(tmp_path / "base", family)
    assert kind_of_model(ModelConfig(name_or_path=str(folder))) == expected
    assert kind_of_model(tiny.classifier(family)) == expected

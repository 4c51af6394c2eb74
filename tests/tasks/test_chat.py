from __future__ import annotations

import pytest
from datasets import Dataset, DatasetDict

import lorafit
from lorafit.config import DataConfig
from lorafit.errors import DataError
from lorafit.tasks.causal_lm import CausalLM
from tests import tiny, tiny_text

PLAIN = (
    "{% for m in messages %}the {{ m['content'] }} <|endoftext|> {% endfor %}"
    "{% if add_generation_prompt %}the {% endif %}"
)
MARKED = (
    "{% for m in messages %}the {% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] }} <|endoftext|>{% endgeneration %}"
    "{% else %}{{ m['content'] }} <|endoftext|>{% endif %} {% endfor %}"
)
CHAT = [
    {"role": "user", "content": "a film"},
    {"role": "assistant", "content": "good and warm"},
    {"role": "user", "content": "a plot"},
    {"role": "assistant", "content": "very dull"},
]


def chats(count: int = 3) -> Dataset:
    return Dataset.from_list([{"messages": CHAT}] * count)


def tokenizer_with(template):
    tokenizer = tiny_text.gpt2_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_what_the_assistant_says_and_its_end_are_learned(template):
    tokenizer = tokenizer_with(template)
    rows = chats()
    task = CausalLM.from_data(DatasetDict({"train": rows}), DataConfig(path="x"))
    assert task.chat
    row = task.encode(rows, tokenizer, 40)[0]
    learned = tokenizer.decode([label for label in row["labels"] if label != -100])
    assert learned == "good and warm <|endoftext|> very dull <|endoftext|>"


def test_a_template_that_rewrites_earlier_turns_is_refused():
    tokenizer = tokenizer_with("{{ messages | length }}" + PLAIN)
    rows = chats()
    task = CausalLM(["messages"], chat=True)
    with pytest.raises(DataError, match="renders turn 2 of conversation 1 differently"):
        task.encode(rows, tokenizer, 40)
    with pytest.raises(DataError, match="no chat template"):
        task.encode(rows, tiny_text.gpt2_tokenizer(), 40)


def test_conversations_are_trained_and_answered(tmp_path):
    base = tmp_path / "base"
    tiny.language_model("llama").save_pretrained(base)
    tokenizer_with(PLAIN).save_pretrained(base)
    films = [
        [{"role": "user", "content": f"{word} film"}, {"role": "assistant", "content": word}]
        for word in (*tiny_text.GOOD, *tiny_text.BAD)
    ]
    rows = [{"messages": chat} for chat in films]
    run = lorafit.train(base, rows, progress=False, max_new_tokens=3, **{"run.dir": str(tmp_path)})
    assert run.eval["handoff"]["reloaded_max_abs_diff"] == 0.0
    assert len(lorafit.predict(run, ["a film", CHAT[:3]])) == 2


STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role.') }}{% endif %}"
    + PLAIN
)


@pytest.mark.parametrize(
    "template", [STRICT, STRICT.replace("<|e", "{% generation %}{% endgeneration %}<|e", 1)]
)
def test_a_conversation_that_the_template_refuses_is_named_by_its_place(template, caplog):
    system = [{"role": "system", "content": "be brief"}, *CHAT]
    rows = Dataset.from_list([{"messages": system if n == 4 else CHAT} for n in range(1, 9)])
    splits = DatasetDict({"train": rows})
    tokenizer = tokenizer_with(template)
    task = CausalLM.from_data(splits, DataConfig(path="x"))
    part = rows.select([1, 3, 6])
    for use in (task.encode, task.prompts):
        with pytest.raises(DataError, match=r"conversation 4 of the train split .*no system role"):
            use(part, tokenizer, 40)
    task = CausalLM.from_data(splits, DataConfig(path="x", skip_bad_rows=True))
    assert len(task.encode(part, tokenizer, 40)) == len(task.prompts(part, tokenizer, 40)) == 2
    assert "skipped 1 of 3 conversations that the chat template refuses" in caplog.text
    again = CausalLM.from_dict(task.to_dict())
    assert len(again.encode(part, tokenizer, 40)) == 2
    old = {k: v for k, v in task.to_dict().items() if k != "skip_bad_rows"}
    with pytest.raises(DataError, match=r"conversation 2 .*no system role"):
        CausalLM.from_dict(old).encode(part, tokenizer, 40)


def test_what_a_user_says_in_sharegpts_words_is_understood():
    task = CausalLM(["messages"], chat=True)
    shared = [{"from": "human", "value": "a film"}]
    assert task.rows([shared, "a plot"])["messages"][:] == [
        [{"role": "user", "content": "a film"}],
        [{"role": "user", "content": "a plot"}],
    ]
    with pytest.raises(DataError, match="conversation 1 has a message without a text"):
        task.rows([[{"role": "user", "content": None}]])

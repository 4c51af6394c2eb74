from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from lorafit.config import DataConfig
from lorafit.data.columns.chats import check_chats, find_messages, plain, refuse_unread_chats
from lorafit.data.read.source import load_splits
from lorafit.errors import DataError

ASKED = [{"role": "user", "content": "a film"}, {"role": "assistant", "content": "good"}]
SHARED = [{"from": "human", "value": "a film"}, {"from": "gpt", "value": "good"}]


def read(rows: Any, **config: Any) -> Dataset:
    return load_splits(rows, DataConfig(path="memory", **config))["train"]


def test_sharegpt_is_read_as_a_chat(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "sharegpt.json"
    path.write_text(json.dumps([{"id": "identity_0", "conversations": SHARED}] * 3))
    with caplog.at_level(logging.INFO, "lorafit"):
        rows = read(path)
    assert find_messages(rows, DataConfig(path="")) == "conversations"
    assert rows["conversations"][2] == ASKED
    assert "human as user, gpt as assistant" in caplog.text


def test_a_column_of_system_prompts_begins_sharegpts_conversations() -> None:
    rows = read([{"conversations": SHARED, "system": "be brief"}, {"conversations": SHARED}])
    system = {"role": "system", "content": "be brief"}
    assert rows["conversations"][:] == [[system, *ASKED], ASKED]


def test_messages_written_as_json_text_are_read() -> None:
    rows = read([{"messages": json.dumps(ASKED)}, {"messages": json.dumps(ASKED[:2])}])
    assert rows["messages"][:] == [ASKED, ASKED]


def test_messages_written_in_several_ways_are_read_alike() -> None:
    ways = [("role", "content"), ("from", "value"), ("role", "value"), ("from", "content")]
    chats = [[{k[0]: m["role"], k[1]: m["content"]} for m in ASKED] for k in ways]
    for chat in chats:  # a whole file of one way
        assert [plain_of(m) for m in read([{"messages": chat}])["messages"][0]] == ASKED
    mixed = read([{"messages": chat} for chat in [*chats, [chats[1][0], chats[0][1]]]])
    assert [[plain_of(m) for m in chat] for chat in mixed["messages"]] == [ASKED] * 5


def plain_of(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if value is not None}


@pytest.mark.parametrize("broken", ['[{"role": "user", "cont', "[{'role': 'user'} {}]", "{'a': 1}"])
def test_conversations_written_as_text_of_which_one_cannot_be_read_are_refused(broken: str) -> None:
    rows = [{"messages": broken if n == 4 else json.dumps(ASKED)} for n in range(1, 9)]
    loaded = read(rows)
    with pytest.raises(
        DataError, match=r'in "messages" are written as text.*\(row 4: .*--text mess'
    ):
        refuse_unread_chats(loaded, DataConfig(path=""))
    refuse_unread_chats(loaded, DataConfig(path="", text=["messages"]))
    plain_texts = read([{"chat": "[10:31] eve: a film"}, {"chat": "good"}])
    refuse_unread_chats(plain_texts, DataConfig(path=""))


@pytest.mark.parametrize("names", [("human", "gpt"), ("user", "model"), ("User", "Assistant")])
def test_roles_of_other_names_are_the_usual_ones(names: tuple[str, str]) -> None:
    chat = [{"role": role, "content": m["content"]} for role, m in zip(names, ASKED, strict=True)]
    assert read([{"messages": chat}])["messages"][0] == ASKED
    assert plain(chat, 1) == ASKED


def test_messages_of_usual_roles_stay_as_they_are() -> None:
    chat = [ASKED[0] | {"name": "eve"}, ASKED[1] | {"name": None}]
    assert read([{"messages": chat}])["messages"][0] == chat


@pytest.mark.parametrize(
    ("chat", "why"),
    [
        ([], "is empty"),
        (None, "is empty"),
        ([ASKED[0], {"role": "assistant", "content": None}], r"message 2, assistant: no text"),
        ([ASKED[0], {"role": None, "content": "x"}], r"without a role \(message 2\)"),
        ([{"role": "narrator", "content": "x"}, ASKED[1]], 'the role "narrator".*roles are user'),
        ([{"role": "tool", "content": "x"}], "has messages of tools only"),
    ],
)
def test_what_cannot_be_learned_from_is_named_by_its_place_in_the_data(
    chat: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"n": n, "messages": chat if n == 4 else ASKED} for n in range(1, 9)]
    with pytest.raises(DataError, match=rf"conversation 4 of the train split .*{why}"):
        check_chats(load_splits(rows, DataConfig(path="")), "messages")
    kept = read(rows, skip_bad_rows=True)
    assert kept["n"][:] == [1, 2, 3, 5, 6, 7, 8]
    assert "skipped 1 of 8 conversations" in caplog.text
    assert "first: conversation 4" in caplog.text


@pytest.mark.parametrize(
    ("content", "what"),
    [([{"type": "text", "text": "good"}], "a list"), ({"mood": "good"}, "an object"), (5, "a int")],
)
def test_an_answer_that_is_no_text_is_refused(content: Any, what: str) -> None:
    chat = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
    splits = load_splits([{"messages": chat}] * 2, DataConfig(path=""))
    with pytest.raises(DataError, match=f"conversation 1 .*message 1, user: {what} instead of"):
        check_chats(splits, "messages")


def test_conversations_in_which_no_assistant_speaks_are_refused() -> None:
    chat = [{"role": "user", "content": "a film"}, {"role": "system", "content": "good"}]
    splits = load_splits([{"messages": chat}] * 2, DataConfig(path=""))
    with pytest.raises(DataError, match=r"no message .* role assistant.*roles are user, system"):
        check_chats(splits, "messages")

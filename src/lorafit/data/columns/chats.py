"""Conversations in data: which column holds them, in whose words, and what is wrong with one.

Two ways to write them are read, and what is between them: messages of ``role`` and ``content``,
and ShareGPT's of ``from`` and ``value``. Roles of other names (human, gpt, model) become the usual
ones, and that is said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict, List

from lorafit.config import DataConfig
from lorafit.data.columns.choose import kind_of
from lorafit.data.columns.labelled import find_labels
from lorafit.data.columns.values import column_values, features_of, replace_columns
from lorafit.data.findings import UNKEPT, Findings
from lorafit.data.read.written import parse_list
from lorafit.errors import DataError
from lorafit.units import listed

NAMES = ("messages", "conversation", "conversations", "chat")
"""Columns that hold conversations, in order of preference."""
KEYS = (("role", "content"), ("from", "value"), ("role", "value"), ("from", "content"))
"""What a message calls its speaker and its text; the first are the usual ones."""
_NAMED = {name for keys in KEYS for name in keys}
_WRITTEN = re.compile(r"""(\[\s*)?\{\s*['"]""")
"""What a conversation or a message written as text begins with."""
ROLES = ("user", "assistant", "system", "tool", "developer")
MEANT = {
    **dict.fromkeys(("human", "prompter", "customer"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "model", "bot", "ai", "chatbot"), "assistant"),
    **dict.fromkeys(("observation", "function", "ipython"), "tool"),
}
"""Roles under other names."""
SYSTEM = "system"
"""A text column of this name beside ShareGPT's conversations has their system prompts."""

Message = dict[str, Any]


def find_messages(rows: Dataset, config: DataConfig) -> str | None:
    """The column with lists of messages: the one asked for, or one by name."""
    return next((name for name in config.text or NAMES if keys_of(rows, name)), None)


def keys_of(rows: Dataset, column: str) -> tuple[str, str] | None:
    """What messages of a column call speaker and text; ``None``: it holds no messages."""
    feature: Any = features_of(rows).get(column)
    inner = feature.feature if isinstance(feature, List) else None
    fields = inner.keys() if isinstance(inner, dict) else ()
    return next((keys for keys in KEYS if set(keys) <= set(fields)), None)


def refuse_unread_chats(rows: Dataset, config: DataConfig) -> None:
    """Refuses a column that is called like conversations and holds neither them nor text.

    Raises:
        DataError: There is one, and no text column was named.
    """
    for name in () if config.text else NAMES:
        feature = features_of(rows).get(name)
        if feature is None or kind_of(feature) == "empty" or keys_of(rows, name):
            continue
        if kind_of(feature) == "text":
            _refuse_unreadable(rows, name)
            continue
        inner: Any = feature.feature if isinstance(feature, List) else feature
        has = f"objects of {listed(list(inner))}" if isinstance(inner, dict) else kind_of(inner)
        lists = "lists of " if isinstance(feature, List) else ""
        raise DataError(
            f'the column "{name}" is called like conversations, but holds {lists}{has}. A '
            'conversation is a list of messages such as {"role": "user", "content": "..."} or '
            '{"from": "human", "value": "..."}. To learn from another column, name it: --text '
            "COLUMN."
        )


def _refuse_unreadable(rows: Dataset, name: str) -> None:
    """Refuses a column of conversations written as JSON of which one cannot be read."""
    texts = [(text or "").strip() for text in column_values(rows, name)]
    written = [bool(_WRITTEN.match(text)) for text in texts]
    if 2 * sum(written) <= len(texts) - texts.count(""):
        return
    broken = (n for n, text in enumerate(texts, start=1) if text and parse_list(text) is None)
    number = next(broken, 1)
    raise DataError(
        f'the conversations in "{name}" are written as text, and not each of them is a list of '
        f"messages (row {number:,}: {texts[number - 1][:40]!r}). Write each as JSON such as "
        '[{"role": "user", "content": "..."}, ...]. To learn from the texts as they are: --text '
        f"{name}."
    )


def refuse_chats_of_other_names(rows: Dataset, config: DataConfig) -> None:
    """Refuses to pass over conversations in a column that is not called like them.

    Raises:
        DataError: There are such columns, and no column was named and none is the label.
    """
    columns = [name for name in rows.column_names if keys_of(rows, name)]
    if not columns or config.text or config.label or find_messages(rows, config):
        return
    if any(labels.certain for labels in find_labels(rows, config)):
        return
    named = " and ".join(columns) if len(columns) == 2 else listed(columns)
    raise DataError(
        f"{named} hold{'s' if len(columns) == 1 else ''} conversations. To learn "
        f"from them, name the column: --text {columns[0]}. To learn from another one, name that."
    )


def read_chats(splits: DatasetDict, config: DataConfig, findings: Findings = UNKEPT) -> DatasetDict:
    """Brings conversations to roles and contents of the usual names.

    With ``config.skip_bad_rows``, those that cannot be learned from are left out and counted.
    """
    first = splits["train" if "train" in splits else next(iter(splits))]
    column = find_messages(first, config)
    if column is None:
        return splits
    found = DatasetDict(
        {name: _standard_column(rows, column, findings) for name, rows in splits.items()}
    )
    if not config.skip_bad_rows or config.label is not None:
        return found
    return DatasetDict(
        {name: _readable(rows, column, name, findings) for name, rows in found.items()}
    )


def standard(messages: Any) -> Any:
    """One conversation as messages of ``role`` and ``content``, with the usual roles."""
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return messages
    return [_standard(message) for message in messages]


def _standard(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    keys = _keys(message)
    if keys is None:
        return dict(message)
    # Files in which some messages are written one way and some the other have all names in each.
    rest = {
        name: value
        for name, value in message.items()
        if name not in keys and not (name in _NAMED and value is None)
    }
    role = message[keys[0]]
    name = str(role).strip().lower() if role is not None else None
    usual = role if name is None else MEANT.get(name, name if name in ROLES else role)
    return {"role": usual, "content": message[keys[1]]} | rest


def _keys(message: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a message calls speaker and text, those that say something first."""
    there = [keys for keys in KEYS if set(keys) <= message.keys()]
    said = [keys for keys in there if message[keys[0]] is not None and message[keys[1]] is not None]
    spoken = [keys for keys in there if message[keys[0]] is not None]
    return next(iter([*said, *spoken, *there]), None)


def _standard_column(rows: Dataset, column: str, findings: Findings) -> Dataset:
    keys = keys_of(rows, column)
    if keys is None:
        return rows
    chats = column_values(rows, column)
    messages = [message for chat in chats for message in chat or () if message]
    ways = dict.fromkeys(found for m in messages if (found := _keys(m)))
    roles = dict.fromkeys(m[found[0]] for m in messages if (found := _keys(m)))
    renamed = {r: _standard({"role": r, "content": ""})["role"] for r in roles if r is not None}
    others = {role: usual for role, usual in renamed.items() if role != usual}
    shared = [found for found in ways if found != KEYS[0]]
    if not shared and not others:
        return rows
    if others:
        said = ", ".join(f"{role} as {usual}" for role, usual in others.items())
        findings.note(f"roles in {column} are read by their meaning: {said}")
    chats = [standard(chat) for chat in chats]
    if shared:
        names = " and ".join(", ".join(found) for found in shared)
        findings.note(f"{column}: conversations in ShareGPT's form ({names})")
        chats = _with_system(rows, chats, findings)
    return replace_columns(rows, {column: pa.array(chats)})


def _with_system(rows: Dataset, chats: list[Any], findings: Findings) -> list[Any]:
    """The conversations, begun by the system prompts that stand in a column of their own."""
    if SYSTEM not in features_of(rows) or kind_of(features_of(rows)[SYSTEM]) != "text":
        return chats
    prompts = column_values(rows, SYSTEM)
    findings.note(f"the text in {SYSTEM} is the system message of each conversation")
    return [
        [{"role": "system", "content": prompt}, *chat]
        if chat and (prompt or "").strip() and chat[0]["role"] != "system"
        else chat
        for prompt, chat in zip(prompts, chats, strict=True)
    ]


def _readable(rows: Dataset, column: str, split: str, findings: Findings) -> Dataset:
    problems = {i: p for i, chat in enumerate(column_values(rows, column)) if (p := problem(chat))}
    if not problems:
        return rows
    index, why = next(iter(problems.items()))
    findings.warn(
        f"{split} split: skipped {len(problems):,} of {len(rows):,} conversations that cannot be "
        f"learned from; first: conversation {index + 1:,} {why}"
    )
    return rows.select([index for index in range(len(rows)) if index not in problems])


def problem(messages: Any) -> str:
    """Why a conversation cannot be learned from, or ``""``; tools' messages may be anything."""
    if not messages:
        return "is empty"
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return f"is {type(messages).__name__}, not a list of messages"
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or message.get("role") is None:
            return f"has a message without a role (message {number})"
        role = message["role"]
        if role not in ROLES:
            return f'has the role "{role}" (message {number}); roles are {", ".join(ROLES)}'
        content = message.get("content")
        if role != "tool" and not isinstance(content, str):
            what = "no text" if content is None else f"{_kind(content)} instead of a text"
            return f"has a message without a text (message {number}, {role}: {what})"
    if all(message["role"] == "tool" for message in messages):
        return "has messages of tools only"
    return ""


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"


def check_chats(splits: DatasetDict, column: str) -> None:
    """Refuses conversations that cannot be learned from, by their place in the data.

    Raises:
        DataError: One has no messages, no text or an unknown role, or no assistant speaks in any.
    """
    for split, rows in splits.items():
        if column not in features_of(rows):
            continue
        for number, why in _problems(rows, column):
            raise DataError(
                f"conversation {number:,} of the {split} split {why}. Mend it, or leave such "
                "rows out with --skip-bad-rows."
            )
    rows = splits["train" if "train" in splits else next(iter(splits))]
    roles = Counter(m["role"] for chat in column_values(rows, column) for m in chat)
    if "assistant" not in roles:
        raise DataError(
            f'no message in "{column}" has the role assistant, so there is nothing to learn. The '
            f"roles are {', '.join(map(str, roles))}. Rename the one that answers to assistant."
        )


def _problems(rows: Dataset, column: str) -> Iterator[tuple[int, str]]:
    for index, chat in enumerate(column_values(rows, column)):
        if why := problem(chat):
            yield index + 1, why


def place_of(messages: Any, column: str, splits: Mapping[str, Dataset]) -> str:
    """Where a conversation stands in the data as they were read, for messages; ``""``: nowhere."""
    for split, rows in splits.items():
        found = column_values(rows, column) if column in features_of(rows) else []
        if messages in found:
            return f"conversation {found.index(messages) + 1:,} of the {split} split"
    return ""


def plain(messages: Any, number: int) -> list[Message]:
    """Roles and texts of one conversation; tools are left out.

    Args:
        messages: The conversation.
        number: Its place, for messages.

    Raises:
        DataError: It cannot be learned from.
    """
    messages = standard(messages)
    if why := problem(messages):
        raise DataError(f"conversation {number:,} {why}.")
    return [{"role": m["role"], "content": m["content"]} for m in messages if m["role"] != "tool"]

"""Conversations as tokens: through the tokenizer's chat template, assistants' turns learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset, List
from transformers import PreTrainedTokenizerBase

from lorafit.config import DataConfig
from lorafit.errors import DataError
from lorafit.tasks.labels import UNKNOWN

NAMES = ("messages", "conversation", "conversations", "chat")
Message = dict[str, Any]


def find_messages(rows: Dataset, config: DataConfig) -> str | None:
    """The column with lists of ``{"role", "content"}``: the one asked for, or one by name."""
    for name in config.text or NAMES:
        feature: Any = rows.features.get(name)
        inner = feature.feature if isinstance(feature, List) else None
        if isinstance(inner, dict) and {"role", "content"} <= inner.keys():
            return name
    return None


def plain(messages: Sequence[Message], number: int) -> list[Message]:
    """Roles and texts of one conversation; tools are left out.

    Raises:
        DataError: A message has no text.
    """
    kept = [{"role": m["role"], "content": m["content"]} for m in messages if m["role"] != "tool"]
    if not kept or any(not isinstance(m["content"], str) for m in kept):
        raise DataError(f"conversation {number} is empty, or has a message without a text.")
    return kept


def encode_chat(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, number: int
) -> tuple[list[int], list[int]]:
    """Token ids and labels of one conversation: what the assistant says, and the end of it.

    Where the template marks the assistant's turns itself, these are learned. Otherwise the text
    up to each of its turns is rendered alone; it has to be a beginning of the whole text, and
    the turn has to hold what the assistant says.

    Raises:
        DataError: There is no template, or it renders a turn differently once others follow.
    """
    template = tokenizer.chat_template
    if not template:
        raise DataError(
            "the tokenizer has no chat template. Use a model made for chat, or set "
            "tokenizer.chat_template."
        )
    if "{% generation" in str(template) or "{%- generation" in str(template):
        found: Any = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = list(found["input_ids"]), found["assistant_masks"]
        return ids, [i if m else UNKNOWN for i, m in zip(ids, mask, strict=True)]
    whole = _rendered(messages, tokenizer)
    spans = []
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _rendered(messages[:at], tokenizer, prompt=True)
        turn = _rendered(messages[: at + 1], tokenizer).rstrip()
        said = turn[len(before) :]
        if not (whole.startswith(turn) and turn.startswith(before)):
            raise DataError(
                f"the chat template renders turn {at + 1} of conversation {number} differently "
                "when others follow, so what is to be learned cannot be told."
            )
        if message["content"].strip() not in said:
            raise DataError(
                f"the chat template leaves out what the assistant says in turn {at + 1} of "
                f"conversation {number}."
            )
        spans.append((len(before), len(turn)))
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = list(encoded["input_ids"])
    labels = [
        token if any(low <= start < high for low, high in spans) else UNKNOWN
        for token, (start, _) in zip(ids, encoded["offset_mapping"], strict=True)
    ]
    return ids, labels


def chat_prompt(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], str | None]:
    """The conversation up to the last answer as token ids, and that answer if there is one."""
    reference = messages[-1]["content"] if messages[-1]["role"] == "assistant" else None
    asked = messages if reference is None else messages[:-1]
    text = _rendered(asked, tokenizer, prompt=True)
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]), reference


def _rendered(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, prompt: bool = False
) -> str:
    return str(
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    )

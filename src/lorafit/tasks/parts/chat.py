"""Conversations as tokens: through the tokenizer's chat template, assistants' turns learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedTokenizerBase

from lorafit.config import SpecialTokens
from lorafit.data.columns.chats import Message
from lorafit.errors import DataError, LorafitError
from lorafit.tasks.parts.control import Framed
from lorafit.tasks.parts.labels import UNKNOWN


def encode_chat(
    messages: list[Message],
    tokenizer: PreTrainedTokenizerBase,
    number: int,
    special_tokens: SpecialTokens = "text",
) -> tuple[list[int], list[int]]:
    """Token ids and labels of one conversation: what the assistant says, and the end of it.

    Where the template marks the assistant's turns itself, these are learned. Otherwise the text
    up to each of its turns is rendered alone; it has to be a beginning of the whole text, and
    the turn has to hold what the assistant says.

    Args:
        messages: Roles and contents.
        tokenizer: With a chat template.
        number: Of the conversation, for messages.
        special_tokens: ``text``: only what the template itself writes is a control token; a
            message that holds the name of one cannot close its turn.

    Raises:
        DataError: There is no template, it refuses the conversation, or it renders a turn
            differently once others follow.
    """
    template = tokenizer.chat_template
    if not template:
        raise DataError(
            "the tokenizer has no chat template. Use a model made for chat, or set "
            "tokenizer.chat_template."
        )
    framed = _framed(messages, tokenizer, special_tokens)
    if "{% generation" in str(template) or "{%- generation" in str(template):
        if framed is not None:
            with _refusing(messages, number):
                written, turns = framed.rendered_turns(messages)
            ids, offsets = framed.read(written)
            # As transformers has it: the token that a turn begins in is learned whole.
            begun = [next((s for s, e in offsets if s <= low < e), low) for low, _ in turns]
            spans = [(low, high) for low, (_, high) in zip(begun, turns, strict=True)]
            return _learned(ids, offsets, spans)
        with _refusing(messages, number):
            found: Any = tokenizer.apply_chat_template(
                messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
        ids, mask = list(found["input_ids"]), found["assistant_masks"]
        return ids, [i if m else UNKNOWN for i, m in zip(ids, mask, strict=True)]
    whole = _rendered(messages, tokenizer, framed, number)
    spans = []
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        turn = _rendered(messages[: at + 1], tokenizer, framed, number).rstrip()
        content = message["content"] if framed is None else framed.content(message)
        if at:
            before = _rendered(messages[:at], tokenizer, framed, number, prompt=True)
        else:
            before = _opening(turn, content)
        said = turn[len(before) :]
        if not (whole.startswith(turn) and turn.startswith(before)):
            raise DataError(
                f"the chat template renders turn {at + 1} of conversation {number} differently "
                "when others follow, so what is to be learned cannot be told."
            )
        if content.strip() not in said:
            raise DataError(
                f"the chat template leaves out what the assistant says in turn {at + 1} of "
                f"conversation {number}."
            )
        spans.append((len(before), len(turn)))
    if framed is not None:
        return _learned(*framed.read(whole), spans)
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return _learned(list(encoded["input_ids"]), encoded["offset_mapping"], spans)


def _opening(turn: str, content: str) -> str:
    """What stands before the words of an assistant who opens: no template renders nothing."""
    return turn[: max(turn.rfind(content.strip()), 0)]


def _learned(
    ids: list[int], offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """Tokens, and as labels those of them that begin in one of the spans."""
    labels = [
        token if any(low <= start < high for low, high in spans) else UNKNOWN
        for token, (start, _) in zip(ids, offsets, strict=True)
    ]
    return ids, labels


def _framed(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, special_tokens: SpecialTokens
) -> Framed | None:
    """How to read a conversation of which a message names a control token; ``None``: none does."""
    if special_tokens == "control":
        return None
    framed = Framed(tokenizer)
    return framed if framed.is_needed(messages) else None


def chat_prompt(
    messages: list[Message],
    tokenizer: PreTrainedTokenizerBase,
    special_tokens: SpecialTokens = "text",
    number: int = 1,
) -> tuple[list[int], str | None]:
    """The conversation up to the last answer as token ids, and that answer if there is one.

    Raises:
        DataError: The template refuses the conversation.
    """
    reference = messages[-1]["content"] if messages[-1]["role"] == "assistant" else None
    asked = messages if reference is None else messages[:-1]
    framed = _framed(asked or messages, tokenizer, special_tokens)
    if asked:
        text = _rendered(asked, tokenizer, framed, number, prompt=True)
    else:  # nobody asks: the assistant opens
        content = reference if framed is None else framed.content(messages[0])
        text = _opening(_rendered(messages, tokenizer, framed, number).rstrip(), str(content))
    if framed is not None:
        return framed.read(text)[0], reference
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]), reference


class Unrendered(DataError):
    """The chat template refuses a conversation, such as one with two users in a row.

    Args:
        place: Which conversation it is.
        messages: All of it.
        error: What the template says.
    """

    def __init__(self, place: str, messages: list[Message], error: Exception) -> None:
        roles = ", ".join(str(message["role"]) for message in messages)
        self._parts = (messages, error)
        super().__init__(
            f"{place} (roles: {roles}) is refused by the model's chat template: "
            f"{_said(error)}. Mend it, leave such rows out with --skip-bad-rows, or use "
            "a model whose template takes them."
        )

    def at(self, place: str) -> Unrendered:
        """The same of a conversation whose place is known better."""
        return Unrendered(place, *self._parts) if place else self


def _said(error: Exception) -> str:
    """What a template says; where memory ran out it says nothing."""
    if isinstance(error, MemoryError):
        return "there is not the memory for what it writes"
    return str(error).rstrip(".") or type(error).__name__


def _rendered(
    messages: list[Message],
    tokenizer: PreTrainedTokenizerBase,
    framed: Framed | None,
    number: int,
    prompt: bool = False,
) -> str:
    with _refusing(messages, number):
        if framed is not None:
            return framed.rendered(messages, prompt)
        return str(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        )


@contextmanager
def _refusing(messages: list[Message], number: int) -> Iterator[None]:
    """Names the conversation that the template refuses inside."""
    try:
        yield
    except LorafitError:
        raise
    except Exception as error:  # what a template computes may go wrong in any way
        raise Unrendered(f"conversation {number:,}", messages, error) from error

"""Text is text: a row that holds ``</s>`` or ``<|im_end|>`` holds these characters.

Tokenizers read the name of a control token inside a text as the token: a text then ends in the
middle, or a user's message closes its own turn. Their option ``split_special_tokens`` turns
that off, but not for all: Unigram models (T5, XLM-R) have the names among their pieces, and
take them whole. Texts in which a control token is found nevertheless are read by a twin of the
tokenizer, to which its control tokens are known by other, random names: the same tokens for
everything else, and no text can name them.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from tokenizers import Tokenizer
from transformers import BatchEncoding, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from lorafit.config import SpecialTokens
from lorafit.data.columns.chats import Message
from lorafit.data.findings import UNKEPT, Findings
from lorafit.errors import DataError, ModelError

_MANY = 0.5
"""Share of texts with control tokens from which on they were probably meant."""

_RANDOM = "lorafit"
"""Begins the random names."""

_twins: WeakKeyDictionary[PreTrainedTokenizerBase, dict[frozenset[str], Twin]] = WeakKeyDictionary()


def control_names(tokenizer: PreTrainedTokenizerBase, template: bool = False) -> frozenset[str]:
    """The names of a tokenizer's control tokens.

    Args:
        tokenizer: Any.
        template: With those tokens that are not marked as special, but that the chat template
            writes (``<|user|>``, ``<think>``).
    """
    added = tokenizer.added_tokens_decoder.values()
    names = {token.content for token in added if token.special} | set(tokenizer.all_special_tokens)
    written = str(tokenizer.chat_template or "") if template else ""
    names |= {t.content for t in added if not t.content.isspace() and t.content in written}
    return frozenset(name for name in names if name)


def read(
    tokenizer: PreTrainedTokenizerBase,
    *columns: Sequence[str],
    special_tokens: SpecialTokens = "text",
    target: bool = False,
    **options: Any,
) -> BatchEncoding:
    """What the tokenizer makes of texts.

    Args:
        tokenizer: Left as it is.
        columns: Texts, and second texts if they are pairs; at least one.
        special_tokens: ``text``: the name of a control token in a text is text; ``control``: it
            is the token.
        target: The texts are what an encoder-decoder is to write.
        options: Of the tokenizer.

    Raises:
        DataError: A slow tokenizer has no way to read the name of a control token as text.
    """
    call = functools.partial(_call, tokenizer, columns, target, options)
    if special_tokens == "control":
        return call()
    with _splitting(tokenizer):
        encoded = call(split_special_tokens=True)
        probe = _call(
            tokenizer, [["a"] for _ in columns], target, options | {"split_special_tokens": True}
        )
    control = control_ids(tokenizer)
    expected = int(np.isin(probe["input_ids"][0], control).sum())
    taken = _count(encoded["input_ids"], control) != expected
    if taken.any() and not tokenizer.is_fast:
        wrong = np.flatnonzero(taken).tolist()
        raise DataError(
            f"a text holds the name of a control token ({_first_name(columns, wrong, tokenizer)}), "
            f"which {type(tokenizer).__name__}, a slow tokenizer, cannot read as text. Take it "
            "out of the text, or set data.special_tokens=control."
        )
    unknown = tokenizer.unk_token
    if unknown and tokenizer.is_fast:  # a token that other texts have as well
        taken |= [any(unknown in text for text in row) for row in zip(*columns, strict=True)]
    wrong = np.flatnonzero(taken).tolist()
    if not wrong:
        return encoded
    again = twin_of(tokenizer).encode(
        [tuple(column[row] for column in columns) for row in wrong], tokenizer, target, options
    )
    encodings: Any = list(encoded.encodings or ())
    for row, encoding in zip(wrong, again, strict=True):
        encodings[row] = encoding
        for name, attribute in _ATTRIBUTES.items():
            if name in encoded:
                encoded[name][row] = getattr(encoding, attribute)
    return BatchEncoding(encoded.data, encodings)


def say_control(
    texts: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    findings: Findings = UNKEPT,
) -> None:
    """Says how many texts hold names of control tokens, all of which are read as text."""
    find = _finder(control_names(tokenizer))
    found = [name for row in texts if (name := next(filter(None, map(find, row)), None))]
    if not found:
        return
    shown = ", ".join(dict.fromkeys(found[:3]))
    findings.warn_or_note(
        len(found) > _MANY * len(texts),
        f"{len(found):,} of {len(texts):,} texts hold the name of a control token ({shown}); it is "
        "read as text, not as the token. If the token is meant, set data.special_tokens=control",
    )


def control_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of the control tokens, but for the one of what the vocabulary does not know."""
    names = control_names(tokenizer)
    ids: Any = tokenizer.convert_tokens_to_ids(sorted(names))
    return sorted(set(ids) - {tokenizer.unk_token_id})


def _call(
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[Sequence[str]],
    target: bool,
    options: dict[str, Any],
    **more: Any,
) -> BatchEncoding:
    lists = [list(column) for column in columns]
    encoded: BatchEncoding = (
        tokenizer(text_target=lists[0], **options, **more)
        if target
        else tokenizer(*lists, **options, **more)
    )
    return encoded


@contextmanager
def _splitting(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Leaves no trace of ``split_special_tokens`` in the tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    before = getattr(backend, "encode_special_tokens", None)
    try:
        yield
    finally:
        if backend is not None and before is not None:
            backend.encode_special_tokens = before


def _count(rows: Sequence[Sequence[int]], control: Sequence[int]) -> np.ndarray:
    """How many control tokens each row has."""
    lengths = [len(row) for row in rows]
    flat = np.fromiter((i for row in rows for i in row), dtype=np.int64, count=sum(lengths))
    owner = np.repeat(np.arange(len(rows)), lengths)
    return np.bincount(owner[np.isin(flat, control)], minlength=len(rows))


def _first_name(
    columns: Sequence[Sequence[str]], rows: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> str:
    find = _finder(control_names(tokenizer))
    texts = [column[row] for row in rows for column in columns]
    return next(filter(None, map(find, texts)), "in another spelling")


def _finder(names: frozenset[str]) -> Callable[[str], str | None]:
    """A function that returns the first of some names in a text."""
    pattern, firsts = one_of(names), sorted({name[0] for name in names})

    def find(text: str) -> str | None:
        # Most texts have not even the first character of one; the pattern is slower.
        if not any(first in text for first in firsts):
            return None
        found = pattern.search(text)
        return found[0] if found else None

    return find


@functools.lru_cache(maxsize=16)
def one_of(names: frozenset[str]) -> re.Pattern[str]:
    """Matches any of some names, the longest first."""
    longest = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest)) or r"(?!)")


_ATTRIBUTES = {
    "input_ids": "ids",
    "token_type_ids": "type_ids",
    "attention_mask": "attention_mask",
    "offset_mapping": "offsets",
    "special_tokens_mask": "special_tokens_mask",
}
"""What an encoding calls the parts of a tokenizer's answer."""


@dataclass(frozen=True)
class Twin:
    """A tokenizer that knows its control tokens by random names.

    Attributes:
        backend: The twin.
        names: A control token's name to its random one.
    """

    backend: Tokenizer
    names: dict[str, str]

    def hidden(self, name: str) -> str:
        """A word that stands for a name while a template is filled in."""
        return "hidden" + self.names[name].removeprefix(_RANDOM)

    def encode(
        self,
        rows: Sequence[tuple[str, ...]],
        tokenizer: PreTrainedTokenizerBase,
        target: bool,
        options: dict[str, Any],
    ) -> list[Any]:
        """What it makes of texts or pairs, with the special tokens and the cut of its original."""
        switched = target and hasattr(tokenizer, "_switch_to_target_mode")
        if switched:
            tokenizer._switch_to_target_mode()  # noqa: SLF001 transformers 5.23
        original: Any = tokenizer.backend_tokenizer
        try:
            if original.post_processor is not None:
                self.backend.post_processor = original.post_processor
        finally:
            if switched:
                tokenizer._switch_to_input_mode()  # noqa: SLF001
        if options.get("truncation") and original.truncation is not None:
            self.backend.enable_truncation(**original.truncation)
        else:
            self.backend.no_truncation()
        inputs: Any = [row if len(row) > 1 else row[0] for row in rows]
        special = options.get("add_special_tokens", True)
        return self.backend.encode_batch(inputs, add_special_tokens=special)


class Framed:
    """Conversations of which only the chat template writes control tokens.

    Their names in messages are hidden while the template is filled in; after that the control
    tokens in the text are the template's own, and get the names by which the twin knows them.

    Args:
        tokenizer: With a chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._names = control_names(tokenizer, template=True)
        # What an assistant writes itself, such as <think>, are tokens it has to learn to write.
        self._assistants = control_names(tokenizer)

    def is_needed(self, messages: Sequence[Message]) -> bool:
        """Whether a message names a control token.

        Raises:
            DataError: One does, and the tokenizer has no way to read it as text.
        """
        named = next(filter(None, (self._in(m).search(m["content"]) for m in messages)), None)
        if named is not None and not self._tokenizer.is_fast:
            raise DataError(
                f"a message holds the name of a control token ({named[0]}), which a "
                f"{type(self._tokenizer).__name__}, a slow tokenizer, cannot read as text. Take "
                "it out of the message, or set data.special_tokens=control."
            )
        model = getattr(getattr(self._tokenizer, "backend_tokenizer", None), "model", None)
        if named is not None or model is None or type(model).__name__ == "BPE":
            return named is not None
        # Some tokenizers know names in other spellings (fullwidth signs), and take them whole.
        control = control_ids(self._tokenizer)
        texts = [message["content"] for message in messages]
        with _splitting(self._tokenizer):
            encoded: Any = self._tokenizer(
                texts, add_special_tokens=False, split_special_tokens=True, verbose=False
            )
        return bool(_count(encoded["input_ids"], control).any())

    def rendered(self, messages: Sequence[Message], prompt: bool = False) -> str:
        """The conversation for `read`.

        Args:
            messages: Roles and contents.
            prompt: Up to where the assistant begins.
        """
        found = self._tokenizer.apply_chat_template(
            self._hidden(messages), tokenize=False, add_generation_prompt=prompt
        )
        return self._shown(str(found))

    def content(self, message: Message) -> str:
        """What of `rendered` a message is."""
        return self._shown(self._hidden([message])[0]["content"])

    def rendered_turns(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """The same, and from where to where the template marks what the assistant says."""
        tokenizer = self._tokenizer
        render: Any = render_jinja_template
        rendered, turns = render(
            conversations=[self._hidden(messages)],
            chat_template=tokenizer.get_chat_template(),
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
        places = [
            (len(self._shown(rendered[0][:low])), len(self._shown(rendered[0][:high])))
            for low, high in turns[0]
        ]
        return self._shown(rendered[0]), places

    def read(self, rendered: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and from where to where each token reaches in the text."""
        twin = twin_of(self._tokenizer, self._names)
        twin.backend.no_truncation()
        encoded: Any = twin.backend.encode(rendered, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def _in(self, message: Message) -> re.Pattern[str]:
        return one_of(self._assistants if message["role"] == "assistant" else self._names)

    def _hidden(self, messages: Sequence[Message]) -> list[Message]:
        twin = twin_of(self._tokenizer, self._names)
        return [
            m | {"content": self._in(m).sub(lambda found: twin.hidden(found[0]), m["content"])}
            for m in messages
        ]

    def _shown(self, rendered: str) -> str:
        twin = twin_of(self._tokenizer, self._names)
        text = one_of(self._names).sub(lambda found: twin.names[found[0]], rendered)
        for name in twin.names:
            text = text.replace(twin.hidden(name), name)
        return text


def twin_of(tokenizer: PreTrainedTokenizerBase, names: frozenset[str] | None = None) -> Twin:
    """The twin of a fast tokenizer; made once.

    Args:
        tokenizer: A fast one.
        names: The control tokens; ``None``: `control_names`.
    """
    names = control_names(tokenizer) if names is None else names
    known = _twins.setdefault(tokenizer, {})
    if names not in known:
        known[names] = _make_twin(tokenizer, names)
    return known[names]


def _make_twin(tokenizer: PreTrainedTokenizerBase, names: frozenset[str]) -> Twin:
    original: Any = tokenizer.backend_tokenizer
    content = json.loads(original.to_str())
    nonce = secrets.token_hex(8)
    # Letters and digits: no normalizer changes them.
    new = {name: f"{_RANDOM}{nonce}n{index}n" for index, name in enumerate(sorted(names))}
    content |= {"truncation": None, "padding": None}
    for token in content["added_tokens"]:
        token["content"] = new.get(token["content"], token["content"])
    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {new.get(name, name): i for name, i in model["vocab"].items()}
        model["unk_token"] = new.get(model.get("unk_token"), model.get("unk_token"))
    else:
        model["vocab"] = [[new.get(name, name), score] for name, score in model["vocab"]]
    if "merges" in model:
        # Pieces of letters that would come together to a name.
        model["merges"] = [m for m in model["merges"] if not names & _made_by(m)]
    backend = Tokenizer.from_str(json.dumps(content))
    moved = [n for n in names if original.token_to_id(n) != backend.token_to_id(new[n])]
    if moved:
        raise ModelError(
            f"the control tokens {', '.join(sorted(moved))} of this {type(tokenizer).__name__} "
            "cannot be told from text. Set data.special_tokens=control to read them as tokens."
        )
    return Twin(backend, new)


def _made_by(merge: str | list[str]) -> set[str]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    return {*parts, "".join(parts)}

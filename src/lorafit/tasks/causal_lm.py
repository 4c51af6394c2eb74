"""Language models that go on with a text: plain text, prompts with completions, or chats."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from lorafit.config import DataConfig, SpecialTokens
from lorafit.data.batches import Example
from lorafit.data.columns.chats import (
    Message,
    check_chats,
    find_messages,
    place_of,
    plain,
    refuse_chats_of_other_names,
    refuse_unread_chats,
)
from lorafit.data.columns.choose import check_asked, choose_columns, described, require_columns
from lorafit.data.columns.labelled import find_labels, has_text
from lorafit.data.columns.prompts import (
    PromptColumns,
    find_prompt,
    refuse_other_answers,
    refuse_preferences,
)
from lorafit.data.columns.values import column_values, texts
from lorafit.data.findings import Findings
from lorafit.data.read.splits import train_rows
from lorafit.errors import DataError
from lorafit.tasks import tasks
from lorafit.tasks.base import Fit, ModelKind, Supervision
from lorafit.tasks.parts.chat import Unrendered, chat_prompt, encode_chat
from lorafit.tasks.parts.clip import beginnings
from lorafit.tasks.parts.control import read, say_control
from lorafit.tasks.parts.generative import (
    GenerativeTask,
    Prompt,
    encoded_table,
    pad,
    padded_inputs,
    special_prefix,
)
from lorafit.tasks.parts.labels import UNKNOWN
from lorafit.tasks.parts.portions import portions

SEPARATOR = "\n"
"""Between prompt and completion where neither brings a space."""

T = TypeVar("T")


@tasks.register("causal_lm")
class CausalLM(GenerativeTask):
    """Predicts each token from those before it.

    Of plain text every token is learned. Of a prompt with its completion only the completion
    is, and the end of the sequence after it. Of a conversation what the assistant says is.

    Attributes:
        text: The text column, or those of the prompt.
        label: The completion's column; ``None``: plain text.
        separator: What stands between prompt and completion.
        chat: The text column holds conversations.
        skip_bad_rows: Conversations that the chat template refuses are left out.
    """

    name: ClassVar[str] = "causal_lm"
    task_type: ClassVar[str] = "CAUSAL_LM"
    auto_model: ClassVar[type] = AutoModelForCausalLM
    supervision: ClassVar[Supervision] = "next_token"
    shift: ClassVar[int] = 1
    fields: ClassVar[tuple[str, ...]] = ("text", "label", "separator", "chat", "skip_bad_rows")
    needs: ClassVar[str] = "a text column, or a prompt and a completion, and a language model"
    reading: ClassVar[Sequence[str]] = (
        "written = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0]",
        'new = written[inputs["input_ids"].shape[1] :]',
        "print(tokenizer.decode(new, skip_special_tokens=True))",
    )

    label: str | None

    def __init__(
        self,
        text: Sequence[str],
        label: str | None = None,
        separator: str = "",
        chat: bool = False,
        skip_bad_rows: bool = False,
    ) -> None:
        """Binds the task to columns.

        Raises:
            DataError: There is no text column, or plain text in more than one.
        """
        if not text or (label is None and len(text) > 1):
            raise DataError(f"one text column is needed, got {len(text)}; or name the completion.")
        self.text = tuple(text)
        self.label = label
        self.separator = separator
        self.chat = chat
        self.skip_bad_rows = skip_bad_rows
        self._source: Mapping[str, Dataset] = {}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Inverse of `to_dict`; runs of earlier versions say nothing of bad rows."""
        return super().from_dict({"skip_bad_rows": False, **values})

    @classmethod
    def fits(cls, rows: Dataset, config: DataConfig, model: ModelKind) -> Fit | None:
        """A language model, and prompts with completions, or text without labels."""
        if not model.generates:
            return None
        messages = find_messages(rows, config)
        if messages is not None:
            return Fit(f"a language model, and conversations in {messages}")
        columns = find_prompt(rows, config)
        if columns is not None:
            return Fit(f"a language model, and {_named(columns)}")
        refuse_other_answers(rows, config, guessing=True)
        if has_text(rows, config) and not find_labels(rows, config):
            refuse_chats_of_other_names(rows, config)
            return Fit("a language model, and text without labels", certain=False)
        return None

    @classmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> CausalLM:
        """Chooses the columns; what is guessed is said.

        Raises:
            DataError: There is no train split, or no single clear column.
        """
        rows = train_rows(splits)
        check_asked(rows, config)
        findings = Findings()
        messages = find_messages(rows, config)
        if messages is not None:
            check_chats(splits, messages)
            task = cls([messages], chat=True, skip_bad_rows=config.skip_bad_rows)
            task._source = splits
            task.findings = findings
            task.reasons = {"text": "lists of roles and contents"}
            if any(m["role"] == "tool" for chat in column_values(rows, messages) for m in chat):
                findings.note("messages of tools are left out")
            return task
        columns = find_prompt(rows, config)
        if columns is None:
            refuse_preferences(rows, config)
            refuse_other_answers(rows, config)
            refuse_unread_chats(rows, config)
            refuse_chats_of_other_names(rows, config)
            if config.label is not None:
                raise DataError(
                    f"no prompt for the completions in {config.label}. There are "
                    f"{described(rows)}. Name it: --text PROMPT; or leave --label out."
                )
            plain = choose_columns(splits, config.text, need_label=False)
            findings.note(str(plain))
            task = cls(plain.text)
            task.findings = findings
            task.reasons = {"text": plain.text_reason}
            return task
        separator = "" if _are_spaced(rows, columns) else SEPARATOR
        findings.note(f"{_named(columns)} ({columns.reason})")
        if separator:
            findings.note(
                "a line break is put between prompt and completion: neither brings a space"
            )
        task = cls(columns.prompt, columns.answer, separator)
        task.findings = findings
        task.reasons = {"text": columns.reason, "label": columns.reason}
        return task

    def encode(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Tokenizes rows; too long prompts with completions are cut at the end.

        Plain text longer than ``max_length`` is not lost: it becomes several examples.

        Returns:
            ``input_ids``, ``labels`` (-100: not learned) and ``truncated``.

        Raises:
            DataError: A column is missing, or nothing is left to learn.
            ConfigError: ``max_length`` leaves no room.
        """
        self.check_encodable(rows, max_length)
        if self.chat:
            return self._encode_chats(rows, tokenizer, max_length)
        end = _end(tokenizer)
        if self.label is None:
            return self._encode_text(rows, tokenizer, max_length, end)
        asked = [text + self.separator for text in self.joined(rows)]
        answered = [row[0] for row in texts(rows, [self.label])]
        if self.special_tokens == "text":
            say_control(list(zip(asked, answered, strict=True)), tokenizer, self.findings)
        prompts, answers = (
            _ids(beginnings(found, tokenizer, max_length), tokenizer, self.special_tokens)
            for found in (asked, answered)
        )
        start = special_prefix(tokenizer)
        input_ids, labels, truncated = [], [], []
        for prompt, answer in zip(prompts, answers, strict=True):
            before, after = [*start, *prompt], [*answer, *end]
            input_ids.append([*before, *after][:max_length])
            labels.append([*[UNKNOWN] * len(before), *after][:max_length])
            truncated.append(len(before) + len(after) > max_length)
        self._say_cut(sum(truncated), len(truncated), max_length)
        return encoded_table(input_ids, labels, truncated)

    def _encode_chats(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Dataset:
        found = self._rendered(
            rows,
            lambda chat, n: (n - 1, *encode_chat(chat, tokenizer, n, self.special_tokens)),
        )
        truncated = [len(ids) > max_length for _, ids, _ in found]
        self._say_cut(sum(truncated), len(truncated), max_length)
        return encoded_table(
            [ids[:max_length] for _, ids, _ in found],
            [labels[:max_length] for *_, labels in found],
            truncated,
            ([place for place, *_ in found], len(rows)),
        )

    def _say_cut(self, count: int, total: int, max_length: int) -> None:
        if count:
            self.findings.warn(
                f"{count:,} of {total:,} examples are longer than {max_length} tokens and are cut "
                "there: their completions lose their end"
            )

    def _rendered(self, rows: Dataset, render: Callable[[list[Message], int], T]) -> list[T]:
        """What the template makes of each conversation; refused ones are left out if asked."""
        found, refused = [], []
        for index, messages in enumerate(column_values(rows, self.text[0])):
            number = index + 1
            try:
                found.append(render(plain(messages, number), number))
            except Unrendered as error:
                refused.append(error)
                if len(refused) == 1:
                    refused[0] = error.at(place_of(messages, self.text[0], self._source))
                if not self.skip_bad_rows:
                    raise refused[0] from error
        if refused:
            self.findings.warn(
                f"skipped {len(refused):,} of {len(rows):,} conversations that the chat template "
                f"refuses; first: {refused[0]}"
            )
        if not found:
            raise refused[0] if refused else DataError("there are 0 conversations.")
        return found

    def asking(self, max_length: int) -> list[str]:
        """A chat is asked through the tokenizer's template, as it was trained."""
        if not self.chat:
            return super().asking(max_length)
        [text] = self.examples
        return [
            f'messages = [{{"role": "user", "content": {json.dumps(text)}}}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ")",
        ]

    def rows(self, texts: Sequence[Any]) -> Dataset:
        """Texts, or conversations; a text alone is what the user says."""
        if not self.chat:
            return super().rows(texts)
        asked = [
            [{"role": "user", "content": text}] if isinstance(text, str) else plain(text, number)
            for number, text in enumerate(texts, start=1)
        ]
        return Dataset.from_dict({self.text[0]: asked})

    def _encode_text(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, end: list[int]
    ) -> Dataset:
        start = special_prefix(tokenizer)
        pieces, places = [], []
        plain = [row[0] for row in texts(rows, list(self.text))]
        if self.special_tokens == "text":
            say_control([(text,) for text in plain], tokenizer, self.findings)
        for place, ids in enumerate(_ids(plain, tokenizer, self.special_tokens)):
            whole = [*start, *ids, *end]
            parts = [whole[at : at + max_length] for at in range(0, len(whole), max_length)]
            # One token alone predicts nothing.
            kept = [part for part in parts if len(part) > 1]
            pieces += kept
            places += [place] * len(kept)
        if len(pieces) > len(rows):
            self.findings.note(
                f"{len(rows):,} texts make {len(pieces):,} examples of at most {max_length} tokens"
            )
        return encoded_table(pieces, pieces, [False] * len(pieces), (places, len(rows)))

    def collate(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, torch.Tensor]:
        """Pads on the right: ``input_ids``, ``attention_mask``, ``labels``, ``(n, longest)``."""
        inputs = padded_inputs(examples, tokenizer, self.findings)
        return {**inputs, "labels": pad(examples, "labels", UNKNOWN)}

    def prompts(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[Prompt]:
        """The prompt of each row; of plain text the text itself, to be gone on with."""
        if self.chat:
            require_columns(rows, self.text)
            turns = self._rendered(
                rows,
                lambda chat, number: (
                    chat,
                    *chat_prompt(chat, tokenizer, self.special_tokens, number),
                ),
            )
            return [
                Prompt(_last_asked(chat, answer), ids[-max_length:], answer)
                for chat, ids, answer in turns
            ]
        asked, start = self.asked(rows), special_prefix(tokenizer)
        ids = _ids([text + self.separator for text, _ in asked], tokenizer, self.special_tokens)
        return [
            Prompt(text, [*start, *tokens][-max_length:], reference)
            for (text, reference), tokens in zip(asked, ids, strict=True)
        ]


def _last_asked(chat: Sequence[Message], answer: str | None) -> str:
    """What stands before the answer; empty where the assistant opens."""
    asked = chat if answer is None else chat[:-1]
    return str(asked[-1]["content"]) if asked else ""


def _named(columns: PromptColumns) -> str:
    return f"prompt: {' and '.join(columns.prompt)}, completion: {columns.answer}"


def _are_spaced(rows: Dataset, columns: PromptColumns) -> bool:
    """Whether every prompt ends, or every completion begins, with a space or line break."""
    prompts = [row[-1] for row in texts(rows, list(columns.prompt))]
    answers = [row[0] for row in texts(rows, [columns.answer])]
    return all(text[-1:].isspace() for text in prompts) or all(
        text[:1].isspace() for text in answers
    )


def _end(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The end-of-sequence token, which teaches the model to stop, if there is one."""
    return [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]


def _ids(
    found: Sequence[str], tokenizer: PreTrainedTokenizerBase, special_tokens: SpecialTokens
) -> list[list[int]]:
    """Token ids without special tokens, in pieces that do not depend on the size of the data."""
    result: list[list[int]] = []
    for at in portions([len(text) for text in found]):
        encoded = read(
            tokenizer,
            found[at],
            special_tokens=special_tokens,
            add_special_tokens=False,
            verbose=False,
        )
        result.extend(encoded["input_ids"])
    return result

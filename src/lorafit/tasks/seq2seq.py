"""Encoder-decoders that read one text and write another (T5, BART, ...)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from lorafit.config import DataConfig
from lorafit.data.batches import Example
from lorafit.data.columns.choose import check_asked
from lorafit.data.columns.labelled import find_labels
from lorafit.data.columns.prompts import choose_prompt, find_prompt, refuse_other_answers
from lorafit.data.columns.values import texts
from lorafit.data.findings import Findings
from lorafit.errors import DataError, ModelError
from lorafit.tasks import tasks
from lorafit.tasks.base import Fit, ModelKind, Supervision
from lorafit.tasks.parts.clip import beginnings
from lorafit.tasks.parts.control import read, say_control
from lorafit.tasks.parts.generative import GenerativeTask, Prompt, encoded_table, pad, padded_inputs
from lorafit.tasks.parts.labels import UNKNOWN


@tasks.register("seq2seq")
class Seq2Seq(GenerativeTask):
    """Learns the target text, token by token, from the source text.

    Attributes:
        text: The columns of the source; several are joined with line breaks.
        label: The target's column.
    """

    name: ClassVar[str] = "seq2seq"
    task_type: ClassVar[str] = "SEQ_2_SEQ_LM"
    auto_model: ClassVar[type] = AutoModelForSeq2SeqLM
    supervision: ClassVar[Supervision] = "target"
    shift: ClassVar[int] = 0
    needs: ClassVar[str] = "a source and a target text, and an encoder-decoder"
    reading: ClassVar[Sequence[str]] = (
        "written = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0]",
        "print(tokenizer.decode(written, skip_special_tokens=True))",
    )

    label: str

    def __init__(self, text: Sequence[str], label: str) -> None:
        """Binds the task to columns.

        Raises:
            DataError: There is no source column.
        """
        if not text:
            raise DataError("a source column is needed, got none.")
        self.text = tuple(text)
        self.label = label
        self._start: int | None = None

    @classmethod
    def fits(cls, rows: Dataset, config: DataConfig, model: ModelKind) -> Fit | None:
        """An encoder-decoder, and pairs of texts."""
        columns = find_prompt(rows, config)
        if not model.encoder_decoder:
            return None
        if columns is None:
            refuse_other_answers(rows, config, guessing=True)
            return None
        certain = [labels.column for labels in find_labels(rows, config) if labels.certain]
        if columns.answer in certain:
            return None
        return Fit(
            f"an encoder-decoder, and source: {' and '.join(columns.prompt)}, "
            f"target: {columns.answer}"
        )

    @classmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> Seq2Seq:
        """Chooses the columns; what is guessed is said.

        Raises:
            DataError: There is no train split, or no pair of text columns.
        """
        if "train" not in splits:
            raise DataError(f"there is no train split to learn from. There is {', '.join(splits)}.")
        check_asked(splits["train"], config)
        columns = choose_prompt(splits["train"], config)
        task = cls(columns.prompt, columns.answer)
        task.findings = Findings()
        source = " and ".join(columns.prompt)
        task.findings.note(f"source: {source}, target: {columns.answer} ({columns.reason})")
        task.reasons = {"text": columns.reason, "label": columns.reason}
        return task

    def meet(self, model: PreTrainedModel) -> None:
        """Notes the token with which the model's decoder begins.

        Raises:
            ModelError: It does not say.
        """
        start = model.config.decoder_start_token_id
        if start is None:
            raise ModelError(
                f"the config of {type(model).__name__} has no decoder_start_token_id, with which "
                "the decoder begins. Set it: for T5 the padding token, for BART the "
                "end-of-sequence token, for multilingual models that of the language."
            )
        self._start = int(start)

    def encode(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Tokenizes rows; sources and targets are cut to ``max_length`` tokens each.

        A target that is cut has no end of sequence: where it was cut is no place to stop.

        Returns:
            ``input_ids``, ``labels`` and ``truncated``.

        Raises:
            DataError: A column is missing, or no target has a token.
            ConfigError: ``max_length`` leaves no room.
        """
        self.check_encodable(rows, max_length)
        sources = self.joined(rows)
        targets = [row[0] for row in texts(rows, [self.label])]
        if not sources:
            return encoded_table([], [], [])
        if self.special_tokens == "text":
            say_control(list(zip(sources, targets, strict=True)), tokenizer, self.findings)
        sources, targets = (
            beginnings(found, tokenizer, max_length) for found in (sources, targets)
        )
        whole = self._ids(sources, tokenizer, verbose=False)
        cut = self._ids(sources, tokenizer, truncation=True, max_length=max_length)
        labels = self._ids(targets, tokenizer, target=True, verbose=False)
        end = tokenizer.eos_token_id
        # T5's and BART's tokenizers end a text themselves, others do not.
        labels = [ids if end is None or ids[-1:] == [end] else [*ids, end] for ids in labels]
        long = [len(a) > len(b) for a, b in zip(whole, cut, strict=True)]
        longer = [len(ids) > max_length for ids in labels]
        for count, which in ((sum(long), "sources"), (sum(longer), "targets")):
            if count:
                self.findings.warn(
                    f"{count:,} of {len(sources):,} {which} are longer than {max_length} tokens "
                    "and are cut there"
                )
        truncated = [a or b for a, b in zip(long, longer, strict=True)]
        return encoded_table(cut, [ids[:max_length] for ids in labels], truncated)

    def collate(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, torch.Tensor]:
        """Pads both texts on the right.

        Returns:
            ``input_ids`` and ``attention_mask`` ``(n, longest source)``; ``labels`` and
            ``decoder_input_ids``, the labels one later behind the decoder's first token,
            ``(n, longest target)``.
        """
        assert self._start is not None, "meet() comes before collate()"
        inputs = padded_inputs(examples, tokenizer, self.findings)
        labels = pad(examples, "labels", UNKNOWN)
        first = torch.full((len(labels), 1), self._start)
        decoder = torch.cat([first, labels[:, :-1]], dim=1)
        fill = tokenizer.pad_token_id
        assert isinstance(fill, int)
        decoder = decoder.masked_fill(decoder == UNKNOWN, fill)
        return {**inputs, "decoder_input_ids": decoder, "labels": labels}

    def prompts(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[Prompt]:
        """The source of each row, and its target where there is one."""
        asked = self.asked(rows)
        sources = [text for text, _ in asked]
        begun = beginnings(sources, tokenizer, max_length)
        ids = self._ids(begun, tokenizer, truncation=True, max_length=max_length)
        return [
            Prompt(text, tokens, reference)
            for (text, reference), tokens in zip(asked, ids, strict=True)
        ]

    def _ids(
        self, found: Sequence[str], tokenizer: PreTrainedTokenizerBase, **options: Any
    ) -> list[list[int]]:
        encoded = read(tokenizer, found, special_tokens=self.special_tokens, **options)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

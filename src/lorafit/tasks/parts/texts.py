"""Texts, or pairs of texts, with one answer each: all that does not depend on the answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lorafit.data.batches import Example
from lorafit.data.columns.choose import label_columns, require_columns
from lorafit.data.columns.values import features_of, texts
from lorafit.errors import DataError, ModelError
from lorafit.tasks.base import Task
from lorafit.tasks.parts.padding import Side, ensure_pad_token, side_of
from lorafit.tasks.parts.places import with_rows
from lorafit.tasks.parts.tokenize import tokenize


class TextTask(Task):
    """A task with the logits ``(n, outputs)`` of a sequence classifier.

    Attributes:
        text: The text column, or the two of a pair.
        label: The label column, or several.
    """

    task_type: ClassVar[str] = "SEQ_CLS"
    auto_model: ClassVar[type] = AutoModelForSequenceClassification

    padding_side: Side = "right"
    """On which side `collate` pads; `meet` asks the model."""
    read_at: int | None = None
    """The token at which the model's classifier reads a text; ``None``: at a fixed place."""

    def __init__(self, text: Sequence[str], label: str | Sequence[str]) -> None:
        """Binds the task to columns.

        Raises:
            DataError: There are not one or two text columns.
        """
        if not 1 <= len(text) <= 2:
            raise DataError(f"a text column or two are needed, got {len(text)}.")
        self.text = tuple(text)
        self.label = label if isinstance(label, str) else list(label)

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many logits a text has."""

    @abstractmethod
    def read_labels(self, rows: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """The labels of rows that have the label column.

        Returns:
            ``(n, ...)``, and which of them are known, ``(n,)`` bool.

        Raises:
            DataError: A label is none that the task knows.
        """

    @abstractmethod
    def unknown(self, count: int) -> np.ndarray:
        """The labels of ``count`` rows of which none is known, ``(count, ...)``."""

    def encode(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Tokenizes rows.

        Rows without a text or without a label are dropped and counted, unless the rows have
        no label column at all (they are to be predicted): then every row is kept, its label
        is unknown, and a row without text is an error.

        Args:
            rows: Has the text columns; the label column may be missing.
            tokenizer: The model's tokenizer.
            max_length: Longest input in tokens, special tokens included.

        Returns:
            ``input_ids`` (and ``token_type_ids`` where the model reads them) as lists,
            unpadded; ``labels`` and ``truncated`` (bool).

        Raises:
            DataError: A column is missing, no row is left, or a label is not known.
            ConfigError: ``max_length`` leaves no room for text.
        """
        require_columns(rows, self.text, "which is the text here")
        if len(rows) == 0:
            raise DataError("there are 0 rows to encode.")
        found = texts(rows, list(self.text))
        filled = np.array([any(part.strip() for part in row) for row in found])
        columns = label_columns(self.label)
        if all(column in features_of(rows) for column in columns):
            labels, known = self.read_labels(rows)
            self._say_dropped(~known, "without a label")
            self._say_dropped(~filled & known, "without text")
        else:
            labels, known = self.unknown(len(rows)), np.ones(len(rows), dtype=bool)
            if not filled.all():
                number = int(np.flatnonzero(~filled)[0]) + 1
                raise DataError(f"text {number} of {len(rows):,} is empty; there is no answer.")
        keep = filled & known
        if not keep.any():
            what = "is empty" if not filled.any() else "has no text or no label"
            raise DataError(
                f"every one of the {len(rows):,} rows {what} "
                f"(columns {', '.join([*self.text, *columns])})."
            )
        table = tokenize(
            [found[index] for index in np.flatnonzero(keep).tolist()],
            tokenizer,
            max_length,
            self.special_tokens,
            self.findings,
        )
        self._check_read_at(table["input_ids"].to_pylist(), tokenizer)
        kept = labels[keep]
        table = table.append_column("labels", pa.array(kept if kept.ndim == 1 else list(kept)))
        # From a table: `Dataset.map` would write a cache file beside the user's data.
        places = np.flatnonzero(keep).tolist()
        return Dataset(datasets.table.InMemoryTable(with_rows(table, places, len(rows))))

    def _say_dropped(self, dropped: np.ndarray, reason: str) -> None:
        if dropped.any():
            self.findings.warn(f"dropped {dropped.sum():,} of {len(dropped):,} rows {reason}")

    def collate(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, torch.Tensor]:
        """Pads encoded examples on the side that the model needs, whatever the tokenizer says.

        Returns:
            ``input_ids``, ``attention_mask``, ... ``(n, longest)``, int64; ``labels (n, ...)``.
        """
        ensure_pad_token(tokenizer, self.findings)
        inputs = set(tokenizer.model_input_names)
        features = [
            {name: value for name, value in example.items() if name in inputs}
            for example in examples
        ]
        batch = tokenizer.pad(
            features,
            padding_side=self.padding_side,
            return_tensors="pt",
            return_attention_mask=True,
            verbose=False,
        )
        return {**batch, "labels": torch.tensor([example["labels"] for example in examples])}

    def check(self, model: PreTrainedModel) -> None:
        """Refuses a live model without a head for these labels.

        Raises:
            ModelError: It has no head, or one with another number of outputs.
        """
        name = type(model).__name__
        make = (
            "Load it with AutoModelForSequenceClassification.from_pretrained(..., "
            f"num_labels={self.outputs})."
        )
        if model.config.num_labels != self.outputs:
            raise ModelError(
                f"{name} has {model.config.num_labels} labels and the data has {self.outputs}"
                f"{self.named_outputs}. {make}"
            )
        prefix = model.base_model_prefix
        if prefix and not any(
            isinstance(module, nn.Linear) and module.out_features == self.outputs
            for path, module in model.named_modules()
            if path.split(".")[0] != prefix
        ):
            raise ModelError(f"{name} has no head with {self.outputs} outputs. {make}")

    def _check_read_at(self, examples: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuses texts that the model's classifier could not find the end of."""
        if self.read_at is None:
            return
        token = tokenizer.convert_ids_to_tokens(self.read_at)
        # Two texts end twice or, as BART's, three times; the model reads them at the last.
        added = tokenizer(*["a"] * len(self.text))["input_ids"].count(self.read_at)
        if added == 0:
            raise ModelError(
                f'the model reads a text at its end-of-sequence token ("{token}"), and '
                f"{type(tokenizer).__name__} adds none. Use the tokenizer that belongs to the "
                "model, or one that ends each text with this token."
            )
        for number, ids in enumerate(examples, start=1):
            count = ids.count(self.read_at)
            if count != added:
                raise DataError(
                    f'text {number} of {len(examples):,} has the end-of-sequence token "{token}" '
                    f"{count} times instead of {added}, and the model reads a text where it ends. "
                    "Read the names of control tokens as text: "
                    "--set data.special_tokens=text."
                )

    def meet(self, model: PreTrainedModel) -> None:
        """Notes on which side the model needs padding, and where it reads a text.

        Raises:
            ModelError: Its classifier finds the end of a text by the token that also pads.
        """
        self.padding_side = side_of(model.config)
        end = model.config.eos_token_id
        if model.config.is_encoder_decoder and end is not None and end == model.config.pad_token_id:
            raise ModelError(
                f"{type(model).__name__} reads a text where it ends, at the end-of-sequence "
                "token, and the tokenizer pads with the same token. Give it a padding token of "
                'its own: tokenizer.pad_token = "..." (a token it knows).'
            )
        self.read_at = end if model.config.is_encoder_decoder else None

    @property
    def named_outputs(self) -> str:
        """The outputs' names in brackets, for messages."""
        return ""

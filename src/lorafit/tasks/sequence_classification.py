"""One label per text, or per pair of texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, DatasetDict
from scipy.special import softmax
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lorafit.config import DataConfig
from lorafit.data.columns import LABEL_NAMES, choose_columns
from lorafit.data.values import texts
from lorafit.errors import DataError, ModelError, did_you_mean
from lorafit.tasks import tasks
from lorafit.tasks.base import Metric, Task
from lorafit.tasks.labels import (
    UNKNOWN,
    label_numbers,
    listed,
    read_label_names,
    refuse_fractions,
)
from lorafit.tasks.padding import ensure_pad_token
from lorafit.tasks.tokenize import tokenize

log = logging.getLogger(__name__)


@tasks.register("sequence_classification")
class SequenceClassification(Task):
    """Single-label classification of texts or text pairs, two classes or more.

    Attributes:
        text: The text column, or the two of a pair.
        label: The label column.
        label_names: The classes; a class's number is its place here.
    """

    name: ClassVar[str] = "sequence_classification"
    task_type: ClassVar[str] = "SEQ_CLS"
    auto_model: ClassVar[type] = AutoModelForSequenceClassification
    metric: ClassVar[str] = "accuracy"
    greater_is_better: ClassVar[bool] = True

    label: str

    def __init__(self, text: Sequence[str], label: str, label_names: Sequence[str]) -> None:
        """Binds the task to columns and classes.

        Raises:
            DataError: There are not one or two text columns, or not two different classes.
        """
        if not 1 <= len(text) <= 2:
            raise DataError(f"a text column or two are needed, got {len(text)}.")
        if len(label_names) < 2 or len(set(label_names)) < len(label_names):
            raise DataError(f"two different classes or more are needed, got {list(label_names)}.")
        self.text = tuple(text)
        self.label = label
        self.label_names = list(label_names)

    @classmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> SequenceClassification:
        """Reads columns and labels off the data; what is guessed is logged.

        Args:
            splits: At least ``train``, before or after missing splits are carved.
            config: ``text`` and ``label``; ``None``: guess.

        Raises:
            DataError: No such column, no clear candidate, one class only, labels that are
                fractions, or a label in another split that never occurs in train.
        """
        if "train" not in splits:
            raise DataError(
                f"there is no train split to learn the labels from. There is {', '.join(splits)}."
            )
        # Before columns are chosen: a column that is certainly the label deserves this word.
        certain = LABEL_NAMES if config.label is None else (config.label,)
        for column in certain:
            if column in splits["train"].features:
                refuse_fractions(splits["train"], column, "train")
        columns = choose_columns(splits, config.text, config.label)
        assert columns.label is not None  # choose_columns raises when it finds none
        names = read_label_names(splits, columns.label)
        log.info("%s classes: %s", len(names), listed(names))
        task = cls(columns.text, columns.label, names)
        task.reasons = {"text": columns.text_reason, "label": columns.label_reason}
        return task

    def model_kwargs(self) -> dict[str, Any]:
        """The number and the names of the labels."""
        return {
            "num_labels": len(self.label_names),
            "id2label": dict(enumerate(self.label_names)),
            "label2id": {name: index for index, name in enumerate(self.label_names)},
        }

    def encode(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Tokenizes rows.

        Rows without a text or without a label are dropped and counted, unless the rows have
        no label column at all (they are to be predicted): then every row is kept, its label
        is ``UNKNOWN`` (-100), and a row without text is an error.

        Args:
            rows: Has the text columns; the label column may be missing.
            tokenizer: The model's tokenizer.
            max_length: Longest input in tokens, special tokens included.

        Returns:
            ``input_ids`` (and ``token_type_ids`` where the model reads them) as lists,
            unpadded; ``labels`` (int64) and ``truncated`` (bool).

        Raises:
            DataError: A column is missing, no row is left, or a label is not a known class.
            ConfigError: ``max_length`` leaves no room for text.
        """
        for column in self.text:
            if column not in rows.features:
                raise DataError(
                    f'no column "{column}", which is the text here. There are '
                    f"{', '.join(rows.column_names)}.{did_you_mean(column, rows.column_names)}"
                )
        if len(rows) == 0:
            raise DataError("there are 0 rows to encode.")
        found = texts(rows, list(self.text))
        filled = np.array([any(part.strip() for part in row) for row in found])
        if self.label in rows.features:
            labels = label_numbers(rows, self.label, self.label_names)
            _say_dropped(int((labels == UNKNOWN).sum()), len(rows), "without a label")
            _say_dropped(int((~filled & (labels != UNKNOWN)).sum()), len(rows), "without text")
        else:
            labels = np.full(len(rows), UNKNOWN, dtype=np.int64)
            if not filled.all():
                number = int(np.flatnonzero(~filled)[0]) + 1
                raise DataError(f"text {number} of {len(rows):,} is empty; there is no answer.")
        keep = filled & ((labels != UNKNOWN) | (self.label not in rows.features))
        if not keep.any():
            what = "is empty" if not filled.any() else "has no text or no label"
            raise DataError(
                f"every one of the {len(rows):,} rows {what} "
                f"(columns {', '.join([*self.text, self.label])})."
            )
        table = tokenize(
            [found[index] for index in np.flatnonzero(keep).tolist()], tokenizer, max_length
        )
        table = table.append_column("labels", pa.array(labels[keep]))
        # From a table: `Dataset.map` would write a cache file beside the user's data.
        return Dataset(datasets.table.InMemoryTable(table))

    def collate(
        self, examples: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, torch.Tensor]:
        """Pads encoded examples on the tokenizer's side.

        Returns:
            ``input_ids``, ``attention_mask``, ... ``(n, longest)``, ``labels (n,)``, int64.
        """
        ensure_pad_token(tokenizer)
        inputs = set(tokenizer.model_input_names)
        features = [
            {name: value for name, value in example.items() if name in inputs}
            for example in examples
        ]
        batch = tokenizer.pad(
            features, return_tensors="pt", return_attention_mask=True, verbose=False
        )
        labels = torch.tensor([example["labels"] for example in examples], dtype=torch.int64)
        return {**batch, "labels": labels}

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross entropy of each example in nats, float32; 0 where the label is ``UNKNOWN``.

        Args:
            logits: ``(n, classes)``, any float type.
            labels: ``(n,)``, int64.
        """
        return F.cross_entropy(logits.float(), labels, reduction="none", ignore_index=UNKNOWN)

    @property
    def metrics(self) -> dict[str, Metric]:
        """Accuracy, and the F1 averaged over the classes that occur, each with equal weight."""
        return {"accuracy": _accuracy, "macro_f1": _macro_f1}

    def decode(self, logits: np.ndarray) -> list[dict[str, Any]]:
        """The most probable label of each example, its probability, and those of all labels."""
        probabilities = softmax(np.asarray(logits, dtype=np.float64), axis=-1)
        return [
            {
                "label": self.label_names[int(row.argmax())],
                "probability": float(row.max()),
                "probabilities": {
                    name: float(value) for name, value in zip(self.label_names, row, strict=True)
                },
            }
            for row in probabilities
        ]

    def check(self, model: PreTrainedModel) -> None:
        """Refuses a live model without a classification head for these labels.

        Raises:
            ModelError: It has no head, or one with another number of outputs.
        """
        wanted = len(self.label_names)
        name = type(model).__name__
        make = (
            "Load it with AutoModelForSequenceClassification.from_pretrained(..., "
            f"num_labels={wanted})."
        )
        if model.config.num_labels != wanted:
            raise ModelError(
                f"{name} has {model.config.num_labels} labels and the data has {wanted} "
                f"({listed(self.label_names)}). {make}"
            )
        prefix = model.base_model_prefix
        if prefix and not any(
            isinstance(module, nn.Linear) and module.out_features == wanted
            for path, module in model.named_modules()
            if path.split(".")[0] != prefix
        ):
            raise ModelError(f"{name} has no head with {wanted} outputs. {make}")

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to rebuild the task, as JSON values."""
        return {
            "name": self.name,
            "text": list(self.text),
            "label": self.label,
            "label_names": list(self.label_names),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SequenceClassification:
        """Inverse of `to_dict`.

        Raises:
            DataError: Values are missing or not of a sequence-classification task.
        """
        if values.get("name") != cls.name:
            raise DataError(f'this is a "{values.get("name")}" task, not "{cls.name}".')
        missing = [key for key in ("text", "label", "label_names") if key not in values]
        if missing:
            raise DataError(f"the stored task lacks {', '.join(missing)}.")
        return cls(values["text"], values["label"], values["label_names"])


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(axis=-1) == labels).mean())


def _macro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(f1_score(labels, logits.argmax(axis=-1), average="macro", zero_division=0.0))


def _say_dropped(count: int, total: int, reason: str) -> None:
    if count:
        log.warning("dropped %s of %s rows %s", f"{count:,}", f"{total:,}", reason)

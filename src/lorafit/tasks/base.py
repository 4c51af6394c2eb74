"""What a task is: rows to features, features to losses, logits to metrics.

A task object is bound to one data set: it knows the columns and the labels. It is
small, can be written to JSON (`Task.to_dict`) and read back, so that a run folder can
predict and evaluate without the training data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit.config import DataConfig

Metric = Callable[[np.ndarray, np.ndarray], float]
"""Logits ``(n, ...)`` and labels ``(n, ...)`` to one number."""


class Task(ABC):
    """One kind of problem on one data set."""

    name: ClassVar[str]
    task_type: ClassVar[str]
    """PEFT's ``TaskType`` value, written to ``adapter_config.json``."""
    auto_model: ClassVar[type]
    """The transformers auto class that builds the model."""
    metric: ClassVar[str]
    """The headline metric, a key of `metrics`."""
    greater_is_better: ClassVar[bool]

    text: tuple[str, ...]
    """The text columns."""
    label: Any
    """The label column; ``None`` for a task without labels."""
    reasons: Mapping[str, str] = MappingProxyType({})
    """Why ``text`` and ``label`` are what they are, for the run's record."""

    @classmethod
    @abstractmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> Task:
        """Reads columns and labels off the data; what is guessed is logged.

        Raises:
            DataError: The data does not fit the task (no such column, one class only, ...).
        """

    @abstractmethod
    def model_kwargs(self) -> dict[str, Any]:
        """Keyword arguments for ``auto_model.from_pretrained`` (``num_labels``, ...)."""

    @abstractmethod
    def encode(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Tokenizes rows into ``input_ids`` (unpadded), ``labels`` and ``truncated`` (bool)."""

    @abstractmethod
    def collate(
        self, examples: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, torch.Tensor]:
        """Pads encoded examples into the model's keyword arguments plus ``labels``."""

    @abstractmethod
    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of each example in nats, float32: ``(n, ...)`` to ``(n,)``."""

    @property
    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """The metrics by name; the headline one first."""

    @abstractmethod
    def decode(self, logits: np.ndarray) -> list[dict[str, Any]]:
        """What `lorafit predict` says of each example: label, probability, ..."""

    def check(  # noqa: B027  (optional: most tasks accept every model)
        self, model: PreTrainedModel
    ) -> None:
        """Refuses a live model that does not fit the data.

        Raises:
            ModelError: For example another number of labels.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Everything needed to rebuild the task, as JSON values."""

    @classmethod
    @abstractmethod
    def from_dict(cls, values: dict[str, Any]) -> Task:
        """Inverse of `to_dict`."""

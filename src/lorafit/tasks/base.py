"""What a task is: rows to features, features to losses, logits to metrics.

A task object is bound to one data set: it knows the columns and the labels. It is
small, can be written to JSON (`Task.to_dict`) and read back, so that a run folder can
predict and evaluate without the training data.
"""

from __future__ import annotations

import functools
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, get_type_hints

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit.config import DataConfig, SpecialTokens
from lorafit.data.batches import Example
from lorafit.data.findings import UNKEPT, Findings
from lorafit.errors import DataError
from lorafit.evidence import MetricInfo, Table
from lorafit.evidence.json import Json
from lorafit.tasks.parts.answers import Predicted
from lorafit.tasks.parts.constant import Constant
from lorafit.tasks.parts.metrics import NLL, Metric, described

Supervision = Literal["example", "token", "next_token", "target"]


@dataclass(frozen=True)
class ModelKind:
    """What is known of a model before its weights are read.

    Attributes:
        model_type: As its ``config.json`` says: ``bert``, ``llama``, ``t5``, ...
        generates: It is a language model that goes on with a text (GPT-2, Llama, ...).
        encoder_decoder: It reads one text and writes another (T5, BART, ...).
    """

    model_type: str
    generates: bool = False
    encoder_decoder: bool = False

    def __str__(self) -> str:
        if self.encoder_decoder:
            return f"{self.model_type}, an encoder-decoder"
        return f"{self.model_type}, a language model" if self.generates else self.model_type


@dataclass(frozen=True)
class Fit:
    """A task's word that data and model are of its kind.

    Attributes:
        reason: Why, in a few words that name the columns.
        certain: The columns say so by their names and what they hold; otherwise the task is
            possible, and gives way to one that is certain.
    """

    reason: str
    certain: bool = True


class Task(ABC):
    """One kind of problem on one data set."""

    name: ClassVar[str]
    task_type: ClassVar[str]
    """PEFT's ``TaskType`` value, written to ``adapter_config.json``."""
    auto_model: ClassVar[type]
    """The transformers auto class that builds the model."""
    metric: str
    """The headline metric, a key of `metrics`."""
    supervision: ClassVar[Supervision] = "example"
    """What is learned: an answer an example, a label a token, the next token, or another text."""
    loss_name: ClassVar[str] = "nll"
    """What the mean of `losses` is called beside the metrics."""
    loss_info: ClassVar[MetricInfo] = NLL
    """What it is."""

    pretrained: ClassVar[bool] = False
    """Whether the base model does the task as it is. Then a model that has learned something is
    better than its base, and not only than `constant`."""
    stratified: ClassVar[bool] = False
    """Whether splits that are set aside keep the share of each label."""
    reading: ClassVar[Sequence[str]] = (
        "with torch.no_grad():",
        "    print(model(**inputs).logits)",
    )
    """Code for the model card: from ``model`` and ``inputs`` (`asking`) to an answer;
    ``id2label`` exists where `model_kwargs` has it."""
    fields: ClassVar[tuple[str, ...]] = ("text", "label")
    """The attributes that the constructor takes, in its order: a task is stored as these."""
    needs: ClassVar[str]
    """The columns, and the model, that the task is for, in a few words for messages."""

    text: tuple[str, ...]
    """The text columns."""
    label: Any
    """The label column; ``None`` for a task without labels."""
    special_tokens: SpecialTokens = "text"
    """What the name of a control token in a text is."""
    reasons: Mapping[str, str] = MappingProxyType({})
    """Why ``text`` and ``label`` are what they are, for the run's record."""
    findings: Findings = UNKEPT
    """What `from_data` found in the data; takes what encoding finds in them."""

    @classmethod
    def fits(cls, rows: Dataset, config: DataConfig, model: ModelKind) -> Fit | None:
        """Whether the task is the one that these columns and this model are for.

        Asked of every task when none is set (`lorafit.tasks.guess`). A task that says nothing
        here is taken only when it is asked for.

        Args:
            rows: The training rows.
            config: ``text`` and ``label`` name existing columns, or are ``None``.
            model: The kind of model.

        Returns:
            ``None``: it is not.
        """
        return None

    @property
    def examples(self) -> list[str]:
        """A made-up text for each text column, for the code of the model card."""
        if len(self.text) == 1:
            return ["a text"]
        return ["a first text", "a second text", *["a further text"] * (len(self.text) - 2)]

    def asking(self, max_length: int) -> list[str]:
        """Code for the model card: from ``tokenizer`` to ``inputs``, made of `examples`."""
        given = ", ".join(map(json.dumps, self.examples))
        return [f"inputs = tokenizer({given}, {self.options(max_length)})"]

    def options(self, max_length: int) -> str:
        """The options with which the code of the model card calls the tokenizer."""
        given = f'truncation=True, max_length={max_length}, return_tensors="pt"'
        as_text = ", split_special_tokens=True" if self.special_tokens == "text" else ""
        return given + as_text

    @classmethod
    @abstractmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> Task:
        """Reads columns and labels off the data; the task's `findings` say what was guessed.

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
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, torch.Tensor]:
        """Pads encoded examples into the model's keyword arguments plus ``labels``."""

    @abstractmethod
    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Summed loss of each example in nats, float32: ``(n, ...)`` to ``(n,)``."""

    def units(self, labels: torch.Tensor) -> torch.Tensor:
        """How many losses each example's sum in `losses` has, ``(n,)`` int64: one, or one a token.

        Args:
            labels: As `collate` makes them.
        """
        return torch.ones(len(labels), dtype=torch.int64, device=labels.device)

    def count(self, examples: Sequence[Example]) -> int:
        """How many losses encoded examples have; the sum of `units` of their batch."""
        return len(examples)

    def keep(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """What the metrics need of a batch, ``(n, ...)`` each, of one shape for every batch.

        Here the logits and the labels themselves; a task with logits of every token reduces
        them to numbers of each example. Examples without labels are ``UNKNOWN`` in the second.
        """
        return logits.float().cpu().numpy(), labels.cpu().numpy()

    def keep_tokens(
        self, losses: torch.Tensor, right: torch.Tensor, counts: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `keep` returns, from labelled tokens alone; for tasks that predict tokens.

        Args:
            losses: Loss of each labelled token in the order of the examples, ``(tokens,)``.
            right: Whether the likeliest token is the right one, ``(tokens,)``.
            counts: Labelled tokens of each example, ``(n,)``.
        """
        raise NotImplementedError(f"{self.name} is not learned from tokens")

    def token_sums(self, losses: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Sums losses of labelled tokens by example.

        Args:
            losses: ``(tokens,)``, in the order of the examples.
            counts: Tokens of each example, ``(n,)``.
        """
        owner = torch.repeat_interleave(counts)
        return losses.new_zeros(len(counts)).index_add(0, owner, losses)

    @property
    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """The metrics by name; the headline one first."""

    @property
    def greater_is_better(self) -> bool:
        """Which way the headline metric is better."""
        return described(self.metrics)[self.metric].info.greater_is_better is not False

    @property
    def infos(self) -> dict[str, MetricInfo]:
        """What each metric is, and the loss."""
        of_metrics = {name: metric.info for name, metric in described(self.metrics).items()}
        return of_metrics | {self.loss_name: self.loss_info}

    def rows(self, texts: Sequence[Any]) -> Dataset:
        """Makes rows without labels of what `lorafit predict` is given: texts, or pairs of them.

        Raises:
            DataError: There are more or fewer texts in one than the task reads.
        """
        cells = [[text] if isinstance(text, str) else list(text) for text in texts]
        wrong = next((row for row in cells if len(row) != len(self.text)), None)
        if wrong is not None:
            hint = " On the command line a tab parts them." if len(self.text) > 1 else ""
            raise DataError(
                f"the task reads {len(self.text)} text(s) ({', '.join(self.text)}), "
                f"got {len(wrong)}." + hint
            )
        check_texts(cells)
        return Dataset.from_dict(dict(zip(self.text, zip(*cells, strict=True), strict=True)))

    @abstractmethod
    def decode(
        self,
        logits: Sequence[np.ndarray] | np.ndarray,
        encoded: Dataset | None = None,
        rows: Dataset | None = None,
    ) -> list[Json]:
        """What `lorafit predict` says of each example; the first value is the answer.

        Args:
            logits: Of each example; logits of every token without those of padding.
            encoded: The encoded examples, for tasks that need them.
            rows: The rows they were made of, likewise.
        """

    def predicted(
        self, outputs: np.ndarray | Sequence[np.ndarray], labels: np.ndarray, encoded: Dataset
    ) -> Predicted | None:
        """What a model said of each example beside what is right, for the run's predictions.

        Args:
            outputs: What `keep` returns of all examples; of a task with a label a token the
                logits of each example, without those of padding.
            labels: What `keep` returns beside it.
            encoded: The encoded examples.

        Returns:
            ``None``: the task has no answers to read off the logits.
        """
        return None

    def constant(self, encoded: Dataset) -> Constant | None:
        """The best answer that looks at no text.

        Args:
            encoded: Encoded examples that all have a label.

        Returns:
            ``None``: the task has none. Then nothing is held against a model that answers the
            same to everything.
        """
        return None

    def never_predicted(self, kept: np.ndarray, labels: np.ndarray) -> list[str]:
        """The classes that some examples have and none was given."""
        return []

    def tables(self, kept: np.ndarray, labels: np.ndarray) -> list[Table]:
        """What is shown beside the metrics: one row a class, a confusion matrix, ..."""
        return []

    def check(  # noqa: B027  (optional: most tasks accept every model)
        self, model: PreTrainedModel
    ) -> None:
        """Refuses a live model that does not fit the data.

        Raises:
            ModelError: For example another number of labels.
        """

    def meet(self, model: PreTrainedModel) -> None:  # noqa: B027  (optional, as `check`)
        """Notes what the task has to know of the model that is used, before `collate`.

        Raises:
            ModelError: The model does not have it.
        """

    def to_dict(self) -> Json:
        """Everything needed to rebuild the task, as JSON values."""
        values = {name: getattr(self, name) for name in self.fields}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {"name": self.name} | plain | {"special_tokens": self.special_tokens}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Inverse of `to_dict`.

        A task that was stored before `special_tokens` existed read their names as the tokens.

        Raises:
            DataError: A value is missing or of the wrong kind, or they are of another task.
        """
        if values.get("name") != cls.name:
            raise DataError(f'this is a "{values.get("name")}" task, not "{cls.name}".')
        missing = [name for name in cls.fields if name not in values]
        if missing:
            raise DataError(f"the stored task lacks {', '.join(missing)}.")
        given = [values[name] for name in cls.fields]
        spelled = values.get("special_tokens", "control")
        try:
            _stored(cls).model_validate(dict(zip(cls.fields, given, strict=True)))
            special: SpecialTokens = TypeAdapter(SpecialTokens).validate_python(spelled)
        except ValidationError as error:
            raise DataError(
                "; ".join(
                    f"{'.'.join(map(str, one['loc'])) or 'special_tokens'}: {one['msg']}"
                    for one in error.errors(include_url=False, include_input=False)
                )
            ) from None
        task = cls(*given)
        task.special_tokens = special
        return task


def check_texts(rows: Sequence[Sequence[object]]) -> None:
    """Refuses what is no text where the texts, or the words, of each row should stand.

    Raises:
        DataError: One is something else; the message has its number.
    """
    for number, row in enumerate(rows, start=1):
        other = next((cell for cell in row if not isinstance(cell, str)), None)
        if other is not None:
            raise DataError(
                f"text {number:,} of {len(rows):,} has {type(other).__name__} {str(other)[:40]!r} "
                "where a text should stand."
            )


@functools.cache
def _stored(task: type[Task]) -> type[BaseModel]:
    """What a stored task holds: the arguments of its constructor, of the types written there."""
    try:
        types = get_type_hints(task.__init__)
    except (NameError, TypeError):  # written for a type checker only
        types = {}
    named = list(inspect.signature(task.__init__).parameters)[1:]
    arguments: dict[str, Any] = {
        field: (types.get(argument, Any), ...)
        for field, argument in zip(task.fields, named, strict=False)
    }
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    made: type[BaseModel] = create_model("Stored", __config__=config, **arguments)
    return made

"""Tasks that write text: the labels are tokens, the loss is counted per token."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from lorafit.data.batches import Example
from lorafit.data.columns.choose import require_columns
from lorafit.data.columns.values import features_of, texts
from lorafit.data.findings import UNKEPT, Findings
from lorafit.errors import ConfigError, DataError
from lorafit.evidence import MetricInfo
from lorafit.evidence.json import Json
from lorafit.tasks.base import Task
from lorafit.tasks.parts.constant import Constant
from lorafit.tasks.parts.labels import UNKNOWN
from lorafit.tasks.parts.metrics import NLL_OF_TOKENS, Metric
from lorafit.tasks.parts.padding import ensure_pad_token
from lorafit.tasks.parts.places import with_rows

_LARGEST = 700.0
"""The exponential of more is no float64."""


@dataclass(frozen=True)
class Prompt:
    """What a model is to answer.

    Attributes:
        text: For people.
        input_ids: For the model.
        reference: The answer that the data has, if it has one.
    """

    text: str
    input_ids: list[int]
    reference: str | None


class GenerativeTask(Task):
    """A task whose model is trained to predict tokens, and used to write them.

    Its encoded examples have a token id or ``UNKNOWN`` (-100, not learned) for each position
    in ``labels``. Losses are sums over the learned tokens of an example.
    """

    metric = "perplexity"
    pretrained: ClassVar[bool] = True
    loss_info: ClassVar[MetricInfo] = NLL_OF_TOKENS
    shift: ClassVar[int]
    """Positions between the logits that predict a label and the label."""

    separator: str = ""
    """What follows the prompt."""

    def asking(self, max_length: int) -> list[str]:
        """One text of all columns, as `prompts` joins them."""
        given = json.dumps("\n".join(self.examples) + self.separator)
        return [f"inputs = tokenizer({given}, {self.options(max_length)})"]

    @abstractmethod
    def prompts(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[Prompt]:
        """What the model is to answer in each row, cut to ``max_length`` tokens.

        Raises:
            DataError: A row has no prompt.
        """

    def check_encodable(self, rows: Dataset, max_length: int) -> None:
        """Refuses rows that cannot be encoded.

        Raises:
            DataError: A column is missing.
            ConfigError: ``max_length`` leaves no room.
        """
        require_columns(rows, [*self.text, *([self.label] if self.label else [])])
        if max_length < 3:
            raise ConfigError(f"max_length {max_length} leaves no room for text. Give more.")

    def joined(self, rows: Dataset) -> list[str]:
        """The prompt of each row: the texts of its columns, a line break between them."""
        return ["\n".join(part for part in row if part) for row in texts(rows, list(self.text))]

    def asked(self, rows: Dataset) -> list[tuple[str, str | None]]:
        """The prompt of each row, and the answer where the rows have it.

        Raises:
            DataError: A column of the prompt is missing, or a prompt is empty.
        """
        require_columns(rows, self.text)
        prompts = self.joined(rows)
        empty = next((n for n, text in enumerate(prompts, start=1) if not text.strip()), None)
        if empty is not None:
            raise DataError(f"text {empty} of {len(prompts):,} is empty; there is no answer.")
        if self.label is None or self.label not in features_of(rows):
            return [(prompt, None) for prompt in prompts]
        answers = [row[0].strip() for row in texts(rows, [self.label])]
        return list(zip(prompts, answers, strict=True))

    def model_kwargs(self) -> dict[str, Any]:
        """None: the head is the pretrained one."""
        return {}

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Summed cross entropy of each example's learned tokens, nats, float32.

        Args:
            logits: ``(n, length, vocabulary)``.
            labels: ``(n, length)``, int64.
        """
        chosen, targets, counts = self._learned(logits, labels)
        return self.token_sums(F.cross_entropy(chosen, targets, reduction="none"), counts)

    def units(self, labels: torch.Tensor) -> torch.Tensor:
        """Learned tokens of each example, ``(n,)``."""
        return (labels[:, self.shift :] != UNKNOWN).sum(dim=1)

    def count(self, examples: Sequence[Example]) -> int:
        """Learned tokens of all examples."""
        return sum(
            label != UNKNOWN for example in examples for label in example["labels"][self.shift :]
        )

    def keep(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """As `keep_tokens`."""
        chosen, targets, counts = self._learned(logits, labels)
        losses = F.cross_entropy(chosen, targets, reduction="none")
        return self.keep_tokens(losses, chosen.argmax(dim=-1) == targets, counts)

    def keep_tokens(
        self, losses: torch.Tensor, right: torch.Tensor, counts: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Summed loss and number of right tokens ``(n, 2)``; number of learned tokens ``(n,)``."""
        sums = [self.token_sums(of_token.float(), counts) for of_token in (losses, right)]
        return torch.stack(sums, dim=1).cpu().numpy(), counts.cpu().numpy()

    def _learned(
        self, logits: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits and labels of the learned tokens, and how many each example has."""
        labels = labels[:, self.shift :]
        wanted = labels != UNKNOWN
        return logits[:, : labels.shape[1]][wanted].float(), labels[wanted], wanted.sum(dim=1)

    def constant(self, encoded: Dataset) -> Constant:
        """The tokens' frequencies: what a model comes to that knows nothing else (unigrams)."""
        rows = [np.array(row[self.shift :], dtype=np.int64) for row in encoded["labels"]]
        learned = [row[row != UNKNOWN] for row in rows]
        _, inverse, often = np.unique(
            np.concatenate(learned), return_inverse=True, return_counts=True
        )
        losses, right = -np.log(often / often.sum())[inverse], inverse == often.argmax()
        kept, _ = self.keep_tokens(
            torch.from_numpy(losses),
            torch.from_numpy(right),
            torch.tensor([len(row) for row in learned]),
        )
        how = "guessing each token by how frequent it is"
        return Constant("the most frequent token", kept, way=how)

    @property
    def metrics(self) -> dict[str, Metric]:
        """Perplexity (the exponential of the mean loss of a token), and right tokens."""
        return dict(_METRICS)

    def decode(
        self,
        logits: Sequence[np.ndarray] | np.ndarray,
        encoded: Dataset | None = None,
        rows: Dataset | None = None,
    ) -> list[Json]:
        """Not used: what these tasks predict is generated, not read off one pass."""
        raise NotImplementedError(f"{self.name} generates")


def pad(examples: Sequence[Example], name: str, fill: int) -> torch.Tensor:
    """One column of examples as ``(n, longest)``, filled on the right."""
    rows = [torch.tensor(example[name], dtype=torch.int64) for example in examples]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)


def padded_inputs(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    findings: Findings = UNKEPT,
) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, ``(n, longest)``."""
    ensure_pad_token(tokenizer, findings)
    fill = tokenizer.pad_token_id
    assert isinstance(fill, int)
    lengths = torch.tensor([len(example["input_ids"]) for example in examples])
    ids = pad(examples, "input_ids", fill)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


def encoded_table(
    input_ids: list[list[int]],
    labels: list[list[int]],
    truncated: list[bool],
    places: tuple[Sequence[int], int] | None = None,
) -> Dataset:
    """The encoded examples.

    Args:
        input_ids: Of each example.
        labels: Of each example.
        truncated: Whether it was cut.
        places: Of each example's row, and how many rows there were; ``None``: one each.

    Raises:
        DataError: Nothing would be learned from any of them.
    """
    if not any(label != UNKNOWN for row in labels for label in row):
        raise DataError(
            f"nothing is left to be learned in any of the {len(labels):,} examples: what comes "
            "before it fills max_length. Raise max_length, or shorten the prompts."
        )
    lists = pa.list_(pa.int32())
    table = pa.table(
        {
            "input_ids": pa.array(input_ids, type=lists),
            "labels": pa.array(labels, type=lists),
            "truncated": pa.array(truncated),
        }
    )
    if places is not None:
        table = with_rows(table, *places)
    # From a table: `Dataset.map` would write a cache file beside the user's data.
    return Dataset(InMemoryTable(table))


def special_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that the tokenizer puts before a text (a beginning-of-sequence token)."""
    with_special = list(tokenizer("a")["input_ids"])
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    for at in range(len(with_special) - len(plain) + 1):
        if with_special[at : at + len(plain)] == plain:
            return with_special[:at]
    return []


def _perplexity(kept: np.ndarray, labels: np.ndarray) -> float:
    mean = kept[:, 0].sum(dtype=np.float64) / max(labels.sum(), 1)
    return float(np.exp(min(mean, _LARGEST)))


def _token_accuracy(kept: np.ndarray, labels: np.ndarray) -> float:
    return float(kept[:, 1].sum(dtype=np.float64) / max(labels.sum(), 1))


_METRICS = {
    "perplexity": Metric(
        _perplexity,
        MetricInfo(
            "perplexity",
            "among how many equally likely tokens the model wavers; lower is better",
            greater_is_better=False,
            low=1,
            hub="perplexity",
        ),
    ),
    "token_accuracy": Metric(
        _token_accuracy,
        MetricInfo(
            "token accuracy",
            "share of tokens that the model held for the likeliest",
            low=0,
            high=1,
        ),
    ),
}

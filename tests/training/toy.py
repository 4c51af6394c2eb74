"""A tiny classification problem that real training can solve, built in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch.nn import Parameter
from transformers import BertConfig, BertForSequenceClassification

from lorafit.config import Config, DataConfig
from lorafit.data.batches import Example
from lorafit.engine.eager import EagerEngine
from lorafit.evidence import MetricInfo
from lorafit.run import RunWriter
from lorafit.tasks.base import Task
from lorafit.tasks.parts.metrics import Metric
from lorafit.training.learner import Learner
from lorafit.training.loop import FitResult, fit
from lorafit.training.seed import seed_everything

VOCABULARY = 40
NO_TOKENIZER: Any = None


class ToyTask(Task):
    """Labels say whether the first token is a low one; there is no text and no tokenizer."""

    name: ClassVar[str] = "toy"
    task_type: ClassVar[str] = "SEQ_CLS"
    auto_model: ClassVar[type] = BertForSequenceClassification
    metric: str = "accuracy"
    greater_is_better: ClassVar[bool] = True

    @classmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> Task:
        raise NotImplementedError

    def model_kwargs(self) -> dict[str, Any]:
        return {"num_labels": 2}

    def encode(self, rows: Dataset, tokenizer: Any, max_length: int) -> Dataset:
        raise NotImplementedError

    def collate(self, examples: Sequence[Example], tokenizer: Any) -> dict[str, torch.Tensor]:
        width = max(len(example["input_ids"]) for example in examples)
        ids = torch.zeros(len(examples), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(examples):
            size = len(example["input_ids"])
            ids[row, :size] = torch.tensor(example["input_ids"])
            mask[row, :size] = 1
        labels = torch.tensor([example["labels"] for example in examples])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")

    @property
    def metrics(self) -> dict[str, Metric]:
        info = MetricInfo("accuracy", "right answers", low=0, high=1)
        return {"accuracy": Metric(lambda x, y: float((x.argmax(-1) == y).mean()), info)}

    def decode(self, logits: Any, encoded: Any = None, rows: Any = None) -> list[dict[str, Any]]:
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        return cls()


def examples(n: int, seed: int = 0) -> Dataset:
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        ids = random.integers(2, VOCABULARY, size=random.integers(3, 12)).tolist()
        rows.append(
            {
                "input_ids": ids,
                "labels": int(ids[0] < VOCABULARY / 2),
                "truncated": False,
            }
        )
    return Dataset.from_list(rows)


def bert(seed: int = 0, dropout: float = 0.1) -> BertForSequenceClassification:
    sizes: dict[str, Any] = {
        **{"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_labels": 2},
        **{"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16},
        **{"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout},
    }
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**sizes))


def train_some(model: BertForSequenceClassification) -> dict[str, Parameter]:
    """Makes the queries, the feed-forward layers and the head trainable."""
    wanted = ("query", "intermediate", "classifier", "pooler", "LayerNorm")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(word in name for word in wanted))
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def config(seed: int = 0, **train: Any) -> Config:
    defaults = {
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-3,
        "num_train_epochs": 2,
        "logging_steps": 2,
    }
    return Config.model_validate(
        {
            "model": {"name_or_path": "toy/bert"},
            "data": {"path": "toy"},
            "seed": seed,
            "train": defaults | train,
        }
    )


def engine(model: BertForSequenceClassification, **options: Any) -> EagerEngine:
    return EagerEngine(model, ToyTask(), NO_TOKENIZER, **options)


def run_fit(
    config: Config, run: RunWriter | None = None, *, n: int = 64, **options: Any
) -> tuple[FitResult, dict[str, Parameter]]:
    """Trains on ``n`` examples; ``options`` replace parts of the learner or go to `fit`."""
    seed_everything(config.seed)
    model = options.pop("model", None) or bert()
    trainable = options.pop("trainable", None) or train_some(model)
    learner = Learner(
        options.pop("engine", None) or engine(model),
        model,
        ToyTask(),
        trainable,
        examples(n),
        options.pop("validation", examples(32, seed=1)),
    )
    return fit(learner, config, run, **options), trainable


def weights(trainable: dict[str, Parameter]) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainable.items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)

"""A task whose right rank is known: imitate a teacher that is the base plus a planted update.

The teacher is MiniLM with an update of rank ``k`` on query and value of every block, as
large as a third of the weights. Base and teacher share a frozen random head of 64 outputs,
scaled so that their mean squared difference is 1: the loss is the student's relative error,
1 before training and 0 for the teacher itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import transformers as hf
from datasets import Dataset, DatasetDict

from benchmarks.tuning.reviews import carved
from lorafit.config import DataConfig
from lorafit.data.columns.values import column_values
from lorafit.evidence import MetricInfo
from lorafit.packaged import MODEL
from lorafit.paths import resolve
from lorafit.tasks import tasks
from lorafit.tasks.parts.metrics import Metric
from lorafit.tasks.parts.texts import TextTask

OUTPUTS, SIZE = 64, 1 / 3


class Planted(TextTask):
    """64 numbers a text; the loss is their mean squared error."""

    name: ClassVar[str] = "planted"
    task_type: ClassVar[str] = "SEQ_CLS"
    auto_model: ClassVar[type] = hf.AutoModelForSequenceClassification
    metric: str = "fidelity"
    loss_name: ClassVar[str] = "mse"
    needs: ClassVar[str] = "the teacher's outputs"

    @classmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> Planted:
        return cls(["text"], "label")

    def model_kwargs(self) -> dict[str, Any]:
        return {"num_labels": OUTPUTS}

    @property
    def outputs(self) -> int:
        return OUTPUTS

    def read_labels(self, rows: Dataset) -> tuple[np.ndarray, np.ndarray]:
        values = np.array(column_values(rows, "label"), dtype=np.float32)
        return values, np.ones(len(values), dtype=bool)

    def unknown(self, count: int) -> np.ndarray:
        return np.full((count, OUTPUTS), np.nan, dtype=np.float32)

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits.float() - labels.float()).square().mean(-1)

    @property
    def metrics(self) -> dict[str, Metric]:
        return {"fidelity": Metric(_fidelity, MetricInfo("fidelity", high=1))}

    def decode(self, logits: Any, encoded: Any = None, rows: Any = None) -> list[dict[str, Any]]:
        return [{"value": row.tolist()} for row in logits]

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Planted:
        return cls(["text"], "label")


@cache
def plant(k: int, texts: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[str, DatasetDict]:
    """The base with its head in a folder, and the teacher's outputs for texts of each split."""
    if Planted.name not in tasks:  # registered where it is wanted only: it is nobody's task
        tasks.register(Planted.name)(Planted)
    folder = tempfile.mkdtemp(prefix=f"planted-{k}-")
    source = str(resolve(MODEL))
    torch.manual_seed(k)
    tokenizer = hf.AutoTokenizer.from_pretrained(source)
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = hf.AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=OUTPUTS, **off
    ).eval()
    head = model.classifier
    with torch.no_grad():
        head.weight.copy_(torch.linalg.qr(torch.randn(head.in_features, OUTPUTS))[0].T)
        head.bias.zero_()
    base = {name: answers(model, tokenizer, split) for name, split in texts}
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for path, layer in model.named_modules():
            if path.endswith((".query", ".value")):
                d_out, d_in = layer.weight.shape
                update = torch.randn(d_out, k) @ torch.randn(k, d_in)
                layer.weight += update * SIZE * layer.weight.norm() / update.norm()
    taught = {name: answers(model, tokenizer, split) for name, split in texts}
    scale = float((taught["train"] - base["train"]).square().mean().sqrt())
    model.load_state_dict(kept)
    with torch.no_grad():
        head.weight /= scale
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rows = {
        name: Dataset.from_dict(
            {"text": list(split), "label": (taught[name] / scale).double().tolist()}
        )
        for name, split in texts
    }
    return folder, DatasetDict(rows)


@torch.no_grad()
def answers(model: Any, tokenizer: Any, texts: tuple[str, ...]) -> torch.Tensor:
    """Logits ``(n, OUTPUTS)``."""
    parts = [texts[i : i + 64] for i in range(0, len(texts), 64)]
    return torch.cat(
        [model(**tokenizer(list(p), padding=True, return_tensors="pt")).logits for p in parts]
    )


def reviews(folder: Path | None, rows: dict[str, int]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Texts of the reviews, one group a split."""
    splits = carved(folder, where=None if folder else "category != 'plot'")
    return tuple((name, tuple(splits[name]["text"][:count])) for name, count in rows.items())


def _fidelity(logits: np.ndarray, labels: np.ndarray) -> float:
    return 1 - float(((logits - labels) ** 2).mean())

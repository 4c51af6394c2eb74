"""One number per text, or per pair of texts: a score, a similarity, a price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import scipy
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Value

from lorafit.config import DataConfig
from lorafit.data.columns.choose import choose_columns, described, label_columns
from lorafit.data.columns.labelled import find_label, find_labels
from lorafit.data.columns.values import column_values, features_of
from lorafit.data.findings import Findings
from lorafit.data.read.splits import train_rows
from lorafit.errors import DataError
from lorafit.evidence import MetricInfo
from lorafit.evidence.json import Json
from lorafit.tasks import tasks
from lorafit.tasks.base import Fit, ModelKind
from lorafit.tasks.parts.answers import Predicted
from lorafit.tasks.parts.constant import Constant
from lorafit.tasks.parts.labels import named_head
from lorafit.tasks.parts.metrics import Metric
from lorafit.tasks.parts.texts import TextTask

FAR = 10.0
"""Numbers whose mean or spread is beyond this are far from what a fresh head says (near 0)."""


@tasks.register("regression")
class Regression(TextTask):
    """Predicts a number; the loss is its squared error, as transformers' regression has it.

    The head's output is the number itself, in the units of the data, so that the merged model
    needs nothing of ours to be read.

    Attributes:
        label: The column of numbers.
    """

    name: ClassVar[str] = "regression"
    metric: str = "spearman"
    loss_name: ClassVar[str] = "mse"
    loss_info: ClassVar[MetricInfo] = MetricInfo(
        "mean squared error",
        "mean squared error, in squared units of the label; lower is better",
        greater_is_better=False,
        low=0,
        hub="mse",
    )
    reading: ClassVar[Sequence[str]] = (
        "with torch.no_grad():",
        "    print(model(**inputs).logits[0].item())",
    )
    needs: ClassVar[str] = "a text column (or two) and a column of numbers with fractions"

    label: str

    @classmethod
    def fits(cls, rows: Dataset, config: DataConfig, model: ModelKind) -> Fit | None:
        """Text, and numbers that are no classes."""
        if len(label_columns(config.label)) > 1:
            return None
        found = find_label(rows, config, "numbers")
        return (
            None
            if found is None
            else Fit(f"text, and numbers with fractions in {found.column}", found.certain)
        )

    @classmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> Regression:
        """Chooses the columns; what is guessed is said.

        Args:
            splits: At least ``train``.
            config: ``text`` and ``label``; ``None``: guess.

        Raises:
            DataError: No column holds numbers, or all of them are the same.
        """
        rows = train_rows(splits)
        label, why = _number_column(rows, config)
        findings = Findings()
        columns = choose_columns(splits, config.text, label, check=_check_numbers)
        findings.note(str(columns))
        values = np.array(column_values(rows, label), dtype=np.float64)
        values = values[np.isfinite(values)]
        if len(values) == 0 or values.min() == values.max():
            what = "none" if len(values) == 0 else f"all of them are {values[0]:g}"
            raise DataError(
                f'column "{label}" has one number only in the training rows: {what}. '
                "Choose another label column (label) or keep more rows (where)."
            )
        spread = f"mean {values.mean():.3g}, standard deviation {values.std():.3g}"
        findings.note(f"numbers to predict: {values.min():g} to {values.max():g}, {spread}")
        size = max(abs(values.mean()), values.std())
        if size > FAR:
            findings.warn(
                f'the numbers of column "{label}" are far from 0 ({spread}), where training '
                f"starts; scale them to about 1 (divide by {size:.3g}) or train longer"
            )
        task = cls(columns.text, label)
        task.findings = findings
        task.reasons = {"text": columns.text_reason, "label": why}
        return task

    def model_kwargs(self) -> dict[str, Any]:
        """One output, named after the column."""
        return named_head([self.label]) | {"problem_type": "regression"}

    @property
    def outputs(self) -> int:
        """The number."""
        return 1

    def read_labels(self, rows: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """The numbers, ``(n,)`` float32."""
        _check_numbers(rows, self.label)
        values = np.array(column_values(rows, self.label), dtype=np.float32)
        return values, np.isfinite(values)

    def unknown(self, count: int) -> np.ndarray:
        """NaN, ``(count,)``."""
        return np.full(count, np.nan, dtype=np.float32)

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Squared error of each example, float32; 0 where the number is not known.

        Args:
            logits: ``(n, 1)``, any float type.
            labels: ``(n,)``, float32.
        """
        known = labels.isfinite()
        error = logits.float().squeeze(-1) - labels.float().where(known, 0.0)
        return (error * known) ** 2

    @property
    def metrics(self) -> dict[str, Metric]:
        """Spearman's and Pearson's correlation, root of the mean squared error, R squared."""
        return dict(_METRICS)

    def predicted(
        self, outputs: np.ndarray | Sequence[np.ndarray], labels: np.ndarray, encoded: Dataset
    ) -> Predicted | None:
        """The numbers; none is simply right or wrong, or has a probability."""
        values = np.asarray(outputs, dtype=np.float64)
        return Predicted(labels=labels.astype(np.float64).tolist(), answers=values[:, 0].tolist())

    def constant(self, encoded: Dataset) -> Constant:
        """The mean."""
        labels = np.array(encoded["labels"], dtype=np.float32)
        mean = float(labels.mean())
        return Constant(f"the mean, {mean:.3g}", np.full((len(labels), 1), mean))

    def decode(
        self,
        logits: Sequence[np.ndarray] | np.ndarray,
        encoded: Dataset | None = None,
        rows: Dataset | None = None,
    ) -> list[Json]:
        """The number of each example."""
        return [{"value": float(row[0])} for row in np.asarray(logits, dtype=np.float64)]


def _number_column(rows: Dataset, config: DataConfig) -> tuple[str, str]:
    """The column of numbers, and why it is."""
    asked = label_columns(config.label)
    if len(asked) > 1:
        raise DataError(f"regression predicts one number; got {len(asked)} label columns.")
    if asked:
        return asked[0], "as asked"
    found = find_labels(rows, config)
    numbers = [labels.column for labels in found if labels.holds == "numbers"]
    if not numbers:  # asked for with --task: whole numbers will do
        numbers = [
            labels.column for labels in found if _is_number(features_of(rows)[labels.column])
        ]
    if len(numbers) != 1:
        which = f"{', '.join(numbers)} could all be" if numbers else "none is"
        raise DataError(
            f"which column holds the number to predict is not clear: {which}. There are "
            f"{described(rows)}. Choose one with --label."
        )
    return numbers[0], "numbers"


def _is_number(feature: Any) -> bool:
    dtype = str(getattr(feature, "dtype", ""))
    plain = isinstance(feature, Value) and not isinstance(feature, ClassLabel)
    return plain and dtype.startswith(("int", "uint", "float"))


def _check_numbers(rows: Dataset, name: str) -> None:
    """Refuses a column of something else than numbers.

    Raises:
        DataError: It holds something else.
    """
    if not _is_number(features_of(rows)[name]):
        seen = next((v for v in column_values(rows, name) if v is not None), None)
        raise DataError(
            f'column "{name}" (label) holds no numbers (such as {seen!r}). Regression predicts '
            "numbers; for classes set --task sequence_classification."
        )


# Without scipy's tests of significance and scikit-learn's checks: the bootstrap calls each
# thousands of times.


def _spearman(logits: np.ndarray, labels: np.ndarray) -> float:
    return _correlation(scipy.stats.rankdata(logits[:, 0]), scipy.stats.rankdata(labels))


def _pearson(logits: np.ndarray, labels: np.ndarray) -> float:
    return _correlation(logits[:, 0].astype(np.float64), labels.astype(np.float64))


def _correlation(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's, 0 where one side is constant and there is none."""
    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    one, other = predicted - predicted.mean(), labels - labels.mean()
    found = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.clip(found, -1.0, 1.0))


def _squares(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    squares: np.ndarray = (labels.astype(np.float64) - logits[:, 0]) ** 2
    return squares


def _rmse(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.sqrt(_squares(logits, labels).mean()))


def _r2(logits: np.ndarray, labels: np.ndarray) -> float:
    if not np.ptp(labels):
        return 0.0
    return float(1.0 - _squares(logits, labels).mean() / labels.astype(np.float64).var())


_METRICS = {
    "spearman": Metric(
        _spearman,
        MetricInfo(
            "Spearman correlation",
            "whether the order is right: 0 is guessing, 1 is perfect",
            low=-1,
            high=1,
            hub="spearmanr",
        ),
    ),
    "pearson": Metric(
        _pearson,
        MetricInfo(
            "Pearson correlation",
            "whether the numbers lie on a line with the true ones; 1 is perfect",
            low=-1,
            high=1,
            hub="pearsonr",
        ),
    ),
    "rmse": Metric(
        _rmse,
        MetricInfo(
            "root mean squared error",
            "typical error, in the units of the label; lower is better",
            greater_is_better=False,
            low=0,
        ),
    ),
    "r2": Metric(
        _r2,
        MetricInfo("R²", "share of the label's variance that is explained; 1 is perfect", high=1),
    ),
}

"""How a metric is spoken of: its name, its numbers, which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lorafit.report import units
from lorafit.report.folder import mapping
from lorafit.report.units import Format, is_number

Verdict = Literal["better", "worse", "unclear", "unknown"]

_TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "f1": "F1",
    "mcc": "Matthews correlation",
    "spearman": "Spearman correlation",
    "pearson": "Pearson correlation",
    "rmse": "Root mean squared error",
    "mse": "Mean squared error",
    "r2": "R²",
    "nll": "Negative log-likelihood",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "eval_loss": "Validation loss",
}
_NOTES = {
    "accuracy": "share of examples labelled correctly",
    "macro_f1": "mean over the labels of F1, which balances misses and false alarms; 1 is perfect",
    "micro_f1": "F1 over all decisions at once, which frequent labels rule; 1 is perfect",
    "exact_match": "share of examples of which everything is right",
    "mcc": "agreement with the labels beyond chance: 0 is guessing, 1 is perfect",
    "spearman": "whether the order is right: 0 is guessing, 1 is perfect",
    "pearson": "whether the numbers lie on a line with the true ones; 1 is perfect",
    "rmse": "typical error, in the units of the label; lower is better",
    "mse": "mean squared error, in squared units of the label; lower is better",
    "r2": "share of the label's variance that is explained; 1 is perfect",
    "nll": "how surprised the model is by the truth, in nats per example, or per token of text; "
    "lower is better",
    "perplexity": "among how many equally likely tokens the model wavers; lower is better",
    "rouge_l": "longest run of words in common with the right answer, as F measure; 1 is perfect",
    "bleu": "word sequences in common with the right answer (sacreBLEU, 0 to 100)",
    "token_accuracy": "share of tokens that the model held for the likeliest",
}
_SHARES = {"accuracy", "exact_match"}
_LOWER = {"nll", "loss", "perplexity", "mse", "rmse", "mae", "brier", "ece"}


def title(name: str) -> str:
    """``macro_f1`` to ``Macro F1``."""
    return _TITLES.get(name, name.replace("_", " "))


def note(name: str) -> str:
    """What it means, for a reader who does not know; ``""`` for metrics we do not know."""
    return _NOTES.get(name, "")


def is_share(name: str) -> bool:
    """Whether it counts examples that are right."""
    return name in _SHARES


def lower_is_better(name: str) -> bool:
    """Whether a smaller number is the better one."""
    return name in _LOWER or name.endswith(("_loss", "_error"))


def value_format(name: str) -> Format:
    """How its values are written."""
    return units.percent if is_share(name) else units.decimals


def tick_format(name: str) -> Format:
    """How round values of it are written on an axis."""
    return units.level if is_share(name) else units.general


def difference_format(name: str) -> Format:
    """How differences of it are written."""
    return units.signed(units.points if is_share(name) else units.decimals)


@dataclass(frozen=True)
class Interval:
    """A number and the interval around it.

    Attributes:
        value: The estimate, ``None`` if unknown.
        low: Lower end, ``None`` if unknown.
        high: Upper end.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def read(cls, content: Any, key: str = "value") -> Interval:
        """From ``{"value": ..., "low": ..., "high": ...}``, or a bare number."""
        if is_number(content):
            return cls(content)
        numbers = [mapping(content).get(name) for name in (key, "low", "high")]
        value, low, high = (n if is_number(n) else None for n in numbers)
        return cls(value, low, high)

    @property
    def complete(self) -> bool:
        """Whether both ends are known."""
        return self.value is not None and self.low is not None and self.high is not None


def verdict(name: str, difference: Interval) -> Verdict:
    """Whether tuned is better than base, as far as the interval tells."""
    if difference.low is None or difference.high is None:
        return "unknown"
    if difference.low <= 0 <= difference.high:
        return "unclear"
    return "better" if (difference.low > 0) != lower_is_better(name) else "worse"

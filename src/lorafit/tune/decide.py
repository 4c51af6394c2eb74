"""The statistics of choosing: is one state better than another on the same examples?

Losses of two states on the same examples go together, so their difference has a far
smaller error than either mean: everything is decided on paired per-example losses. Before
that they are freed of a common scale of the logits (`sharpened`), which the end of the
search corrects anyway, and which would drown what differs otherwise.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import scipy
import torch

from lorafit.evaluation.intervals import mean_interval
from lorafit.evaluation.score import Scores
from lorafit.evidence import Interval
from lorafit.tasks.base import Task

SHARPNESS = (0.05, 20.0)
"""Where the factor of the logits is searched."""


@dataclass(frozen=True)
class Gain(Interval):
    """How much lower the loss of B is than that of A, paired: nats per example.

    Attributes:
        se: Standard error.
    """

    se: float = math.nan

    def __format__(self, spec: str) -> str:
        """As reasons show it where nothing else is asked for: four digits and the sign."""
        return super().__format__(spec or "+.4f")

    @property
    def mean(self) -> float:
        """Nats per example; positive: B is better."""
        return self.value

    @property
    def pays(self) -> bool:
        """Whether the gain exceeds one standard error: worth going on."""
        return self.mean > self.se

    @property
    def certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.excludes(0.0)

    @property
    def change(self) -> str:
        """How the loss changes from A to B, with its interval, for reasons; minus is better."""
        return f"{-self.mean:+.4f} [{-self.high:+.4f}, {-self.low:+.4f}]"

    def below(self, margin: float) -> bool:
        """Whether the gain is certainly below a margin: then B is not needed."""
        return self.high < margin

    def not_worse(self, margin: float) -> bool:
        """Whether B is at most ``margin`` worse than A (non-inferiority)."""
        return self.low > -margin

    def to_dict(self) -> dict[str, float]:
        """JSON values."""
        values = {"mean": self.value, "se": self.se, "low": self.low, "high": self.high}
        more = {"n": self.n, "confidence": self.level}
        return values | {name: value for name, value in more.items() if value is not None}

    def __str__(self) -> str:
        return f"{self:+.4f}"


def gain(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Gain:
    """The paired gain of going from A to B.

    Args:
        a: Losses of A, ``(n,)``, nats.
        b: Losses of B on the same examples.
        confidence: Level of Student's interval.

    Raises:
        ValueError: The two are not of the same examples, or there are fewer than two.
    """
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"a paired gain needs two equally long rows, got {a.shape}, {b.shape}")
    difference = a.astype(np.float64) - b.astype(np.float64)
    se = float(scipy.stats.sem(difference))
    return Gain(**asdict(mean_interval(difference, confidence)), se=se)


def sharpened(scores: Scores, task: Task) -> tuple[np.ndarray, float]:
    """The losses at the best common factor of the logits, and that factor.

    Temperature scaling (Guo et al. 2017, arXiv 1706.04599) with factor ``1 / T``. Only for
    classification: elsewhere a factor of the logits means something else, and the losses are
    returned as they are.

    Returns:
        ``(n,)`` nats, and the factor.
    """
    if not _has_temperature(scores, task):
        return scores.losses, 1.0
    best = scipy.optimize.minimize_scalar(
        lambda x: float(at_sharpness(scores, task, math.exp(x)).mean()),
        bounds=tuple(map(math.log, SHARPNESS)),
        method="bounded",
    )
    factor = math.exp(best.x)
    return at_sharpness(scores, task, factor), factor


def at_sharpness(scores: Scores, task: Task, factor: float) -> np.ndarray:
    """The losses with the logits times a factor, ``(n,)`` nats; where one means something."""
    if not _has_temperature(scores, task):
        return scores.losses
    logits, labels = torch.from_numpy(scores.logits), torch.from_numpy(scores.labels)
    found: np.ndarray = task.losses(logits * factor, labels).double().numpy()
    return found


def _has_temperature(scores: Scores, task: Task) -> bool:
    one_label = task.task_type == "SEQ_CLS" and scores.labels.ndim == 1
    return task.loss_name == "nll" and one_label and scores.logits.ndim == 2


def vertex(x: np.ndarray, y: np.ndarray) -> float | None:
    """Where the parabola through three or more points has its minimum.

    Returns:
        ``None``: it opens downwards, or the points do not determine one.
    """
    if len(x) < 3:
        return None
    curvature, slope, _ = np.polyfit(x, y, 2)
    return None if curvature <= 0 else float(-slope / (2 * curvature))

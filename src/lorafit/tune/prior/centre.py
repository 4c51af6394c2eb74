"""Where the first rates of a search are, by what earlier searches found.

The logarithm of the best rate over the usual one is a Gaussian process with mean zero: without
lines, or with none that is near, the usual rate is taken as it is. Its posterior mean (Rasmussen &
Williams 2006, Gaussian Processes for Machine Learning, equation 2.25) weighs the lines by how near
they are, and what all of them say against the usual rate by how many there are:

    k(a, b) = SPREAD^2 exp(-1/2 sum of (log(a_i / b_i) / LENGTHS_i)^2),
    mean    = k(here, lines) (K + NOISE^2 I)^-1 log(best / usual).

Lines of another task, method or set of modules are not near at all. The usual rate is scaled with
the batch already, so batches need no term of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lorafit.data.batches import lengths
from lorafit.evidence.json import Json
from lorafit.evidence.measurements import Begun
from lorafit.run import Choice
from lorafit.tune.base import Found
from lorafit.tune.bench.bench import Bench
from lorafit.tune.bench.journal import Entry
from lorafit.tune.prior.lessons import Lesson, Situation, told

SPREAD = math.log(2)
"""By how much the usual rate is off, as a standard deviation of the logarithm."""
NOISE = math.log(2) / 2
"""The same of what a search finds: half the distance between the rates it tries."""
LENGTHS = {
    "parameters": math.log(8),
    "classes": math.log(4),
    "tokens": math.log(8),
    "alpha": math.log(4),
}
"""Over which the best rate may become another one, as logarithms."""
MOST = math.log(8)
"""The first rates are never further from the usual ones than this."""
NEAREST = 256
"""Lines that are looked at."""
NEAR = 0.1
"""Share of `SPREAD` squared from which a line counts as near, in words."""

ENTRY = "prior"
"""Name of the journal's entry."""


@dataclass(frozen=True)
class Centre:
    """Where the first rates are.

    Attributes:
        learning_rate: The middle one.
        usual: What it would be without a prior.
        weight: Share of the usual rate's uncertainty that the lines take away, 0 to 1.
        near: How many lines are near.
    """

    learning_rate: float
    usual: float
    weight: float = 0.0
    near: int = 0

    @property
    def evidence(self) -> Begun:
        """As ``choices.json`` has it."""
        return {
            "learning_rate": self.learning_rate,
            "usual": self.usual,
            "weight": self.weight,
            "near": self.near,
        }

    @property
    def said(self) -> str:
        """For a reason; empty where no line is near."""
        if not self.near:
            return ""
        runs = "1 earlier run" if self.near == 1 else f"{self.near:,} earlier runs"
        return (
            f"; the trials began around {self.learning_rate:.2g} because of {runs} of yours "
            f"(weight {self.weight:.2f}), without them around {self.usual:.2g}"
        )


def similarity(a: Situation, b: Situation) -> float:
    """How much two searches have to say to each other, 0 to 1."""
    if (a.task, a.method, a.modules) != (b.task, b.method, b.modules):
        return 0.0
    squares = 0.0
    for name, length in LENGTHS.items():
        one, other = getattr(a, name), getattr(b, name)
        if (one is None) != (other is None):
            return 0.0
        if one is not None:
            squares += ((math.log(one) - math.log(other)) / length) ** 2
    return math.exp(-squares / 2)


def centred(usual: float, here: Situation, lessons: Sequence[Lesson]) -> Centre:
    """The centre of the first rates.

    Args:
        usual: Without lines.
        here: What is to be trained.
        lessons: The lines.
    """
    nearest = sorted(told(lessons), key=lambda line: -similarity(here, line))[:NEAREST]
    shared = np.array([similarity(here, line) for line in nearest])
    if not shared.any():
        return Centre(usual, usual)
    among = np.array([[similarity(a, b) for b in nearest] for a in nearest])
    noise = (NOISE / SPREAD) ** 2 * np.eye(len(nearest))
    weights = np.linalg.solve(among + noise, shared)
    offset = float(np.clip(weights @ [_offset(line) for line in nearest], -MOST, MOST))
    weight, near = float(weights @ shared), int((shared >= NEAR).sum())
    return Centre(usual * math.exp(offset), usual, weight, near)


def _offset(lesson: Lesson) -> float:
    """Logarithm of the best rate over the usual one; of a line that says so."""
    assert lesson.best is not None
    return max(-MOST, min(MOST, math.log(lesson.best) - math.log(lesson.usual)))


def situation(bench: Bench) -> Situation:
    """What a search trains, before its first step."""
    settings = bench.config.train
    own = bench.tunable.shape.settings
    head = bench.task.model_kwargs()
    tokens = lengths(bench.train_set)
    modules = bench.config.adapter.settings.get("target_modules")
    width = getattr(bench.subject.model.config, "hidden_size", None)
    ranked = "r" in own and "lora_alpha" in own
    r = int(own["r"]) if ranked else 1
    return Situation(
        task=bench.task.name,
        method=bench.config.adapter.method,
        modules=modules if modules is None or isinstance(modules, str) else tuple(sorted(modules)),
        alpha=own["lora_alpha"] / bench.tunable.size(r) * r if ranked else None,
        parameters=bench.ledger.parameters,
        hidden_size=width if isinstance(width, int) else None,
        classes=len(head["id2label"]) if "id2label" in head else head.get("num_labels"),
        tokens=bench.ledger.unit.trained,
        tokens_per_row=sum(tokens) / len(tokens),
        batch_size=settings.per_device_train_batch_size * settings.gradient_accumulation_steps,
        epochs=bench.total_steps / bench.plan.steps_per_epoch,
    )


def first(bench: Bench, usual: float) -> Centre:
    """The centre of a search's first rates; noted, so that a resumed search asks no file again.

    Args:
        bench: Has the lines; ``None``: there is no prior.
        usual: Without lines.
    """
    lessons = bench.prior
    if lessons is None:
        return Centre(usual, usual)

    def work() -> Entry:
        return Entry(ENTRY, {"centre": asdict(centred(usual, situation(bench), lessons))})

    noted = bench.journal.once(ENTRY, work).facts["centre"]
    near = int(noted["near"])
    return Centre(noted["learning_rate"], noted["usual"], noted["weight"], near)


def lesson(bench: Bench, found: Found) -> Lesson | None:
    """What a finished search says to the next one; ``None``: it chose no rate."""
    choice = found.choices.get("learning_rate")
    if choice is None or bench.prior is None:
        return None
    usual = first(bench, bench.config.train.learning_rate).usual
    settings = found.values
    values: Json = situation(bench).model_dump() | {
        "usual": usual,
        "best": best_of(choice),
        "learning_rate": settings["train.learning_rate"],
        "r": settings.get("adapter.r"),
        "lora_alpha": settings.get("adapter.lora_alpha"),
        "cost": bench.ledger.runs(),
    }
    return Lesson.model_validate(values)


def best_of(choice: Choice) -> float | None:
    """The rate that trials found to be the best; ``None``: they could not tell."""
    evidence = choice.evidence
    if len(evidence.get("tried", [])) < 2 or evidence.get("flat"):
        return None
    after = evidence.get("best_after")
    return float(choice.value if after is None else after["learning_rate"])

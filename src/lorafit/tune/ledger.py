"""What choosing costs: tokens, floating-point operations and seconds of every phase.

The unit is U, one plain LoRA run with the user's number of epochs: every training token
once an epoch, and the evaluations such a run makes. Frozen weights have no gradient, so a
training token takes 4 N operations (2 N forward, 2 N for the gradient of the activations)
and an evaluated one 2 N; N counts the parameters outside the embeddings. The rank does not
enter: its share is below 1 %.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FORWARD, BACKWARD = 2, 2
"""Operations per parameter and token."""


@dataclass(frozen=True)
class Cost:
    """What something took.

    Attributes:
        trained: Real tokens that went forward and backward.
        evaluated: Real tokens that went forward only.
        time_s: Seconds.
    """

    trained: float = 0.0
    evaluated: float = 0.0
    time_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.trained + other.trained,
            self.evaluated + other.evaluated,
            self.time_s + other.time_s,
        )

    def flops(self, parameters: int) -> float:
        """Floating-point operations of a model with this many parameters in its blocks."""
        return parameters * ((FORWARD + BACKWARD) * self.trained + FORWARD * self.evaluated)


@dataclass
class Ledger:
    """Sums costs by phase.

    Attributes:
        parameters: Outside the embeddings.
        unit: One plain run.
        phases: Cost of each phase, in the order they began.
    """

    parameters: int
    unit: Cost
    phases: dict[str, Cost] = field(default_factory=dict)

    def add(self, phase: str, cost: Cost) -> None:
        """Counts something."""
        self.phases[phase] = self.phases.get(phase, Cost()) + cost

    @property
    def total(self) -> Cost:
        """Of all phases."""
        return sum(self.phases.values(), Cost())

    def runs(self, cost: Cost | None = None) -> float:
        """A cost in U; ``None``: the total."""
        whole = (cost or self.total).flops(self.parameters)
        return whole / max(self.unit.flops(self.parameters), 1.0)

    def time_runs(self) -> float:
        """The total in U by the clock: how long a plain run would take at the speeds measured.

        Only operations are predicted by the ledger; this checks it against the time.
        """
        unit_s = self.unit_time_s()
        return self.total.time_s / unit_s if unit_s else 0.0

    def unit_time_s(self) -> float:
        """Seconds of one plain run: training as fast as the trunk, evaluating as fast as here.

        An evaluated token takes less than half the time of a trained one where the batches of
        training are small, so the two speeds are measured apart; where only one kind of work was
        done, by the operations.
        """
        trunk = self.phases.get("trunk", Cost())
        scoring = sum((cost for cost in self.phases.values() if not cost.trained), Cost())
        if trunk.trained and scoring.evaluated:
            training_s = self.unit.trained * trunk.time_s / trunk.trained
            return training_s + self.unit.evaluated * scoring.time_s / scoring.evaluated
        work = self.total.flops(self.parameters)
        return self.total.time_s * self.unit.flops(self.parameters) / work if work else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as in ``choices.json``."""
        return {
            "runs": self.runs(),
            "runs_by_the_clock": self.time_runs(),
            "flops": self.total.flops(self.parameters),
            "time_s": self.total.time_s,
            "phases": {
                name: {
                    "runs": self.runs(cost),
                    "trained_tokens": cost.trained,
                    "evaluated_tokens": cost.evaluated,
                    "time_s": cost.time_s,
                }
                for name, cost in self.phases.items()
            },
        }

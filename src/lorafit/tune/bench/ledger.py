"""What choosing costs: tokens, floating-point operations and seconds of every phase.

The unit is U, one plain LoRA run with the user's number of epochs: every training token
once an epoch, and the evaluations such a run makes. Frozen weights have no gradient, so a
training token takes 4 N operations (2 N forward, 2 N for the gradient of the activations)
and an evaluated one 2 N; N counts the parameters outside the embeddings. The adapter's own
factors have a gradient: 6 and 2 operations for each of their parameters, 2 % of a small run at
rank 8, but as much as all the rest where the rank has grown to the width of the layers.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field

from lorafit.evidence.training import ChoosingCost

FORWARD, BACKWARD, UPDATE = 2, 2, 2
"""Operations per parameter and token: output, gradient of the input, gradient of the weight."""


@dataclass(frozen=True)
class Cost:
    """What something took.

    Attributes:
        trained: Real tokens that went forward and backward.
        evaluated: Real tokens that went forward only.
        time_s: Seconds.
        trained_factors: ``trained`` times the parameters of the adapter's factors.
        evaluated_factors: ``evaluated`` times the same.
    """

    trained: float = 0.0
    evaluated: float = 0.0
    time_s: float = 0.0
    trained_factors: float = 0.0
    evaluated_factors: float = 0.0

    @classmethod
    def of(
        cls, trained: float = 0.0, evaluated: float = 0.0, time_s: float = 0.0, factors: int = 0
    ) -> Cost:
        """What tokens cost with an adapter whose factors have this many parameters."""
        return cls(trained, evaluated, time_s, trained * factors, evaluated * factors)

    def __add__(self, other: Cost) -> Cost:
        mine, others = astuple(self), astuple(other)
        return Cost(*(a + b for a, b in zip(mine, others, strict=True)))

    def flops(self, parameters: int) -> float:
        """Floating-point operations of a model with this many parameters in its blocks."""
        frozen = (FORWARD + BACKWARD) * self.trained + FORWARD * self.evaluated
        factors = (
            FORWARD + BACKWARD + UPDATE
        ) * self.trained_factors + FORWARD * self.evaluated_factors
        return parameters * frozen + factors

    @property
    def training(self) -> Cost:
        """The part of it that is training; without seconds."""
        return Cost(trained=self.trained, trained_factors=self.trained_factors)

    @property
    def evaluating(self) -> Cost:
        """The part of it that is evaluating; without seconds."""
        return Cost(evaluated=self.evaluated, evaluated_factors=self.evaluated_factors)


@dataclass
class Ledger:
    """Sums costs by phase.

    Attributes:
        parameters: Outside the embeddings, the adapter's not counted.
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
        scoring = sum((cost for cost in self.phases.values() if not cost.trained), Cost())
        trunk = self.phases.get("trunk", Cost())
        if trunk.trained and scoring.evaluated:
            return self._at_the_speed_of(trunk, self.unit.training) + self._at_the_speed_of(
                scoring, self.unit.evaluating
            )
        return self._at_the_speed_of(self.total, self.unit)

    def _at_the_speed_of(self, done: Cost, wanted: Cost) -> float:
        """Seconds, by the operations; 0 where nothing was done."""
        work = done.flops(self.parameters)
        return done.time_s * wanted.flops(self.parameters) / work if work else 0.0

    def to_dict(self) -> ChoosingCost:
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

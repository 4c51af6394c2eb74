"""What a comparison would cost, without training: each method is timed on the model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from lorafit import pipeline, quiet
from lorafit.comparison.fitting import Field
from lorafit.comparison.request import Request
from lorafit.comparison.search import TRIALS
from lorafit.evidence import markup
from lorafit.pipeline import planning
from lorafit.pipeline.job import Job
from lorafit.pipeline.problem import Live, Problem
from lorafit.settings import Settings
from lorafit.units import count, duration

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Forecast:
    """What one method would cost.

    Attributes:
        trainable_parameters: Adapter and head.
        steps: Optimizer steps of all its trainings together.
        time_s: Estimated seconds of all its trainings, evaluations included.
    """

    trainable_parameters: int
    steps: int
    time_s: float


@dataclass(frozen=True)
class ComparisonPlan:
    """What `lorafit compare --dry-run` shows.

    Attributes:
        methods: What each method would cost, in the order of their trainings.
        left_out: Why other methods do not fit.
        rows: Rows of each split.
        steps: Optimizer steps of one full run.
        trial_steps: Those of one trial of the search for a learning rate.
        seeds: Full runs of each method.
        noise: Methods that are also trained once on shuffled labels.
    """

    methods: dict[str, Forecast]
    left_out: dict[str, str]
    rows: dict[str, int]
    steps: int
    trial_steps: int
    seeds: int
    noise: tuple[str, ...] = ()

    @property
    def time_s(self) -> float:
        """Estimated seconds of all trainings."""
        return sum(found.time_s for found in self.methods.values())

    def __repr__(self) -> str:
        names = ", ".join(self.methods)
        return f"ComparisonPlan({names}; {self.seeds} seeds, about {duration(self.time_s)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the methods with their costs."""
        header, *rows = self.table()
        return markup.table("What a comparison would take", rows, header, self.sentence)

    @property
    def sentence(self) -> str:
        """How much is trained, and how long that takes."""
        runs = _many(self.seeds, "run")
        return (
            f"Each method: {TRIALS} trials of {_many(self.trial_steps, 'step')} for its learning "
            f"rate, then {runs} of {_many(self.steps, 'step')}; {self._noise}all trainings "
            f"together: about {duration(self.time_s)}, without loading, testing and measuring "
            "forgetting."
        )

    @property
    def _noise(self) -> str:
        """Who is also trained on shuffled labels, which is in its steps."""
        if not self.noise:
            return ""
        return f"{' and '.join(self.noise)} once more on shuffled labels; "

    def table(self) -> list[list[str]]:
        """The names of the columns, then a row a method."""
        return [
            ["method", "trainable parameters", "steps", "time"],
            *(
                [
                    name,
                    count(found.trainable_parameters),
                    count(found.steps),
                    f"about {duration(found.time_s)}",
                ]
                for name, found in self.methods.items()
            ),
        ]


def forecast(
    problem: Problem, field: Field, request: Request, settings: Settings, live: Live | None = None
) -> ComparisonPlan:
    """Times a few steps of each method; weights stay as they are, nothing is written.

    Args:
        problem: What is to be learned.
        field: Who takes part.
        request: What would be compared.
        settings: Of all.
        live: The model; ``None``: the one that the settings name.
    """
    model = settings.config.model
    found = {}
    for number, (method, entry) in enumerate(field.entries.items(), start=1):
        log.info("[%d/%d] timing %s", number, len(field.entries), method)
        config = request.run(method, entry.learning_rate, 0, request.steps, model)
        with quiet.saying_less("lorafit"):
            subject = pipeline.prepare(problem, config, live)
            job = Job(problem, subject, replace(settings, config=config))
            once = planning.estimate(job)
        if live is not None:
            subject.adapters.unload()
        steps = TRIALS * request.trial_steps
        steps += (request.seeds + (method in request.noise)) * request.steps
        found[method] = Forecast(
            once.trainable_parameters, steps, once.time_s * steps / request.steps
        )
    rows = {name: len(split) for name, split in problem.splits.items()}
    noise = tuple(method for method in found if method in request.noise)
    return ComparisonPlan(
        found, field.left_out, rows, request.steps, request.trial_steps, request.seeds, noise
    )


def _many(number: int, what: str) -> str:
    return f"{count(number)} {what}{'s' * (number != 1)}"

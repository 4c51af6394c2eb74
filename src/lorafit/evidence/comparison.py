"""``compare.json``: what several methods came to on an equal footing."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal, Required

from pydantic import BaseModel, ConfigDict, Field, with_config

# pydantic reads this one; on Python 3.11 not typing's.
from typing_extensions import TypedDict

from lorafit.evidence.evaluation import Described
from lorafit.evidence.interval import Measured, Number
from lorafit.evidence.json import Json
from lorafit.evidence.metric import MetricInfo
from lorafit.evidence.record import Record
from lorafit.evidence.training import MORE
from lorafit.machine.environment import Environment

Standing = Literal["better", "not worse", "worse", "cannot tell"]
"""What the interval of a difference to a reference says."""

LEARNED_NOTHING = "learned nothing"
"""What is said of a method that is not better than an answer that needs no training."""


@with_config(MORE)
class Trial(TypedDict, total=False):
    """A learning rate that was tried, and what that cost.

    Attributes:
        learning_rate: Which.
        steps: For how many steps.
        validation_loss: The lowest; ``None``: it diverged.
        diverged: In what way; left out: it did not.
        time_s: Seconds of the training.
        cpu_s: Processor seconds of the training, of all threads.
        tokens_per_s: Real tokens a second.
        peak_memory_bytes: Of the process.
    """

    learning_rate: Required[Number]
    steps: Number
    validation_loss: Required[Number | None]
    diverged: str
    time_s: Number
    cpu_s: Number
    tokens_per_s: Number
    peak_memory_bytes: Number


@with_config(MORE)
class Ranks(TypedDict, total=False):
    """How many directions an update uses: medians over its weights.

    Attributes:
        weights: How many there are.
        full_rank: Directions there are.
        norm: Of the update.
        stable_rank: All of the energy in units of the strongest direction's.
        entropy_rank: By the entropy of the energies.
        r90: The fewest directions that hold 90 % of the energy.
        r99: The same for 99 %.
        above_noise: Directions that the update on shuffled labels does not have.
    """

    weights: Number
    full_rank: Number
    norm: Number
    stable_rank: Number
    entropy_rank: Number
    r90: Number
    r99: Number
    above_noise: Number


@with_config(MORE)
class Redundancy(Ranks, total=False):
    """The ranks of a method's update.

    Attributes:
        shuffled: Those of its update on shuffled labels.
    """

    shuffled: Ranks


class Rows(TypedDict):
    """What is known of the rows of a split.

    Attributes:
        rows: How many there are.
        sha256: Their hash.
    """

    rows: int
    sha256: str


@with_config(MORE)
class Requested(TypedDict, total=False):
    """What was asked for; see `lorafit.comparison.request.Request`."""

    config: Json
    arms: dict[str, Json]
    rates: dict[str, Number]
    seeds: Required[int]
    budget: Number
    steps: int
    trial_steps: int
    noise: list[str]
    task: Json
    parameters: int
    base: str
    data: dict[str, Rows]
    general: str
    text_length: int
    identity: Json | None
    saved: dict[str, str] | None


class Arm(BaseModel):
    """What one method came to: means over its runs where nothing else is said."""

    model_config = ConfigDict(frozen=True)

    family: str
    """Of the method: selective, additive, reparametrization, or a yardstick."""
    learning_rate: float
    """The best of those it tried."""
    rate_at_edge: bool
    """Whether that was the first or the last of them: a better one may lie beyond."""
    trials: list[Trial] = Field(default_factory=list)
    """Each rate that was tried, with its loss and cost."""
    engine: str = ""
    """Which engine trained."""
    trainable_parameters: int
    """Numbers that were trained."""
    share: float
    """Those, of all parameters."""
    metric: Measured
    """The headline metric on the test split."""
    loss: Measured | None = None
    """The mean loss on the test split."""
    by_seed: list[float] = Field(default_factory=list)
    """The headline metric of each run."""
    time_s: float
    """Seconds of a training."""
    cpu_s: float
    """Processor seconds of a training, of all threads."""
    search_cpu_s: float = 0.0
    """Processor seconds of the search for the rate."""
    tokens_per_s: float = 0.0
    """Real tokens a second in training."""
    peak_memory_bytes: float
    """Of the process."""
    saved_bytes: float
    """Of the adapter's files."""
    train_loss: float
    """At the end of the training."""
    validation_loss: float | None = None
    """Of the weights that were kept."""
    gap: float
    """Validation loss less training loss."""
    forgetting: float
    """How far its reading of general text moved."""
    forgetting_kind: str
    """``language``: KL divergence, nats a token; ``representation``: 1 - CKA."""
    forgetting_details: dict[str, float] = Field(default_factory=dict)
    """Other measures of the same."""
    curve: list[dict[str, float]] = Field(default_factory=list)
    """``eval_loss`` at each ``step`` it was evaluated at, mean over the runs; of files of before
    none."""
    path: list[dict[str, float]] = Field(default_factory=list)
    """Quality and forgetting with the update scaled by ``c``."""
    difference: Measured | None = None
    """The metric less that of the reference; ``None`` for the reference itself."""
    verdict: Standing | None = None
    """What that says; ``None`` for the reference itself."""
    beside_constant: Measured | None = None
    """The metric less that of the best answer that needs no training; ``None``: there is none."""
    yardstick: str = ""
    """Which that is: always answering the most frequent class, the base model as it is, ..."""
    learned: bool = True
    """Whether it is better than that: the interval leaves zero out."""
    loss_difference: Measured | None = None
    """The loss less that of the reference."""
    forgetting_at_equal_quality: float | None = None
    """With the update scaled back to a validation loss that half of the methods reach."""
    equal_quality_loss: float | None = None
    """That loss."""


class Recommendation(BaseModel):
    """One method, and why; or none, and what to do instead.

    Attributes:
        method: Its name; ``None``: no method learned anything, so none is better than another.
        best: The method with the best metric, of those that learned something.
        sentence: The reason.
    """

    model_config = ConfigDict(frozen=True)

    method: str | None
    best: str | None
    sentence: str


class ComparisonRecord(Record):
    """A finished comparison."""

    file: ClassVar[str] = "compare.json"
    writer: ClassVar[str] = "lorafit compare"

    split: str = "test"
    """The part of the data that was scored."""
    metric: str
    """Name of the headline metric."""
    metric_info: Described | None = None
    """What it is; a file of before does not say."""
    greater_is_better: bool
    """Which way is better."""
    confidence: float
    """Level of all intervals."""
    reference: str
    """The method that the others are set beside."""
    request: Requested
    """What was asked for: settings, methods, seeds, rates."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Methods that do not fit, and why."""
    failed: dict[str, str] = Field(default_factory=dict)
    """Methods that failed, and why."""
    arms: dict[str, Arm]
    """Each method by name."""
    n: int
    """Test examples."""
    margin: float
    """A loss of quality up to this does not matter."""
    redundancy: dict[str, Redundancy] = Field(default_factory=dict)
    """Ranks of the updates, by method."""
    fronts: dict[str, list[str]]
    """For each cost the methods that no other beats in both it and quality, of those that learned
    something."""
    recommendation: Recommendation
    """Which method to take."""
    environment: Environment = Field(default_factory=Environment)
    """Versions, hardware, command."""

    @property
    def info(self) -> MetricInfo:
        """What the metric is."""
        unknown = replace(MetricInfo.unknown(self.metric), greater_is_better=self.greater_is_better)
        return self.metric_info or unknown

    @property
    def seeds(self) -> int:
        """Runs of each method."""
        return self.request["seeds"]

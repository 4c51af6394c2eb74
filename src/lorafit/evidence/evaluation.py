"""``eval.json``: base and tuned model on the same examples, and the proof of the hand-off."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from typing_extensions import TypedDict

from lorafit.evidence.baseline import Baseline
from lorafit.evidence.course import Course
from lorafit.evidence.interval import Measured, Number, Paired
from lorafit.evidence.json import Json
from lorafit.evidence.metric import MetricInfo
from lorafit.evidence.record import Record
from lorafit.evidence.tables import ReadTable
from lorafit.evidence.training import Training


class Sample(TypedDict):
    """What both models wrote on one prompt.

    Attributes:
        prompt: The question, for people.
        reference: The answer of the data, ``None`` where it has none.
        base: The base model's answer.
        tuned: The tuned model's.
    """

    prompt: str
    reference: str | None
    base: str
    tuned: str


class Generation(BaseModel):
    """How texts were written, and some of them."""

    model_config = ConfigDict(frozen=True)

    n: Number | None = None
    """Prompts that were answered."""
    max_new_tokens: Number | None = None
    """Tokens of the longest answer."""
    num_beams: Number = 1
    """1: greedy."""
    metrics: list[str] = Field(default_factory=list)
    """Names of the metrics that are made of these answers."""
    samples: list[Sample] = Field(default_factory=list)
    """Some answers, to be read."""


class HandOff(BaseModel):
    """How far what was saved is from what was trained: largest differences of a logit."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    reloaded: Number | None = Field(default=None, alias="reloaded_max_abs_diff")
    """The saved adapter on a fresh base; ``None``: not compared."""
    merged: Number | None = Field(default=None, alias="merged_max_abs_diff")
    """The merged model; ``None``: it cannot be merged, or was not compared."""
    n: Number | None = None
    """Examples they were compared on."""
    tolerance: Number | None = None
    """Largest difference that passes, relative to the largest logit."""

    @property
    def differences(self) -> dict[str, float]:
        """Those that were measured, by ``reloaded`` and ``merged``."""
        found = {"reloaded": self.reloaded, "merged": self.merged}
        return {name: value for name, value in found.items() if value is not None}

    @model_serializer(mode="wrap")
    def _known(self, handler: SerializerFunctionWrapHandler) -> Json:
        """What was compared: a way that was not is left out."""
        return {name: value for name, value in handler(self).items() if value is not None}


Described = Annotated[MetricInfo, PlainSerializer(MetricInfo.to_dict)]


class Evaluation(Record):
    """What was measured of a tuned model beside its base."""

    file: ClassVar[str] = "eval.json"

    split: str = "test"
    """The part of the data that was scored."""
    n: Number | None = None
    """Its examples."""
    metric: str | None = None
    """Name of the headline metric."""
    confidence: Number | None = None
    """Level of all intervals."""
    metrics: dict[str, Described] = Field(default_factory=dict)
    """What each metric is."""
    base: dict[str, Measured] = Field(default_factory=dict)
    """The untuned model's metrics by name."""
    tuned: dict[str, Measured] = Field(default_factory=dict)
    """The tuned model's."""
    paired: dict[str, Paired] = Field(default_factory=dict)
    """Tuned minus base."""
    baseline: Baseline | None = None
    """What always the same answer comes to; ``None``: there is no such answer."""
    never_predicted: list[str] = Field(default_factory=list)
    """Classes of the examples that the tuned model gave to none of them."""
    tables: list[ReadTable] = Field(default_factory=list)
    """What is shown beside the metrics: each class, confusions."""
    generation: Generation | None = None
    """Of a model that writes text."""
    handoff: HandOff | None = None
    """Whether what was saved computes what was trained; ``None``: not checked."""
    training: Training = Field(default_factory=Training)
    """What the training came to and cost: steps, time_s, peak_memory_bytes, ..."""
    course: Course | None = None
    """How long it was, and whether that was enough; ``None``: not a training's."""

    def info(self, name: str) -> MetricInfo:
        """What a metric is; a file of before may not say."""
        return self.metrics.get(name) or MetricInfo.unknown(name)

"""The measurements behind a choice: ``evidence`` in ``choices.json``.

They are typed for whoever makes them. Read back they are whatever the file has: another version
or another strategy may have measured something else, and what is shown of it is looked at first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator
from typing_extensions import TypedDict

Gained = Mapping[str, float]
"""A gain with its interval, as `lorafit.tune.decide.Gain` has it in JSON."""


class RateTried(TypedDict, total=False):
    """A learning rate that was tried.

    Attributes:
        learning_rate: Which.
        steps: For how many steps.
        loss: What it came to, nats per example; ``None``: it diverged.
        diverged: Whether it did.
        decayed: Whether the rate fell at the end; left out: no.
    """

    learning_rate: float
    steps: int
    loss: float | None
    diverged: bool
    decayed: bool


class Best(TypedDict):
    """The best rate of a comparison that was shorter than the run.

    Attributes:
        steps: How long that was.
        learning_rate: The best.
    """

    steps: int
    learning_rate: float


class Begun(TypedDict):
    """Where trials began because of earlier runs.

    Attributes:
        learning_rate: The middle one.
        usual: What it would have been without them.
        weight: Share of the usual rate's uncertainty that they take away, 0 to 1.
        near: How many of them are near.
    """

    learning_rate: float
    usual: float
    weight: float
    near: int


class Length(TypedDict):
    """A length of the training.

    Attributes:
        steps: How long.
        loss: After them, nats per example.
    """

    steps: int
    loss: float


class RankTested(TypedDict):
    """A rank set beside a larger one.

    Attributes:
        r: The rank.
        against: The larger one.
        step: Where both began.
        gain: Of the larger one, nats per example.
    """

    r: int
    against: int
    step: int
    gain: Gained


class RankKept(TypedDict):
    """What was trained, cut to a smaller rank.

    Attributes:
        r: The smaller rank.
        energy: Share of the update's energy that it keeps, 0 to 1.
        gain: Of it over what was trained, nats per example.
    """

    r: int
    energy: float
    gain: Gained


class KindLeftOut(TypedDict):
    """What was trained, without the update of one kind of module.

    Attributes:
        name: Of the kind.
        gain: Of leaving it out, nats per example.
    """

    name: str
    gain: Gained


class Scaled(TypedDict):
    """The update multiplied by a factor.

    Attributes:
        factor: Which.
        loss: With it, nats per example.
    """

    factor: float
    loss: float


class Rival(TypedDict):
    """The best run with another value of a setting.

    Attributes:
        value: Of the setting.
        gain: What the chosen one has over it, nats per example.
    """

    value: object
    gain: Gained


class Evidence(TypedDict, total=False):
    """What was measured for a choice; each strategy fills what it measures.

    Attributes:
        tried: Learning rates.
        best_after: The best of them after a part of the run.
        flat: Whether no two of them could be told apart; left out: no.
        prior: Where they began because of earlier runs.
        horizon_exponent: How the best rate falls with the length of the run.
        lengths: Of the training.
        most_steps: The longest that there might have been.
        tests: Ranks.
        ranks: The trained adapter at smaller ranks.
        trained: The rank it was trained with.
        kinds: The trained adapter without one kind of module.
        share_of_energy: Each kind of module's share of the change to the weights.
        without: Kinds of modules that were left out together.
        gain: Of leaving them out.
        margin: The loss that fewer modules or a smaller rank may cost, nats per example.
        curve: The update at several strengths.
        rivals: Other values of the setting.
        layers: How many carry the adapter.
        loss_before: Validation loss of the head as it was drawn, nats a unit.
        loss: Of the head that training begins with.
        examples: Training examples that it was solved on.
    """

    tried: list[RateTried]
    best_after: Best
    flat: bool
    prior: Begun
    horizon_exponent: float
    lengths: list[Length]
    most_steps: int
    tests: list[RankTested]
    ranks: list[RankKept]
    trained: int
    kinds: list[KindLeftOut]
    share_of_energy: dict[str, float]
    without: list[str]
    gain: Gained
    margin: float
    curve: list[Scaled]
    rivals: list[Rival]
    layers: int
    loss_before: float
    loss: float
    examples: int


def _any_object(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 pydantic's own
    return value


def _plain(evidence: Evidence) -> dict[str, object]:
    # A function of Python's: pydantic before 2.9 asks for the signature, and `dict` has none.
    return dict(evidence)


Kept = Annotated[Evidence, PlainValidator(_any_object), PlainSerializer(_plain)]
"""Evidence in a record."""

"""A number that was measured, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, Strict, TypeAdapter

Number = Annotated[int, Strict()] | Annotated[float, Strict(), Field(allow_inf_nan=False)]
"""A finite number as JSON has it; ``true`` is none."""


@dataclass(frozen=True)
class Interval:
    """A number and the interval around it.

    Formatted, the ends stand in brackets: ``f"{found:.3f}"`` is ``0.803 [0.779, 0.827]``.

    Attributes:
        value: The estimate.
        low: Lower end; NaN: unknown.
        high: Upper end; NaN: unknown.
        n: Examples it was estimated from; ``None``: unknown.
        level: Confidence level of the interval, 0 to 1; ``None``: unknown.
    """

    value: Number
    low: Number = math.nan
    high: Number = math.nan
    n: Number | None = None
    level: Number | None = None

    @classmethod
    def read(cls, content: Any) -> Self:
        """From JSON values.

        Raises:
            ValidationError: It is no interval.
        """
        found: Self = TypeAdapter(cls).validate_python(named(content))
        return found

    @property
    def complete(self) -> bool:
        """Whether both ends are known."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def ends(self) -> list[float]:
        """The value and the ends that are known, for the axis of a chart."""
        return [x for x in (self.value, self.low, self.high) if not math.isnan(x)]

    def excludes(self, x: float = 0.0) -> bool:
        """Whether the interval is known and ``x`` is certainly not the value."""
        return x < self.low or self.high < x  # false of NaN

    def within(self, low: float | None, high: float | None) -> Self:
        """The interval less what lies beyond the bounds of the quantity.

        Args:
            low: The smallest possible value; ``None``: there is none.
            high: The largest one.
        """
        least, most = (-math.inf if low is None else low), (math.inf if high is None else high)
        ends = (min(max(end, least), most) for end in (self.low, self.high))  # NaN stays
        return replace(self, **dict(zip(("low", "high"), ends, strict=True)))

    def to_dict(self) -> dict[str, float]:
        """JSON values; what is not known is left out."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: value for name, value in known.items() if not math.isnan(value)}

    def __getitem__(self, name: str) -> Any:
        """A part by its name in the file: ``found["low"]``.

        Raises:
            KeyError: There is none.
        """
        return self.to_dict()[name]

    def __format__(self, spec: str) -> str:
        """All numbers in the same format; ``.3f`` if none is asked for."""
        spec = spec or ".3f"
        value = format(self.value, spec)
        if not self.complete:
            return value
        return f"{value} [{self.low:{spec}}, {self.high:{spec}}]"


@dataclass(frozen=True)
class Difference(Interval):
    """What one model has more than another on the same examples.

    Attributes:
        p_value: Two-sided, of an exact test that both are equally good; ``None``: there is no
            such test of this quantity.
    """

    p_value: Number | None = None

    @property
    def difference(self) -> float:
        """The estimate."""
        return self.value

    def to_dict(self) -> dict[str, float]:
        """JSON values; the estimate is called ``difference``."""
        values = super().to_dict()
        return {"difference": values.pop("value")} | values


_NAMES = {"difference": "value", "mean": "value", "confidence": "level"}
"""Other names that files have for the same."""


def named(content: Any) -> Any:
    """An interval's fields by the names that they have here.

    Args:
        content: As a file has it: a mapping, or a number alone.
    """
    if isinstance(content, Mapping):
        return {
            _NAMES.get(str(name), str(name)): value
            for name, value in content.items()
            if value is not None
        }
    if isinstance(content, int | float) and not isinstance(content, bool):
        return {"value": content}
    return content


Measured = Annotated[Interval, BeforeValidator(named), PlainSerializer(Interval.to_dict)]
"""An interval in a record."""
Paired = Annotated[Difference, BeforeValidator(named), PlainSerializer(Difference.to_dict)]
"""A paired difference in a record."""

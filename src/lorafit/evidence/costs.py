"""What quality costs: that which methods are set against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Cost:
    """What quality is set against.

    Attributes:
        name: In ``compare.json``.
        key: Field of `Arm` that has it.
        title: What it is called.
        unit: What it is counted in.
        form: How its numbers are written: ``short``: 22.7 M; ``gigabytes``, from bytes; or
            ``number``, as it is.
        log: Whether it spans orders of magnitude, so that its axis is logarithmic.
    """

    name: str
    key: str
    title: str
    unit: str
    form: Literal["short", "gigabytes", "number"] = "number"
    log: bool = False


COSTS = (
    Cost("parameters", "trainable_parameters", "Trained parameters", "", "short", log=True),
    Cost("time", "cpu_s", "Training time", "processor seconds"),
    Cost("memory", "peak_memory_bytes", "Peak memory", "GB", "gigabytes"),
    Cost("forgetting", "forgetting", "Forgetting", "1 - CKA"),
)

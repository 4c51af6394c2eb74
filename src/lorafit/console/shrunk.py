"""What `lorafit shrink` shows: quality against rank, and what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorafit.console.output import show, show_table
from lorafit.units import interval

if TYPE_CHECKING:
    from lorafit.export.shrunk import Loss, Shrunk


def show_shrunk(result: Shrunk) -> None:
    """Shows the curve, the choice and the folder."""
    measured = result.gain is not None
    ways = ("plain", "weighted", "retrained") if measured else ()
    header = ["r", "energy", *(f"{way} SVD" if way != "retrained" else way for way in ways)]
    rows = [
        [str(row.r), f"{row.energy:.3f}", *(_loss(getattr(row, way)) for way in ways)]
        for row in result.curve
    ]
    show_table(rows, header)
    if measured:
        show(
            "(rise of the validation loss, nats; in brackets: 90 % intervals. "
            f"The adapter gains {result.gain:.4f} over the base.)"
        )
    show()
    show(f"r {result.r_before} -> {result.r} ({result.way}): {result.reason}")
    for name, found in (result.test or {}).items():
        change = {"value": found["difference"], "low": found["low"], "high": found["high"]}
        show(f"test {name.replace('_', ' ')}: {interval(change, signed=True)}")
    show(f"Adapter: {result.path}")


def _loss(loss: Loss | None) -> str:
    if loss is None:
        return ""
    return f"{loss.difference:+.4f} [{loss.low:+.4f}, {loss.high:+.4f}]"

"""What `lorafit shrink` shows: quality against rank, and what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorafit.console.output import show
from lorafit.console.tables import show_table

if TYPE_CHECKING:
    from lorafit.evidence import Difference
    from lorafit.shrinking.files import Shrunk


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
            "(rise of the validation loss in nats; 90% confidence intervals in brackets. "
            f"The adapter gains {result.gain:.4f} over the base.)"
        )
    show()
    show(f"r {result.r_before} -> {result.r} ({result.way}): {result.reason}")
    for name, found in (result.test or {}).items():
        show(f"test {name.replace('_', ' ')}: {found:+.3f}")
    show(f"Adapter: {result.path}")


def _loss(loss: Difference | None) -> str:
    return "" if loss is None else f"{loss:+.4f}"

"""The measurements behind the choices, as curves of plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorafit.console.output import out, show
from lorafit.console.tables import show_table
from lorafit.evidence import Choice, Interval
from lorafit.evidence.phases import spoken
from lorafit.units import duration

WIDTH, LEAST = 32, 10
"""Characters of a curve: at most and at least. ASCII only: output may go to a file or a console
of any encoding."""
BESIDE = 46
"""Characters of what comes before and after a curve."""

Rows = list[list[str]]


def show_evidence(choices: Mapping[str, Choice]) -> None:
    """Shows the curves of the choices that have some.

    Args:
        choices: By name.
    """
    for name, choice in choices.items():
        for title, rows in curves(choice.evidence):
            show()
            show(f"{name}: {title}")
            show_table(rows, indent=2)


def show_cost(cost: Mapping[str, Any]) -> None:
    """Shows what choosing and training cost, in plain runs, phase by phase."""
    if "runs" not in cost:
        return
    show()
    of = f" of {cost['budget']:g} allowed" if "budget" in cost else ""
    clock = cost.get("runs_by_the_clock")
    measured = "" if clock is None else f" ({clock:.2f} in wall-clock time)"
    show(
        f"Cost of choosing and training: {cost['runs']:.2f}{of} runs{measured}; "
        "1 is a plain training run without choosing:"
    )
    rows = [
        [spoken(phase), f"{spent['runs']:.2f}", duration(spent["time_s"])]
        for phase, spent in cost.get("phases", {}).items()
    ]
    show_table(rows, ["phase", "cost", "time"], indent=2)


def curves(evidence: Mapping[str, Any]) -> list[tuple[str, Rows]]:
    """Title and rows of each curve that can be drawn from what was measured."""
    found = [
        _losses(
            "loss at each rate (and after how many steps)", evidence.get("tried"), "learning_rate"
        ),
        _gains(evidence.get("tests")),
        _ranks(evidence.get("ranks")),
        _shares(evidence.get("share_of_energy")),
        _kinds(evidence.get("kinds")),
        _losses("loss with the update multiplied by", evidence.get("curve"), "factor"),
    ]
    return [(title, rows) for title, rows in found if rows]


def _losses(title: str, points: Sequence[Mapping[str, Any]] | None, name: str) -> tuple[str, Rows]:
    """Losses as dots; those after equally many steps share a scale, for only they compare."""
    rows: Rows = []
    points = [point for point in points or () if "loss" in point and name in point]
    if len(points) < 2:  # there is nothing to compare
        return title, rows
    for point in points:
        loss = point["loss"]
        label = [f"{point[name]:.3g}"]
        if "steps" in point:
            label.append(f"{point['steps']}{', decayed' if point.get('decayed') else ''}")
        if loss is None:
            rows.append([*label, "diverged", ""])
            continue
        peers = [
            other["loss"]
            for other in points
            if other["loss"] is not None and other.get("steps") == point.get("steps")
        ]
        low, high = min(peers), max(peers)
        best = "  <- lowest" if loss == low and len(peers) > 1 else ""
        rows.append([*label, f"{loss:.4f}", dot(loss, low, high) + best])
    return title, rows


def _gains(tests: Sequence[Mapping[str, Any]] | None) -> tuple[str, Rows]:
    """The gain of going on at each rank tested, with its interval around zero."""
    gains = [Interval.read(test["gain"]) for test in tests or ()]
    ends = [0.0, *(end for gain in gains for end in gain.ends)]
    rows = [
        [
            f"{test['r']} to {test['against']}",
            f"step {test['step']}",
            f"{gain:+.4f}",
            whiskers(gain.low, gain.value, gain.high, min(ends), max(ends)),
        ]
        for test, gain in zip(tests or (), gains, strict=True)
    ]
    return f"fall of the loss at a larger rank ({_level(gains)})", rows


def _ranks(cuts: Sequence[Mapping[str, Any]] | None) -> tuple[str, Rows]:
    """What cutting the trained adapter to smaller ranks changes."""
    labels = [[f"{cut['r']}", f"{100 * cut['energy']:.1f}%"] for cut in cuts or ()]
    level, rows = _changes(cuts or (), labels)
    return (
        f"rise of the loss, cut to a smaller rank, and what is kept of the update ({level})",
        rows,
    )


def _kinds(kinds: Sequence[Mapping[str, Any]] | None) -> tuple[str, Rows]:
    """What leaving out one kind of module changes."""
    level, rows = _changes(kinds or (), [[f"without {kind['name']}"] for kind in kinds or ()])
    return f"rise of the loss without a kind of module ({level})", rows


def _changes(records: Sequence[Mapping[str, Any]], labels: Rows) -> tuple[str, Rows]:
    """How much the loss rises by each, with its interval around zero."""
    gains = [Interval.read(one["gain"]) for one in records]
    ends = [0.0, *(-end for gain in gains for end in gain.ends)]
    rows = [
        [
            *label,
            f"{-gain.value:+.4f}",
            whiskers(-gain.high, -gain.value, -gain.low, min(ends), max(ends)),
        ]
        for label, gain in zip(labels, gains, strict=True)
    ]
    return _level(gains), rows


def _level(gains: Sequence[Interval]) -> str:
    if not gains:
        return ""
    return f"{100 * (gains[0].level or 0):g}% intervals, {gains[0].n:,} examples; : is zero"


def _shares(shares: Mapping[str, float] | None) -> tuple[str, Rows]:
    rows = [
        [name, f"{100 * share:.1f}%", "#" * round(share * _width())]
        for name, share in (shares or {}).items()
    ]
    return "share of the change to the weights", rows


def _width() -> int:
    return max(LEAST, min(WIDTH, out().width - BESIDE))


def _place(value: float, low: float, high: float) -> int:
    return round((_width() - 1) * (value - low) / ((high - low) or 1.0))


def dot(value: float, low: float, high: float) -> str:
    """A dot at its place between ``low`` and ``high``."""
    return " " * _place(value, low, high) + "o"


def whiskers(low: float, value: float, high: float, left: float, right: float) -> str:
    """An interval on an axis from ``left`` to ``right``, which holds zero: ``:  |--o--|``."""
    cells = [" "] * _width()
    first, last = _place(low, left, right), _place(high, left, right)
    cells[first : last + 1] = "-" * (last + 1 - first)
    cells[first] = cells[last] = "|"
    cells[_place(0.0, left, right)] = ":"
    cells[_place(value, left, right)] = "o"
    return "".join(cells).rstrip()

"""A comparison as one table, the best method first: for a paper, a spreadsheet, a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from lorafit.evidence.comparison import LEARNED_NOTHING, Arm, ComparisonRecord
from lorafit.evidence.comparison_rows import by_quality
from lorafit.evidence.json import Json
from lorafit.units import size

_LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def records(found: ComparisonRecord) -> list[Json]:
    """One record a method, all numbers as they were measured.

    Returns:
        Method, family, the metric with its interval, the difference to the reference with its
        interval and verdict (the reference has none), and costs in the units of `Arm`.
    """
    return [
        {
            "method": name,
            "family": arm.family,
            "metric": found.metric,
            "value": arm.metric.value,
            "low": arm.metric.low,
            "high": arm.metric.high,
            "difference": None if arm.difference is None else arm.difference.value,
            "difference_low": None if arm.difference is None else arm.difference.low,
            "difference_high": None if arm.difference is None else arm.difference.high,
            "verdict": _verdict(arm),
            **{field: getattr(arm, field) for field in _FIELDS},
        }
        for name, arm in by_quality(found)
    ]


_FIELDS = (
    *("trainable_parameters", "share", "learning_rate", "time_s", "cpu_s", "peak_memory_bytes"),
    *("saved_bytes", "train_loss", "validation_loss", "gap", "forgetting"),
)


def markdown(found: ComparisonRecord) -> str:
    """A table in Markdown (GitHub's tables)."""
    header, rows = _cells(found)
    lines = [header, ["---"] * len(header), *rows]
    escaped = (
        [cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in line]
        for line in lines
    )
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def latex(found: ComparisonRecord) -> str:
    """A ``tabular`` for LaTeX with the rules of the package booktabs."""
    header, rows = _cells(found)

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(_LATEX.get(char, char) for char in cell) for cell in cells)

    body = "".join(f"{line(row)} \\\\\n" for row in rows)
    return (
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 2)}l}}\n\\toprule\n{line(header)} \\\\\n"
        f"\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
    )


def _verdict(arm: Arm) -> str:
    if not arm.learned:
        return LEARNED_NOTHING
    return "reference" if arm.difference is None else str(arm.verdict)


def _cells(found: ComparisonRecord) -> tuple[list[str], list[list[str]]]:
    """What a reader of a paper needs, as text."""
    header = ["method", "trained", f"test {found.info.title}", f"beside {found.reference}"]
    rows = [
        [
            name,
            f"{100 * arm.share:.3g} %",
            f"{arm.metric:.3f}",
            "" if arm.difference is None else f"{arm.difference:+.3f}",
            f"{arm.cpu_s:.0f}",
            f"{arm.peak_memory_bytes / 1e9:.2f}",
            size(arm.saved_bytes),
            _verdict(arm),
        ]
        for name, arm in by_quality(found)
    ]
    return [*header, "processor s", "peak GB", "saved", "verdict"], rows

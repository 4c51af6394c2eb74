"""The training curves: ``metrics.jsonl`` to charts and to the table behind them.

The training loss is shown as written (a band from the smallest to the largest loss where
lines are many) and smoothed with a Gaussian window, which, unlike a running average, does
not lag behind. The best step is the first one with the lowest validation loss: the weights
that a run keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from lorafit.evidence import MetricInfo
from lorafit.report import numbers
from lorafit.report.chart import Axis, Line, Point, line_chart
from lorafit.report.numbers import Format, is_number, number

MOST_POINTS = 400
"""Points of a line; more would not be seen on a screen."""
MOST_TIPS = 120
MOST_ROWS = 40
LEAST = 0.1
"""An axis shows at least this part of what is possible, or of the value: less would make a leap
of next to nothing."""
_WINDOW = 0.025
"""Standard deviation of the smoothing window, as a share of all lines."""
_ENOUGH_TO_SMOOTH = 30


Metrics = Mapping[str, object]
"""A line of ``metrics.jsonl``."""


@dataclass(frozen=True)
class Curve:
    """One chart with its title."""

    title: str
    unit: str
    chart: Markup


@dataclass(frozen=True)
class Curves:
    """Everything about how training went.

    Attributes:
        loss: The chart of the losses, ``None`` if there is nothing to draw.
        smoothed: Whether the training loss is smoothed in it.
        has_eval: Whether it shows validation losses.
        others: The other charts.
        best_step: Step with the lowest validation loss, ``None`` without an evaluation.
        best_loss: That loss.
        last_step: Last step in the metrics.
        columns: Names of the table's columns.
        rows: Its cells.
        thinned: Every how many lines one is in the table.
        forms: How the numbers of a column are written, where its name does not tell.
        over_fitting: From where training and validation part, in a sentence; empty: they do not.
    """

    loss: Markup | None
    smoothed: bool
    has_eval: bool
    others: list[Curve]
    best_step: int | None
    best_loss: float | None
    last_step: int
    columns: list[str]
    rows: list[list[Any]]
    thinned: int
    forms: dict[str, Format]
    over_fitting: Markup


def make_curves(
    metrics: Sequence[Metrics], infos: Mapping[str, MetricInfo] | None = None
) -> Curves | None:
    """Draws the curves; ``None`` if no line has a step.

    Args:
        metrics: The lines of ``metrics.jsonl``.
        infos: What the metrics in them are, by name; one that is not here has its name.
    """
    infos = infos or {}
    lines = [line for line in metrics if is_number(line.get("step"))]
    if not lines:
        return None
    steps = [number(line, "step") for line in lines]
    x = Axis(min(0, steps[0]), max(max(steps), 1))
    train, evals = _points(lines, "train_loss"), _points(lines, "eval_loss")
    best = min(evals, key=lambda point: point[1]) if evals else None
    drawn, smoothed = _loss_lines(train, evals)
    columns, rows, thinned = _table(lines)
    return Curves(
        loss=_loss_chart(lines, drawn, x, train, evals, best),
        smoothed=smoothed,
        has_eval=bool(evals),
        others=_others(lines, x, infos),
        best_step=None if best is None else int(best[0]),
        best_loss=None if best is None else best[1],
        last_step=int(steps[-1]),
        columns=columns,
        rows=rows,
        thinned=thinned,
        over_fitting=_over_fitting(train, evals),
        forms={f"eval_{name}": numbers.percent for name, info in infos.items() if info.is_share},
    )


_RISE = 0.01
"""By what part the validation loss has to have risen: less is no parting."""


def _over_fitting(train: list[Point], evals: list[Point]) -> Markup:
    """Says where the validation loss rises while the training loss goes on falling."""
    if len(evals) < 2 or len(train) < 4:
        return Markup("")
    at, best = min(evals, key=lambda point: point[1])
    last_step, last = evals[-1]
    before = [loss for step, loss in train if step <= at]
    after = [loss for step, loss in train if step > at]
    if last <= best * (1 + _RISE) or not before or not after:
        return Markup("")
    # As many steps before the lowest point as after it: single batches are noisy.
    near, late = before[-max(len(after) // 2, 1) :], after[len(after) // 2 :]
    if np.mean(late) >= np.mean(near):
        return Markup("")
    return Markup(
        "<strong>Over-fitting:</strong> the validation loss rose from step {} on ({} to {} at "
        "step {}) while the training loss went on falling. From there the model learned the "
        "training examples by heart."
    ).format(
        numbers.element(at, numbers.general),
        numbers.element(best, numbers.decimals),
        numbers.element(last, numbers.decimals),
        numbers.element(last_step, numbers.general),
    )


def smooth(values: np.ndarray) -> np.ndarray:
    """Gaussian moving average; at the ends the window is cut and weighed anew."""
    reach = _WINDOW * len(values)
    offsets = np.arange(-int(4 * reach) - 1, int(4 * reach) + 2)
    weights = np.exp(-0.5 * (offsets / reach) ** 2)
    # mode "full", cut by hand: "same" would follow the window where it is the longer one.
    half = len(offsets) // 2

    def moving(series: np.ndarray) -> np.ndarray:
        return np.convolve(series, weights)[half : half + len(values)]

    averaged: np.ndarray = moving(values) / moving(np.ones(len(values)))
    return averaged


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most about ``most`` points; of each bucket its lowest and its highest stay."""
    if len(points) <= most:
        return list(points)
    kept: list[Point] = []
    for bucket in np.array_split(np.arange(len(points)), max(most // 2, 1)):
        members = [points[i] for i in bucket]
        ends = {min(members, key=lambda p: p[1]), max(members, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def _points(lines: Sequence[Metrics], name: str) -> list[Point]:
    return [
        (number(line, "step"), number(line, name)) for line in lines if is_number(line.get(name))
    ]


def _every(items: Sequence[Any], most: int) -> tuple[list[Any], int]:
    """Every k-th item and the last one, at most about ``most``; and k."""
    stride = -(-len(items) // most) or 1
    kept = list(items[::stride])
    if items and (len(items) - 1) % stride:
        kept.append(items[-1])
    return kept, stride


def _loss_lines(train: list[Point], evals: list[Point]) -> tuple[list[Line], bool]:
    smoothed = len(train) >= _ENOUGH_TO_SMOOTH
    drawn = []
    if smoothed:
        losses = smooth(np.array([loss for _, loss in train])).tolist()
        steps = [step for step, _ in train]
        drawn.append(Line(thin(train), "raw"))
        drawn.append(Line(thin(list(zip(steps, losses, strict=True))), "train"))
    elif train:
        drawn.append(Line(train, "train", dots=True))
    if evals:
        drawn.append(Line(thin(evals), "eval", dots=len(evals) <= MOST_ROWS))
    return drawn, smoothed


def _loss_chart(
    lines: Sequence[Metrics],
    drawn: Sequence[Line],
    x: Axis,
    train: list[Point],
    evals: list[Point],
    best: Point | None,
) -> Markup | None:
    values = [y for line in drawn for _, y in line.points]
    if not values:
        return None
    spoken = [
        f"{name} from {numbers.decimals(points[0][1])} at step {points[0][0]} "
        f"to {numbers.decimals(points[-1][1])} at step {points[-1][0]}"
        for name, points in (("training loss", train), ("validation loss", evals))
        if points
    ]
    tips = [
        (number(line, "step"), tip)
        for line in _every(lines, MOST_TIPS)[0]
        if (tip := _loss_tip(line))
    ]
    return line_chart(
        drawn,
        x,
        Axis.around(values, least=LEAST * max(map(abs, values))),
        label="Line chart: " + "; ".join(spoken) + ".",
        y_format=numbers.general,
        x_format=numbers.general,
        height=260,
        mark=None if best is None else (best[0], f"best: step {best[0]}"),
        tips=tips,
    )


def _loss_tip(line: Metrics) -> str:
    parts = [
        f"{name} {numbers.decimals(number(line, key))}"
        for name, key in (("training", "train_loss"), ("validation", "eval_loss"))
        if is_number(line.get(key))
    ]
    return f"step {line['step']}: " + ", ".join(parts) if parts else ""


def _others(lines: Sequence[Metrics], x: Axis, infos: Mapping[str, MetricInfo]) -> list[Curve]:
    """Validation metrics, then learning rate and speed: whatever the lines have."""
    known = dict.fromkeys(key for line in lines for key in line)
    curves = []
    for key in known:
        if key.startswith("eval_") and key != "eval_loss":
            name = key.removeprefix("eval_")
            info = infos.get(name) or MetricInfo.unknown(name)
            form, ticks = numbers.value_format(info), numbers.tick_format(info)
            title = f"Validation {info.title}"
            least = _least(info, [y for _, y in _points(lines, key)])
            curves.append(_small(lines, x, key, title, "", form, ticks, "eval", least))
    for key, title, unit in (
        ("learning_rate", "Learning rate", ""),
        ("tokens_per_s", "Speed", "real tokens per second, padding not counted"),
        ("grad_norm", "Gradient norm", "before clipping"),
    ):
        curves.append(_small(lines, x, key, title, unit, numbers.general, numbers.general, "plain"))
    return [curve for curve in curves if curve is not None]


def _least(info: MetricInfo, values: Sequence[float]) -> float:
    if info.low is not None and info.high is not None:
        return LEAST * (info.high - info.low)
    return LEAST * max(map(abs, values), default=0.0)


def _small(
    lines: Sequence[Metrics],
    x: Axis,
    key: str,
    title: str,
    unit: str,
    form: Format,
    ticks: Format,
    style: str,
    least: float = 0.0,
) -> Curve | None:
    points = _points(lines, key)
    if not points:
        return None
    few = len(points) <= MOST_ROWS and style == "eval"
    first, last = points[0], points[-1]
    chart = line_chart(
        [Line(thin(points), style, dots=few or len(points) == 1)],
        x,
        Axis.around([y for _, y in points], zero=style == "plain", least=least),
        label=f"Line chart: {title} from {form(first[1])} at step {first[0]} "
        f"to {form(last[1])} at step {last[0]}.",
        y_format=ticks,
        x_format=numbers.general,
        height=110,
        tips=[(at, f"step {at}: {form(y)}") for at, y in _every(points, MOST_TIPS)[0]],
    )
    return Curve(title, unit, chart)


def _table(lines: Sequence[Metrics]) -> tuple[list[str], list[list[Any]], int]:
    """The lines with an evaluation, or all if there is none."""
    chosen = [line for line in lines if is_number(line.get("eval_loss"))] or list(lines)
    chosen, stride = _every(chosen, MOST_ROWS)
    columns = list(dict.fromkeys(key for line in chosen for key in line))
    return columns, [[line.get(key) for key in columns] for line in chosen], stride

"""Where the names of points go, so that they can be read.

A chart is stretched with the page while its text keeps its size, so a place is good only if it
is at every width. Each name tries the places around its point, near ones first; what a place
costs is what it covers. Names are moved in turn until none gains by moving.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTHS = (240.0, 300.0, 380.0, 480.0, 640.0, 880.0)
"""Widths of a drawing area, in CSS pixels, from a telephone to a page."""

LETTER = 6.8
"""Mean width of a letter at 12 pixels, rounded up."""
LINE = 14.0
"""Height of a line of text."""

NEAR = 8.0
"""From the middle of a point to its name."""
DOT = 5.0
"""Radius of a point."""
ROUNDS = 6

# What a pixel costs: outside of the chart; covered of a name, a dot, a line; on the way.
_OUTSIDE, _NAME, _DOT, _LINE, _DISTANCE = 20.0, 20.0, 1.0, 0.1, 0.8

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Place:
    """Where a name stands beside its point.

    Attributes:
        dx: From the point to the name's anchor, CSS pixels to the right.
        dy: To the middle of the name, downwards.
        anchor: Which end of the name that is: ``start``, ``middle`` or ``end``.
    """

    dx: float
    dy: float
    anchor: str

    @property
    def far(self) -> bool:
        """Whether a line has to show whose name it is."""
        return math.hypot(self.dx, self.dy) > 2 * NEAR

    def box(self, at: tuple[float, float], length: float) -> Box:
        """What a name of this length covers."""
        left = at[0] + self.dx - length * {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor]
        middle = at[1] + self.dy
        return left, middle - LINE / 2, left + length, middle + LINE / 2


def _around(distance: float) -> list[Place]:
    """Places at a distance."""
    slant, high = 0.8 * distance, distance + 3
    above = [Place(0.0, -high, "middle"), Place(0.0, high, "middle")]
    return [
        Place(distance, 0.0, "start"),
        Place(-distance, 0.0, "end"),
        *(above if distance == NEAR else []),  # a line to a far one would look like an interval
        Place(slant, -slant, "start"),
        Place(slant, slant, "start"),
        Place(-slant, -slant, "end"),
        Place(-slant, slant, "end"),
    ]


PLACES = [place for distance in (NEAR, 18.0, 30.0, 44.0, 60.0) for place in _around(distance)]


def places(
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    height: float,
    lines: Sequence[Box] = (),
) -> list[Place | None]:
    """A place for each name.

    Args:
        points: Of each name, in percent of the drawing area from its left and its top.
        names: In the order of importance.
        height: Of the drawing area, CSS pixels.
        lines: Level and upright ones that are better not covered, from end to end in percent.

    Returns:
        ``None`` for a name that would stand on another one wherever it is put.
    """
    if not names:
        return []
    at = [[(w * x / 100, height * y / 100) for w in WIDTHS] for x, y in points]
    # Corners of each name at each place and width: names x places x widths x 4.
    boxes = np.array(
        [
            [[place.box(spot, LETTER * len(name)) for spot in spots] for place in PLACES]
            for spots, name in zip(at, names, strict=True)
        ]
    )
    alone = _alone(boxes, np.array(at), height)
    if lines:
        ends = np.array([[(w, height, w, height) for w in WIDTHS]]) / 100 * np.array(lines)[:, None]
        drawn = np.sort(ends.reshape(*ends.shape[:2], 2, 2), axis=2).reshape(ends.shape)
        drawn += (-1, -1, 1, 1)  # two pixels thick
        alone += _LINE * _shared(boxes[:, :, None], drawn).sum(axis=(2, 3))
    every = range(len(names))

    def covered(index: int, taken: np.ndarray) -> np.ndarray:
        """Of other names' boxes, by each place of this name: ``(places,)``."""
        others = [other for other in every if other != index and taken[other] >= 0]
        theirs = boxes[others, taken[others]]  # (others, widths, 4)
        found: np.ndarray = _shared(boxes[index][:, None], theirs).sum(axis=(1, 2))
        return found

    taken = np.full(len(names), -1)
    for _ in range(ROUNDS):
        before = taken.copy()
        for index in every:
            taken[index] = np.argmin(alone[index] + _NAME * covered(index, taken))
        if (taken == before).all():
            break
    for index in every[::-1]:
        if covered(index, taken)[taken[index]] > 0:
            taken[index] = -1
    return [PLACES[place] if place >= 0 else None for place in taken]


def _alone(boxes: np.ndarray, at: np.ndarray, height: float) -> np.ndarray:
    """What each place costs if there were no other names: ``(names, places)``."""
    left, top, right, bottom = np.moveaxis(boxes, -1, 0)
    # A little may stand out where the page leaves room.
    over = [-4 - left, right - np.array(WIDTHS) - 8, -4 - top, bottom - height]
    cost = _OUTSIDE * np.maximum(over, 0.0).sum(axis=(0, -1))
    dots = np.concatenate([at - DOT, at + DOT], axis=-1)  # (names, widths, 4)
    for index in range(len(boxes)):
        others = np.delete(dots, index, axis=0)
        cost[index] += _DOT * _shared(boxes[index][:, None], others).sum(axis=(1, 2))
    result: np.ndarray = cost + _DISTANCE * np.array([math.hypot(p.dx, p.dy) for p in PLACES])
    return result


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The area that boxes share; the last dimension is a box."""
    across = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    down = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    area: np.ndarray = np.maximum(across, 0.0) * np.maximum(down, 0.0)
    return area

from __future__ import annotations

from pathlib import Path

import pytest

from lorafit.evidence.comparison import Recommendation
from lorafit.evidence.comparison_rows import redundancy
from lorafit.evidence.costs import COSTS, Cost
from lorafit.report.chart import Axis
from lorafit.report.comparison import write_comparison
from lorafit.report.placing import LETTER, WIDTHS, Box, Place, places
from lorafit.report.scatter import steps
from tests.report.comparisons import record
from tests.report.page import Page


def test_the_page_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    page = Page(write_comparison(tmp_path, record()).read_text(encoding="utf-8"))
    assert page.unclosed == []
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for a in page.all("section")} <= set(ids)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "use"}
    assert not any("style" in attributes for _, attributes in page.elements)


def test_every_method_and_front_is_in_every_chart(tmp_path: Path) -> None:
    found = record()
    page = Page(write_comparison(tmp_path, found).read_text(encoding="utf-8"))
    charts = [a for a in page.all("svg") if " against " in str(a.get("aria-label"))]
    assert len(charts) == len(COSTS)
    for cost, chart in zip(COSTS, charts, strict=True):
        assert ", ".join(found.fronts[cost.name]) in str(chart["aria-label"])
    dots = [a for a in page.all("g") if str(a.get("class")).startswith("spot")]
    assert len(dots) == len(COSTS) * len(found.arms)
    joined = [a for a in dots if a["class"] == "spot front"]
    assert len(joined) == sum(map(len, found.fronts.values()))
    for name in found.arms:
        assert page.said.count(f"{name}: ") >= len(COSTS)


def test_noise_has_a_column_only_where_it_was_measured(tmp_path: Path) -> None:
    assert redundancy(record())[0][-1] == "above noise"
    header, cells = redundancy(record(noise=False))
    assert header[-1] == "r 99 %"
    assert {len(row) for row in cells} == {len(header)}
    page = write_comparison(tmp_path, record(noise=False)).read_text(encoding="utf-8")
    assert "shuffled" not in page


def test_the_recommendation_is_said_once_and_rates_have_two_digits(tmp_path: Path) -> None:
    found = record()
    sentence = "Take ia3: accuracy 0.761, the best of all."
    found = found.model_copy(
        update={
            "recommendation": Recommendation(method="ia3", best="ia3", sentence=sentence),
            "arms": {
                name: arm.model_copy(update={"learning_rate": 0.0006324555})
                for name, arm in found.arms.items()
            },
        }
    )
    said = Page(write_comparison(tmp_path, found).read_text(encoding="utf-8")).said
    assert said.count("Take ia3") == 1
    assert "Accuracy 0.761, the best of all." in said
    assert "0.00063" in said
    assert "0.000632" not in said


def test_methods_that_learned_nothing_are_called_so(tmp_path: Path) -> None:
    found = record()
    assert "learned nothing" not in Page(write_comparison(tmp_path, found).read_text("utf-8")).said
    arms = {name: arm.model_copy(update={"learned": False}) for name, arm in found.arms.items()}
    arms["full"] = arms["full"].model_copy(update={"difference": None, "verdict": None})
    nothing = found.model_copy(
        update={
            "arms": arms,
            "fronts": {cost.name: [] for cost in COSTS},
            "recommendation": Recommendation(method=None, best=None, sentence="Train longer."),
        }
    )
    said = Page(write_comparison(tmp_path, nothing).read_text("utf-8")).said
    assert "No recommendation" in said
    assert "Train longer." in said
    assert "the reference; learned nothing" in said
    assert said.count("learned nothing") == len(arms) + 1  # and what that means
    assert "Best for" not in said


# Names beside points ---------------------------------------------------------------------


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def clashes(
    points: list[tuple[float, float]], names: list[str], found: list[Place | None], width: float
) -> list[tuple[str, str]]:
    boxes = {
        name: place.box((width * x / 100, 260 * y / 100), LETTER * len(name))
        for (x, y), name, place in zip(points, names, found, strict=True)
        if place is not None
    }
    return [(a, b) for a in boxes for b in boxes if a < b and overlap(boxes[a], boxes[b])]


@pytest.mark.parametrize("cost", COSTS, ids=lambda cost: cost.name)
def test_names_do_not_overlap_at_any_width(cost: Cost) -> None:
    arms = record().arms
    x = Axis.around([getattr(arm, cost.key) for arm in arms.values()], log=cost.log)
    y = Axis(0.4, 0.95)
    points = [
        (x.percent(getattr(arm, cost.key)), 100 - y.percent(arm.metric.value))
        for arm in arms.values()
    ]
    found = places(points, list(arms), 260)
    assert sum(place is not None for place in found) >= 12
    for width in range(int(WIDTHS[0]), int(WIDTHS[-1]), 20):
        assert clashes(points, list(arms), found, width) == []


def test_of_points_in_one_spot_as_many_are_named_as_there_is_room_for() -> None:
    names = [f"method {number}" for number in range(40)]
    points = [(50.0, 50.0)] * len(names)
    found = places(points, names, 260)
    assert found[0] is not None, "the most important first"
    assert 4 <= sum(place is not None for place in found) < 40
    assert clashes(points, names, found, 400) == []


def test_a_name_beside_the_edge_stays_inside() -> None:
    [right, left] = places([(99.0, 50.0), (1.0, 20.0)], ["at the right", "at the left"], 260)
    assert right is not None
    assert right.anchor != "start"
    assert left is not None
    assert left.anchor != "end"


# Axes and fronts -------------------------------------------------------------------------


def test_a_front_is_joined_in_steps() -> None:
    assert steps([(1, 0.5), (3, 0.7)], 9) == [(1, 0.5), (3, 0.5), (3, 0.7), (9, 0.7)]
    assert steps([], 9) == []


def test_a_logarithmic_axis_has_equal_factors_at_equal_distances() -> None:
    axis = Axis.around([100, 10_000], log=True, margin=0)
    assert axis.percent(1000) == pytest.approx(50)
    assert Axis.around([770, 22_713_216], log=True).ticks(4) == [1e3, 1e4, 1e5, 1e6, 1e7]
    assert len(Axis.around([300, 500], log=True).ticks(4)) >= 2
    assert Axis.around([5, 5], log=True).percent(5) == pytest.approx(50)

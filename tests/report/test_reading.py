"""What the page says so that it cannot be misread: mistakes, classes, axes, over-fitting."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.evidence import Evaluation
from lorafit.evidence.confusion import Confusion, confusion_of, largest_confusions
from lorafit.evidence.measurements import RateTried
from lorafit.report.chart import Axis
from lorafit.report.choosing import charts
from lorafit.report.curves import make_curves
from lorafit.report.heat import heat_map
from lorafit.report.html import write_report
from lorafit.report.predicted import MOST_CELLS
from lorafit.report.verdict import verdict_card
from lorafit.report.words import used
from lorafit.run import Choice
from lorafit.tasks.sequence_classification import SequenceClassification
from tests.report import folders
from tests.report.page import Page


def page_of(path: Path) -> Page:
    return Page(write_report(path).read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return folders.finished(tmp_path / "run")


# Mistakes ---------------------------------------------------------------------------------


def test_the_surest_mistake_stands_first_with_text_label_answer_and_probability(run: Path) -> None:
    said = page_of(run).said
    assert "wrong on 3 of 5 test examples" in said
    first = "the best of a bad lot label rotten tuned: fresh 93.8 % base: fresh 51.6 %"
    assert first in said
    listed = said.partition("The surest mistakes")[2]
    order = [listed.index(folders.TEXTS[at]) for at in (3, 4, 2)]
    assert order == sorted(order)
    assert folders.TEXTS[1] not in said  # right before and after


def test_flips_are_counted_and_shown(run: Path) -> None:
    said = page_of(run).said
    assert "Of 5 test examples, tuning corrected 1 and broke 2" in said
    assert said.count(folders.TEXTS[0]) == 1  # gained


def test_texts_that_were_not_kept_leave_the_rows(run: Path) -> None:
    folders.predictions(run, {k: v for k, v in folders.SAID.items() if k != "text"})
    said = page_of(run).said
    assert "text not kept label rotten" in said
    assert "run.keep_texts" in said
    assert "row 3" in said


def test_a_run_without_predictions_has_its_page(run: Path) -> None:
    (run / "predictions.parquet").unlink()
    page = page_of(run)
    assert not any(a.get("id") == "mistakes" for a in page.all("section"))
    assert page.all("aside") == []


def test_damaged_predictions_are_named(run: Path) -> None:
    (run / "predictions.parquet").write_bytes(b"PAR1")
    said = page_of(run).said
    assert "predictions.parquet is damaged" in said
    assert "Better than the base model" in said


def test_predictions_of_another_shape_do_not_break_the_page(run: Path) -> None:
    for name in folders.SAID:
        for values in ([None] * 5, ["x"] * 5, [[1]] * 5, [True] * 5, None):
            content: dict[str, Any] = {k: v for k, v in folders.SAID.items() if k != name}
            content |= {} if values is None else {name: values}
            folders.predictions(run, content)
            page = page_of(run)
            assert page.unclosed == [], (name, values)
            assert "Better than the base model" in page.said


# Classes ----------------------------------------------------------------------------------


def tables(counts: np.ndarray) -> list[Any]:
    names = [f"class {at}" for at in range(len(counts))]
    task = SequenceClassification(["text"], "label", names)
    labels = np.repeat(np.arange(len(counts)), counts.sum(axis=1))
    said = np.concatenate([np.repeat(np.arange(len(counts)), row) for row in counts])
    return task.tables(np.eye(len(counts))[said], labels)


def test_the_scores_of_classes_are_open(run: Path) -> None:
    page = page_of(run)
    at = [tag for tag, _ in page.elements]
    table = next(i for i, (_, a) in enumerate(page.elements) if a.get("class") == "data scores")
    assert at[:table].count("details") == 0
    for name in ("precision", "recall", "F1", "examples"):
        assert name in page.said


def test_twenty_classes_are_a_heat_map_with_numbered_columns_and_shares(run: Path) -> None:
    counts = np.full((20, 20), 1)
    np.fill_diagonal(counts, np.arange(100, 120))
    counts[3, 7] = 50
    content = folders.EVALUATION | {"tables": tables(counts)}
    folders.write_json(run / "eval.json", content)
    page = page_of(run)
    cells = [a for a in page.all("td") if re.search(r"\b(right|wrong) h\d", str(a.get("class")))]
    assert len(cells) == 400
    share = 50 / (103 + 18 + 50)
    [cell] = [a for a in cells if str(a["title"]).startswith("50 of")]
    assert cell["title"] == "50 of 171 of class 3 were called class 7"
    assert cell["class"] == f"wrong h{round(10 * share)}"
    assert (repr(share), "29") in page.numbers
    assert "Largest confusions class 3 called class 7 50" in page.said
    rows = re.findall(r"(\d+) class (\d+)", page.said.partition("What is taken for what")[2])
    assert rows[0] == ("1", "3")  # the most frequent first


def test_a_cell_of_the_matrix_leads_to_its_surest_mistakes(run: Path) -> None:
    page = page_of(run)
    leads = {str(a["href"]): str(a["aria-label"]) for a in page.all("a") if "aria-label" in a}
    assert leads == {
        "#cell-1": "97 of 533 of rotten were called fresh",
        "#cell-2": "113 of 533 of fresh were called rotten",
    }
    assert [a["id"] for a in page.all("div") if a.get("class") == "cell"] == ["cell-1", "cell-2"]
    first = page.said.partition("rotten called fresh: 2 examples")[2]
    assert first.index(folders.TEXTS[3]) < first.index(folders.TEXTS[2]) < first.index("Back to")


def many(count: int, classes: int, text: str) -> dict[str, list[Any]]:
    """Wrong answers in every cell off the diagonal of a matrix."""
    pairs = [(at % classes, (at + 1 + at // classes % (classes - 1)) % classes) for at in
             range(count)]  # fmt: skip
    return {
        "row": list(range(count)),
        "text": [text] * count,
        "label": [f"class {true}" for true, _ in pairs],
        "tuned": [f"class {answer}" for _, answer in pairs],
        "tuned_right": [False] * count,
        "tuned_probability": [0.9] * count,
        "tuned_loss": [2.0] * count,
    }


@pytest.mark.parametrize("classes", [2, 9, 30])
def test_the_page_stays_small_however_many_mistakes_its_cells_have(run: Path, classes: int) -> None:
    content = folders.EVALUATION | {"tables": tables(np.full((classes, classes), 50))}
    folders.write_json(run / "eval.json", content)
    folders.predictions(run, many(3000, classes, "<b>long</b> & wrong " * 500))
    page = write_report(run)
    html = page.read_text(encoding="utf-8")
    cells = html.count('class="cell"')
    assert cells == min(MOST_CELLS, classes * (classes - 1))
    assert "<b>long" not in html
    assert html.count("&lt;b&gt;long") > cells
    assert len(html) < 600_000
    # Every link within the page has somewhere to go.
    anchors = {str(a["id"]) for _, a in Page(html).elements if "id" in a}
    for link in Page(html).all("a"):
        assert str(link["href"]).removeprefix("#") in anchors


def test_of_many_classes_those_with_mistakes_are_shown() -> None:
    counts = np.eye(60, dtype=int) * 10
    counts[40, 50] = 7
    # More classes than the tables of a run have a matrix of, as in folders of before.
    found = heat_map(Confusion([f"class {at}" for at in range(60)], counts.tolist()))
    assert found is not None
    assert found.together == 37
    assert "7 of 17 of class 40 were called class 50" in found.grid
    assert found.confusions == [("class 40", "class 50", 7)]
    assert confusion_of(tables(counts)) is None
    assert largest_confusions(tables(counts), 5) == [("class 40", "class 50", 7)]


def evaluation(**update: Any) -> Evaluation:
    return Evaluation.from_json(folders.EVALUATION | update)


def test_an_answer_that_is_always_the_same_has_to_be_beaten() -> None:
    counts = np.array([[95, 0, 0], [6, 3, 0], [5, 0, 0]])
    same = verdict_card(evaluation(tables=tables(counts)))
    text = Page(str(same)).said.replace("\u202f", " ")
    assert "No better than always giving the most frequent answer" in text
    assert "Always answering “class 0” would be right 87.2 % of the time." in text
    assert "Never answered: “class 2”." in text
    typed = {"baseline": {"answer": '"x"', "metrics": {"accuracy": 0.99}}, "tables": []}
    text = Page(str(verdict_card(evaluation(**typed)))).said.replace("\u202f", " ")
    assert "No better than always giving the most frequent answer" in text
    assert "Always answering “x” would be right 99.0 % of the time." in text
    better = Page(str(verdict_card(evaluation()))).said.replace("\u202f", " ")
    assert "Better than the base model" in better
    assert "would be right 50.0 % of the time" in better


# Axes and curves --------------------------------------------------------------------------


def test_ticks_of_a_log_axis_are_1_2_and_5_at_their_places() -> None:
    axis = Axis(6e-5, 5e-3, log=True)
    assert axis.ticks(4) == [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3]
    assert axis.percent(1e-3) - axis.percent(1e-4) == pytest.approx(
        axis.percent(2e-3) - axis.percent(2e-4)
    )
    assert Axis(1.0, 1e6, log=True).ticks(4) == [10.0**power for power in range(7)]
    narrow = Axis(0.0011, 0.0013, log=True).ticks(4)
    assert len(narrow) >= 3
    assert all(0.0011 <= tick <= 0.0013 for tick in narrow)


def test_rates_stand_where_their_ticks_say() -> None:
    tried: list[RateTried] = [
        {"learning_rate": rate, "loss": 0.5 + rate, "steps": 9} for rate in (1e-3, 2e-3, 6e-3)
    ]
    [curve] = charts({"learning_rate": Choice(2e-3, "", {"tried": tried})})["learning_rate"]
    ticks = dict(
        re.findall(r'class="tick" x="([\d.]+)%" y="100%"[^>]*>([\d.e-]+)<', str(curve.chart))
    )
    dots = [float(x) for x in re.findall(r'<circle class="train" cx="([\d.]+)%', str(curve.chart))]
    places = {float(value): float(x) for x, value in ticks.items()}
    assert places[0.001] == pytest.approx(dots[0], abs=0.01)
    assert places[0.002] == pytest.approx(dots[1], abs=0.01)
    assert places[0.005] < dots[2]


def test_next_to_nothing_is_no_leap() -> None:
    axis = Axis.around([0.840, 0.844], least=0.1)
    assert axis.high - axis.low == pytest.approx(0.1)
    lines = [{"step": s, "eval_loss": 0.5, "eval_accuracy": 0.84 + s / 1e5} for s in (100, 500)]
    curves = make_curves(lines, evaluation().metrics)
    assert curves is not None
    [accuracy] = [c for c in curves.others if c.title == "Validation accuracy"]
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)%"', str(accuracy.chart))]
    assert abs(heights[0] - heights[1]) < 6


def losses(train: list[float], evals: list[float]) -> list[dict[str, Any]]:
    return [
        {"step": 10 * at, "train_loss": a, "eval_loss": b}
        for at, (a, b) in enumerate(zip(train, evals, strict=True), start=1)
    ]


def test_over_fitting_is_said_where_the_losses_part() -> None:
    falling = [0.9, 0.7, 0.5, 0.4, 0.3, 0.2]
    found = make_curves(losses(falling, [0.9, 0.7, 0.6, 0.62, 0.7, 0.8]))
    assert found is not None
    said = Page(str(found.over_fitting)).said
    assert "the validation loss rose from step 30 on (0.600 to 0.800 at step 60)" in said
    for train, evals in (
        (falling, [0.9, 0.8, 0.7, 0.6, 0.5, 0.45]),  # both fall
        (falling, [0.9, 0.7, 0.6, 0.601, 0.602, 0.603]),  # no parting
        ([0.9, 0.5, 0.4, 0.6, 0.7, 0.8], [0.9, 0.7, 0.6, 0.7, 0.8, 0.9]),  # both rise
    ):
        other = make_curves(losses(train, evals))
        assert other is not None
        assert other.over_fitting == ""


def test_metrics_have_their_proper_names(run: Path) -> None:
    lines = [line | {"eval_mcc": 0.5, "eval_odd_f1": 0.5} for line in folders.metrics()]
    folders.write_lines(run / "metrics.jsonl", lines)
    page = page_of(run)
    assert "Validation Matthews correlation" in page.said
    assert "Validation odd F1" in page.said
    assert any("Validation Matthews" in str(a.get("aria-label")) for a in page.all("svg"))


# Words ------------------------------------------------------------------------------------


def test_words_of_the_trade_are_explained_where_they_are_used(run: Path) -> None:
    said = page_of(run).said.partition("Words on this page")[2]
    for word in ("nats", "hand-off", "validation loss", "precision, recall, F1"):
        assert word in said
    assert "trunk" not in said
    content = json.loads((run / "choices.json").read_text())
    content["r"]["reason"] = "the trunk went on; its branches on the selection set did not"
    folders.write_json(run / "choices.json", content)
    said = page_of(run).said.partition("Words on this page")[2]
    for word in ("trunk", "branch", "selection set"):
        assert word in said
    assert used("<style>nats</style> <svg>nats</svg>") == {}


def test_the_trials_are_folded(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    section = page.partition('<section id="trials"')[2].partition("</section>")[0]
    assert section.index("<details>") < section.index("<table")


def test_names_that_all_begin_alike_are_told_apart_beside_the_rows() -> None:
    names = ["about the dog", "about the doctor", "about the car", *map("about {}".format, "ab")]
    for count, shown in ((3, "…dog"), (5, "about the dog")):
        columns = ["true", *names[:count]]
        rows: list[list[str | int | float]] = [
            [name, *(3 if other == name else 1 for other in names[:count])]
            for name in names[:count]
        ]
        found = heat_map(confusion_of([{"title": "Confusion", "columns": columns, "rows": rows}]))
        assert found is not None
        assert f">{shown}</span>" in found.grid
        assert 'title="about the dog"' in found.grid

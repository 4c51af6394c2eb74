"""How results show themselves: in one line, and in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lorafit
from lorafit.comparison.outcome import Comparison
from lorafit.result import Run
from tests import tiny_text
from tests.report import folders
from tests.report.comparisons import record

HOSTILE = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """The elements and attributes of a page; fails where one is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def assert_safe(page: str) -> None:
    """Nothing runs, nothing is loaded, and no colour of text or ground is fixed."""
    tags = Tags(page)
    assert not {"script", "style", "link", "img", "iframe"} & set(tags.names)
    assert not {name for name in tags.attributes if name.startswith("on")} | (
        tags.attributes & {"src", "href"}
    )
    styles = page.replace(" ", "")
    assert "color:inherit" in styles
    assert "background:#" not in styles


def rows() -> list[dict[str, str]]:
    """Rows with hostile labels, and a hostile column."""
    found = tiny_text.rows(40, names=(HOSTILE, "fine")).to_list()
    return [row | {HOSTILE: "x"} for row in found]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.save_base(tmp_path_factory.mktemp("base"), "distilbert")


def assert_short(text: str) -> None:
    assert len(text) < 200
    assert "\n" not in text


def test_a_preview_shows_columns_rows_and_labels(base: Path) -> None:
    preview = lorafit.preview(base, rows(), text="text", label="label", progress=False)
    assert_short(repr(preview))
    assert repr(preview).startswith("Preview(sequence classification; text text; label label; ")
    page = preview._repr_html_()
    assert_safe(page)
    assert escape(HOSTILE) in page
    assert "text (as asked)" in page


def test_a_plan_shows_what_training_would_take(base: Path) -> None:
    plan = lorafit.plan(base, rows(), text="text", label="label", r=4, progress=False)
    assert_short(repr(plan))
    assert f"steps up to {plan.steps}" in repr(plan)
    page = plan._repr_html_()
    assert_safe(page)
    assert f"{plan.trainable_parameters:,} of {plan.total_parameters:,}" in page
    assert plan.open_end
    assert f"up to {plan.steps}" in page
    assert f"up to {plan.steps}" not in replace(plan, open_end=False)._repr_html_()
    assert "Chosen by measurement" in replace(plan, measured=frozenset({"r"}))._repr_html_()


def test_a_comparison_shows_a_table_and_the_recommendation(tmp_path: Path) -> None:
    found = record()
    arms = {HOSTILE if name == "lora" else name: arm for name, arm in found.arms.items()}
    shown = Comparison(tmp_path / ("long" * 60), found.model_copy(update={"arms": arms}))
    assert_short(repr(shown))
    page = shown._repr_html_()
    assert_safe(page)
    assert escape(HOSTILE) in page
    assert escape(shown.recommendation) in page


@pytest.mark.parametrize(
    "state", [folders.begun, folders.finished, folders.failed, folders.hostile]
)
def test_a_run_shows_its_verdict_whatever_state_it_is_in(
    state: Callable[[Path], Path], tmp_path: Path
) -> None:
    run = Run(state(tmp_path / ("one" * 40)))
    assert_short(repr(run))
    page = run._repr_html_()
    assert_safe(page)
    assert str(run.path) in page
    if state is folders.finished:
        assert "Better than the base model" in page
        assert "accuracy" in repr(run)


def test_a_loaded_model_names_its_base_and_its_task(base: Path) -> None:
    task = SimpleNamespace(name="sequence_classification")
    model = SimpleNamespace(config=SimpleNamespace(name_or_path="x" * 500))
    tuned = lorafit.Tuned(model, None, None, task, 40)  # type: ignore[arg-type]
    assert_short(repr(tuned))
    assert repr(tuned).endswith("sequence classification)")

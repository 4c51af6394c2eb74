"""Folders that lorafit 0.1.0 left, before its files had a version, still open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lorafit.console import show_comparison, show_evaluation
from lorafit.evidence import ComparisonRecord
from lorafit.report.comparison import write_comparison
from lorafit.report.html import write_report
from lorafit.run import Run
from tests.report.page import Page

BEFORE = Path(__file__).parent / "before"


@pytest.fixture(params=["classes", "text"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(BEFORE / request.param, tmp_path / request.param))


def test_a_run_is_read(run: Run) -> None:
    assert "schema" not in run.eval
    found = run.evaluation
    assert found.schema_version == 0
    assert found.metric is not None
    assert found.tuned[found.metric].value == run.eval["tuned"][found.metric]["value"]
    assert found.paired["nll"].low == run.eval["paired"]["nll"]["low"]
    assert found.handoff is not None
    assert found.handoff.merged == run.eval["handoff"]["merged_max_abs_diff"]
    assert run.choices["target_modules"].value == "all-linear"
    assert run.summary.tuned == found.tuned[found.metric].value
    assert run.evaluation.to_json()["tuned"] == run.eval["tuned"]


def test_its_page_is_made_as_ever(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    page = Page(write_report(run.path).read_text(encoding="utf-8"))
    assert "could not be read" not in page.said
    task = json.loads((run.adapter / "lorafit.json").read_text())["task"]
    assert f"task {task['name']}" in page.said
    assert "Negative log-likelihood" in page.said
    assert "better" in page.said  # the task knows which way its metrics are better
    if run.name == "text":
        assert "perplexity (lower is better)" in page.said
        assert "ROUGE-L" in page.said
    show_evaluation(run.eval)
    assert "difference" in capsys.readouterr().out


def test_a_comparison_is_read_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((BEFORE / "compared" / "compare.json").read_text())
    found = ComparisonRecord.from_json(content)
    assert found.arms["lora"].metric.low == content["arms"]["lora"]["metric"]["low"]
    assert found.arms["full"].difference is None
    assert found.seeds == 2
    again: Any = found.to_json()
    for name, arm in content["arms"].items():
        assert again["arms"][name].items() >= arm.items()
    assert again["fronts"] == content["fronts"]
    page = Page(write_comparison(tmp_path, found).read_text(encoding="utf-8"))
    assert page.unclosed == []
    show_comparison(content, tmp_path)
    shown = capsys.readouterr().out
    assert found.recommendation.sentence in shown
    title = f"Take {found.recommendation.method}: "  # the heading, whose words are not repeated
    assert title.removesuffix(": ") in page.said
    assert found.recommendation.sentence.removeprefix(title)[1:] in page.said

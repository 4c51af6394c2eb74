"""A job gets a run folder when it begins, and only one."""

from __future__ import annotations

from pathlib import Path

from lorafit import pipeline
from lorafit.pipeline.defaults import record_choices
from lorafit.pipeline.job import Job
from lorafit.run import Choice
from lorafit.settings import from_call
from tests import tiny_text


def test_a_job_begins_once_and_its_choices_say_who_made_them(tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "base", "distilbert")
    given = {"run.dir": str(tmp_path / "runs"), "r": 3, "bf16": False}
    settings = from_call(base, tiny_text.splits(24), None, None, given)
    problem = pipeline.pose(tiny_text.splits(24), settings.config)
    planned = Job(problem, pipeline.prepare(problem, settings.config), settings)
    assert not (tmp_path / "runs").exists()

    job = planned.begun()
    assert job.folder.status == "created"
    assert job.folder.origins["adapter.r"] == "keyword r"
    assert job.begun() is job
    assert len(list((tmp_path / "runs").iterdir())) == 1

    measured = {"learning_rate": Choice(1e-3, "it was the best")}
    choices = record_choices(job, measured, {"cost": {"runs": 1.2}})
    assert choices == job.folder.choices
    assert choices["r"].reason == "set by keyword r"
    assert choices["lora_alpha"].reason.startswith("default: ")
    assert choices["learning_rate"] == measured["learning_rate"]
    assert job.folder.choosing_cost == {"runs": 1.2}

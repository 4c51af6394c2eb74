"""Short runs whose length is open: what is found, what it costs, and that it can be killed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict

import lorafit
from lorafit import pipeline
from lorafit.console import show_result
from lorafit.evidence import Course
from lorafit.evidence.measurements import RateTried
from lorafit.pipeline import planning
from lorafit.run import RunWriter
from lorafit.run.config_file import MEASURED
from lorafit.settings import Settings, from_keywords, resolve
from lorafit.tune.rise.size import LENGTHS, TRIAL
from tests import tiny_text
from tests.tune.bench.test_replay import Killed, Killing, Search, Whole, assert_the_same, noted

SMALL: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "engine": "eager",
    "progress": False,
    "bf16": False,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.save_base(tmp_path_factory.mktemp("base"), "distilbert")


@pytest.fixture(scope="module")
def data() -> DatasetDict:
    sizes = {"train": 64, "validation": 40, "test": 40}
    return DatasetDict({n: tiny_text.rows(size, i) for i, (n, size) in enumerate(sizes.items())})


def train(base: Path, data: Any, folder: Path, **more: Any) -> lorafit.Run:
    return lorafit.train(base, data, **(SMALL | {"run.dir": str(folder)} | more))


@pytest.fixture(scope="module")
def run(base: Path, data: DatasetDict, tmp_path_factory: pytest.TempPathFactory) -> lorafit.Run:
    return train(base, data, tmp_path_factory.mktemp("runs"))


def loss(tried: RateTried) -> float:
    assert tried["loss"] is not None
    return tried["loss"]


def test_the_number_of_steps_is_a_measured_choice(run: lorafit.Run) -> None:
    choice = run.choices["num_train_epochs"]
    tried = choice.evidence["lengths"]
    assert [one["steps"] for one in tried] == list(LENGTHS[: len(tried)])
    best = min(tried, key=lambda one: one["loss"])
    course = run.evaluation.course
    assert course is not None
    assert course.steps == best["steps"]
    assert course.most_steps == LENGTHS[-1]
    assert choice.value == run.config.train.num_train_epochs == course.epochs == best["steps"] / 8
    assert run.origins["train.num_train_epochs"] == MEASURED
    # A length is tried only after one that was better than those before it.
    losses = [one["loss"] for one in tried]
    assert all(late < early for early, late in itertools.pairwise(losses[:-1]))


def test_the_rate_is_the_best_of_three_after_as_many_steps(run: lorafit.Run) -> None:
    tried = run.choices["learning_rate"].evidence["tried"]
    assert [one["learning_rate"] for one in tried] == pytest.approx([2e-3 / 3, 2e-3, 6e-3])
    assert {one["steps"] for one in tried} == {TRIAL}
    best = min(tried, key=loss)
    assert run.config.train.learning_rate == pytest.approx(best["learning_rate"], rel=1e-2)


def test_the_plan_says_what_it_costs_at_most_and_it_costs_no_more(
    base: Path, data: DatasetDict, run: lorafit.Run
) -> None:
    settings = {k: v for k, v in SMALL.items() if k != "progress"}
    plan = lorafit.plan(base, data, **settings)
    assert plan.open_end
    assert plan.steps == LENGTHS[-1]
    cost = json.loads((run.path / "choices.json").read_text())["cost"]
    assert plan.budget == pytest.approx(cost["budget"])
    assert plan.budget is not None
    assert 0 < cost["runs"] <= plan.budget
    assert plan.most_time_s == pytest.approx(plan.budget * plan.time_s)


def test_the_metrics_are_those_of_the_delivered_training(run: lorafit.Run) -> None:
    steps = [line["step"] for line in run.metrics if "train_loss" in line]
    assert steps == sorted(set(steps))
    course = run.evaluation.course
    assert course is not None
    assert steps[-1] == course.steps


@pytest.mark.parametrize("given", [{"num_train_epochs": 4}, {"max_steps": 32}])
def test_a_number_that_was_given_is_trained(
    given: dict[str, Any], base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    run = train(base, data, tmp_path, learning_rate=2e-3, **given)
    assert "num_train_epochs" not in run.choices
    course = run.evaluation.course
    assert course is not None
    assert (course.steps, course.most_steps) == (32, None)


def test_with_all_else_set_only_the_length_is_found_out(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    run = train(
        base, data, tmp_path, learning_rate=5e-3, r=4, lora_alpha=8, target_modules=["q_lin"]
    )
    assert run.config.train.learning_rate == 5e-3
    assert len(run.choices["num_train_epochs"].evidence["lengths"]) >= 2
    assert {trial.get("learning_rate", 5e-3) for trial in run.trials} == {5e-3}


@pytest.fixture(scope="module")
def problem(base: Path, data: DatasetDict) -> tuple[pipeline.Problem, Settings]:
    settings = SMALL | {"model.name_or_path": str(base), "data.path": "(live object)"}
    whole = resolve(from_keywords({k: v for k, v in settings.items() if k != "progress"}))
    return pipeline.pose(data, whole.config), whole


def test_killed_after_every_piece_and_inside_every_training(
    problem: tuple[pipeline.Problem, Settings], tmp_path: Path
) -> None:
    search = Search(*problem, 1.7)
    first = search.run_in(tmp_path / "whole")
    whole = Whole(search, first, search.go(first))
    run = search.run_in(tmp_path / "killed")
    kills = 0
    for middle in itertools.cycle((True, False)):
        try:
            found = search.go(run, Killing(run, 1, middle))
            break
        except Killed:
            kills += 1
    assert kills > len(noted(whole.run))
    assert_the_same(run, found, whole)
    assert found.course == whole.found.course


def test_a_time_that_pays_for_less_than_the_most_steps_shortens_the_training(
    base: Path, data: DatasetDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = planning.estimate

    def ten_seconds(job: Any) -> Any:
        found = estimate(job)
        object.__setattr__(found, "time_s", 10.0)
        return found

    monkeypatch.setattr("lorafit.tune.search.estimate", ten_seconds)
    run = train(base, data, tmp_path, budget="5s")
    cost = json.loads((run.path / "choices.json").read_text())["cost"]
    assert cost["budget"] == pytest.approx(0.5)
    assert cost["runs"] <= 0.5
    course = run.evaluation.course
    assert course is not None
    assert course.most_steps is not None
    assert TRIAL <= course.steps <= course.most_steps < 150


def test_whole_runs_are_told_whether_they_were_long_enough_in_the_last_lines(
    base: Path, data: DatasetDict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(base, data, tmp_path, max_steps=40)
    assert {trial["phase"] for trial in run.trials} == {"head", "whole runs"}
    course = run.evaluation.course
    assert course is not None
    assert course.falling is not None
    assert course.steps == 40
    short = Course(40, 5.0, falling=True, setting="max_steps", value=150)
    RunWriter(run.path).write_evaluation(run.evaluation.model_copy(update={"course": short}))
    show_result(lorafit.Run.open(run.path))
    shown = " ".join(capsys.readouterr().out.split())
    assert "The validation loss was still falling at the end: try --max-steps 150." in shown


def test_longer_runs_of_a_given_number_of_steps_try_rates_in_sixty(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    run = train(base, data, tmp_path, max_steps=120)
    cost = json.loads((run.path / "choices.json").read_text())["cost"]
    assert 1.5 < cost["budget"] < 2.6
    assert 1 < cost["runs"] <= cost["budget"]
    tried = run.choices["learning_rate"].evidence["tried"]
    assert [one["steps"] for one in tried] == [TRIAL] * 3
    best = min(tried, key=loss)
    assert run.config.train.learning_rate == pytest.approx(best["learning_rate"], rel=1e-2)
    assert run.evaluation.training["steps"] == 120

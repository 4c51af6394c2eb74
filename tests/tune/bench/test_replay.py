"""A search that is stopped, anywhere and any number of times, comes to the same adapter."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict

from lorafit import pipeline
from lorafit.errors import ConfigError, RunError
from lorafit.pipeline.job import Job
from lorafit.run import RunWriter, digest
from lorafit.run.folder import SEARCH as FOLDER
from lorafit.settings import Settings, from_config, from_keywords, resolve
from lorafit.training.progress import Progress, QuietProgress, Update
from lorafit.tune import search as searching
from lorafit.tune import strategies
from lorafit.tune.base import CHOOSABLE, Found
from lorafit.tune.bench import journal
from lorafit.tune.bench.bench import Bench
from lorafit.tune.bench.rules import Rules
from lorafit.tune.rise import strategy
from tests import tiny_text

STEPS = 300
"""The fewest for which there are branches."""

BUDGETS = {
    "every test is paid for": 2.02,
    "four times the rank is refused, twice is paid for": 1.62,
    "the rank rises, and then a test is refused": 1.72,
    "every test is refused": 1.35,
}

PRUNING = 1.62
"""The budget whose search is also killed at every piece of the pruning."""


@pytest.fixture(scope="module", autouse=True)
def _tests_at_every_budget() -> Iterator[None]:
    """The rank begins low enough for a small model, is tested whatever the budget, and grows.

    What so small a model gains is noise, and the cases are about what follows from a growth.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategy.RankTest, "grows", True)
        # So that all there is of the pruning is done, and cuts something.
        rules = Rules(first_rank=8, room=1.0, pruning=0.4, losable=1.0, losable_share=1000.0)
        patch.setattr(Bench, "rules", rules)
        yield


class Killed(BaseException):
    """Stands for the end of the process."""


class Killing(QuietProgress):
    """Kills the search after a new piece of work, or after the first step of one.

    Args:
        run: Its journal is watched.
        pieces: How many new ones there have to be.
        middle: Whether to kill inside a training.
    """

    def __init__(self, run: RunWriter, pieces: int, middle: bool) -> None:
        self.run, self.middle = run, middle
        self.most = len(noted(run)) + pieces

    def phase(self, name: str, runs: float, time_s: float) -> None:
        if len(noted(self.run)) >= self.most:
            raise Killed

    def step(self, update: Update) -> None:
        if self.middle and len(noted(self.run)) >= self.most - 1:
            raise Killed


def noted(run: RunWriter) -> list[str]:
    """Names of the pieces of work in the journal."""
    return sorted(path.stem for path in (run.path / FOLDER).glob("*.json"))


@dataclass
class Search:
    """What a search is made of; each start prepares model and bench anew, as a process does."""

    problem: pipeline.Problem
    settings: Settings
    budget: float
    encoded: dict[str, Any] | None = None

    def run_in(self, folder: Path) -> RunWriter:
        return RunWriter.create(self.settings.config, folder, None, self.settings.origins)

    def job(self, run: RunWriter | None) -> Job:
        subject = pipeline.prepare(self.problem, self.settings.config, encoded=self.encoded)
        self.encoded = subject.encoded
        return Job(self.problem, subject, self.settings, run)

    def bench(self, run: RunWriter, progress: Progress | None = None) -> Bench:
        return Bench(self.job(run), frozenset(CHOOSABLE), self.budget, progress or QuietProgress())

    def go(self, run: RunWriter, progress: Progress | None = None) -> Found:
        bench = self.bench(run, progress)
        with bench.interruptible():
            return strategies["rise"]().search(bench)

    def killed_after(self, run: RunWriter, pieces: int, middle: bool = False) -> None:
        with pytest.raises(Killed):
            self.go(run, Killing(run, pieces, middle))


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> tuple[pipeline.Problem, Settings]:
    base = tiny_text.save_base(tmp_path_factory.mktemp("base"), "distilbert")
    sizes = {"train": 120, "validation": 100, "test": 40}
    data = DatasetDict({n: tiny_text.rows(size, i) for i, (n, size) in enumerate(sizes.items())})
    settings = {
        "model.name_or_path": str(base),
        "data.path": "(live object)",
        "per_device_train_batch_size": 4,
        "max_steps": STEPS,
        "learning_rate": "auto",
        "bf16": False,
    }
    whole = resolve(from_keywords(settings))
    return pipeline.pose(data, whole.config), whole


@dataclass
class Whole:
    """A search that nobody stopped."""

    search: Search
    run: RunWriter
    found: Found


@pytest.fixture(scope="module")
def wholes(
    problem: tuple[pipeline.Problem, Settings], tmp_path_factory: pytest.TempPathFactory
) -> dict[float, Whole]:
    class ByBudget(dict[float, Whole]):
        def __missing__(self, budget: float) -> Whole:
            search = Search(*problem, budget)
            run = search.run_in(tmp_path_factory.mktemp("whole"))
            self[budget] = Whole(search, run, search.go(run))
            return self[budget]

    return ByBudget()


def assert_the_same(run: RunWriter, found: Found, whole: Whole) -> None:
    """The same adapter byte for byte, for the same reasons, from the same pieces of work."""
    assert noted(run) == noted(whole.run)
    expected = whole.found.state.tensors
    assert found.state.tensors.keys() == expected.keys()
    assert all(torch.equal(found.state.tensors[name], expected[name]) for name in expected)
    assert found.choices == whole.found.choices
    assert found.values == whole.found.values
    assert (found.best_step, found.eval_loss) == (whole.found.best_step, whole.found.eval_loss)
    assert found.train_loss == whole.found.train_loss
    timeless = [
        [{k: v for k, v in trial.items() if k != "time_s"} for trial in one.trials]
        for one in (run, whole.run)
    ]
    assert timeless[0] == timeless[1]
    clock = {"tokens_per_s", "peak_memory_bytes"}
    lines = [
        [{k: v for k, v in line.items() if k not in clock} for line in one.metrics]
        for one in (run, whole.run)
    ]
    assert lines[0] == lines[1]


def test_the_budgets_are_those_that_the_cases_are_about(wholes: dict[float, Whole]) -> None:
    def tested(name: str) -> list[tuple[int, int]]:
        choice = wholes[BUDGETS[name]].found.choices["r"]
        return [(test["r"], test["against"]) for test in choice.evidence["tests"]]

    assert tested("every test is paid for")[0] == (8, 32)
    assert tested("four times the rank is refused, twice is paid for")[0] == (8, 16)
    assert tested("the rank rises, and then a test is refused") == [(8, 16)]
    assert tested("every test is refused") == []


@pytest.mark.parametrize("budget", [1.62, 1.72])
def test_killed_after_every_piece_and_inside_every_training(
    budget: float, wholes: dict[float, Whole], tmp_path: Path
) -> None:
    whole = wholes[budget]
    run = whole.search.run_in(tmp_path)
    kills = 0
    for middle in itertools.cycle((True, False)):
        try:
            found = whole.search.go(run, Killing(run, 1, middle))
            break
        except Killed:
            kills += 1
    assert kills > len(noted(whole.run))
    assert_the_same(run, found, whole)


@pytest.mark.parametrize("budget", [1.35, 2.02])
@pytest.mark.parametrize("part", [0.5, 0.8])
def test_killed_once_it_goes_on_as_if_nothing_had_happened(
    part: float, budget: float, wholes: dict[float, Whole], tmp_path: Path
) -> None:
    whole = wholes[budget]
    run = whole.search.run_in(tmp_path)
    whole.search.killed_after(run, round(part * len(noted(whole.run))))
    assert_the_same(run, whole.search.go(run), whole)


def test_killed_at_every_piece_of_the_pruning(wholes: dict[float, Whole], tmp_path: Path) -> None:
    whole = wholes[PRUNING]
    assert whole.found.values["adapter.r"] == 1 < whole.found.choices["r"].evidence["trained"]
    evidence = whole.found.choices["target_modules"].evidence
    assert len(evidence["without"]) == len(evidence["kinds"]) > 1
    pieces = [t["trial"] for t in whole.run.trials if t["phase"] in ("pruning", "scale")]
    assert any(name.startswith("pruned-") for name in pieces)
    run = whole.search.run_in(tmp_path)
    # "pruned", the state that is delivered, is a piece that costs nothing and is no trial.
    whole.search.killed_after(run, len(noted(whole.run)) - len(pieces) - 1)
    kills = 1
    while True:
        try:
            found = whole.search.go(run, Killing(run, 1, middle=False))
            break
        except Killed:
            kills += 1
    assert kills >= len(pieces)
    assert_the_same(run, found, whole)


@pytest.mark.parametrize("version", [None, 1, 2, journal.VERSION + 1])
def test_a_search_that_another_version_began_is_refused_and_kept(
    wholes: dict[float, Whole], tmp_path: Path, version: int | None
) -> None:
    """Its pieces may have the same names and mean something else."""
    search = wholes[1.72].search
    run = search.run_in(tmp_path)
    search.killed_after(run, 5)
    file = run.path / FOLDER / "budget.json"
    values = json.loads(file.read_text())
    values["facts"] |= {"version": version}
    if version is None:  # as all versions wrote it that did not say
        values = {"facts": {"runs": 1.72}, "state": None}
    elif version > 2:  # before, entries had no digests
        values = digest.sealed(values)
    else:
        del values[digest.CONTENT]
    file.write_text(json.dumps(values))
    before = {path: path.read_bytes() for path in (run.path / FOLDER).iterdir()}
    with pytest.raises(RunError, match=r"searches otherwise.*or delete the folder"):
        search.go(run)
    assert {path: path.read_bytes() for path in (run.path / FOLDER).iterdir()} == before


def test_deleted_weights_are_said_with_what_to_do(
    wholes: dict[float, Whole], tmp_path: Path
) -> None:
    search = wholes[1.35].search
    run = search.run_in(tmp_path)
    search.killed_after(run, 20)
    for path in (run.path / FOLDER).glob("*.state.safetensors"):
        path.unlink()
    with pytest.raises(RunError, match=r"lacks the weights of step .*Delete the folder"):
        search.go(run)


def test_a_signal_while_scoring_stops_once_the_scores_are_noted(
    wholes: dict[float, Whole], tmp_path: Path
) -> None:
    class Signalling(QuietProgress):
        def phase(self, name: str, runs: float, time_s: float) -> None:
            if name == "start" and runs == 0:
                os.kill(os.getpid(), signal.SIGINT)

    whole = wholes[1.35]
    run = whole.search.run_in(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="stopped while choosing"):
        whole.search.go(run, Signalling())
    assert noted(run) == ["budget", "start", "untuned"]
    assert_the_same(run, whole.search.go(run), whole)


def test_a_budget_in_minutes_is_measured_once(
    problem: tuple[pipeline.Problem, Settings], tmp_path: Path
) -> None:
    posed, settings = problem
    little = resolve(from_config(settings.config), from_keywords({"tune.budget": "0.001s"}))
    search = Search(posed, little, 1.72)
    run = search.run_in(tmp_path)
    search.killed_after(run, 2)
    with pytest.raises(ConfigError, match="one run of these epochs takes about"):
        searching.budget_runs(search.job(None))
    wish = searching.wanted(search.job(run))
    assert wish is not None
    assert wish.budget == 1.72

"""`lorafit.train` with nothing pinned chooses by measurement; pinned values are kept."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file

import lorafit
from lorafit.errors import ConfigError
from lorafit.pipeline import finishing
from lorafit.pipeline.job import Job
from lorafit.run import RunWriter
from lorafit.run.config_file import MEASURED
from lorafit.training.stepper import Stepper
from lorafit.tune import search as searching
from lorafit.tune.bench.bench import Bench
from lorafit.tune.bench.rules import Rules
from tests import tiny_text

MANY: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "max_steps": 320,
    "learning_rate": "auto",
    "progress": False,
    "bf16": False,
    "budget": 2.0,
    # A solved head on features of a model that was never trained is moved by rates that a drawn one
    # can stand.
    "head_init": "random",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.save_base(tmp_path_factory.mktemp("base"), "distilbert")


def splits() -> DatasetDict:
    sizes = {"train": 120, "validation": 100, "test": 40}
    return DatasetDict({n: tiny_text.rows(size, i) for i, (n, size) in enumerate(sizes.items())})


@pytest.fixture(scope="module")
def data() -> DatasetDict:
    return splits()


def train(base: Path, data: Any, folder: Path, **more: Any) -> lorafit.Run:
    return lorafit.train(base, data, **(MANY | {"run.dir": str(folder)} | more))


@pytest.fixture(scope="module")
def run(base: Path, data: DatasetDict, tmp_path_factory: pytest.TempPathFactory) -> lorafit.Run:
    return train(base, data, tmp_path_factory.mktemp("runs"))


def test_every_choice_has_a_value_a_reason_and_evidence(run: lorafit.Run) -> None:
    for name in ("learning_rate", "r", "lora_alpha", "target_modules"):
        choice = run.choices[name]
        assert choice.reason, name
        assert not choice.reason.startswith("default"), name
        assert choice.evidence, name
    tests = run.choices["r"].evidence["tests"]
    assert {"mean", "se", "low", "high", "n"} <= set(tests[0]["gain"])


def test_it_is_told_whether_the_loss_was_still_falling(run: lorafit.Run) -> None:
    course = run.evaluation.course
    assert course is not None
    assert (course.steps, course.most_steps) == (320, None)
    assert course.falling is not None  # the branches of the rate and of the rank are enough
    assert (course.advice is not None) == course.falling
    assert course.setting in (None, "max_steps")


def test_the_adapter_is_what_was_chosen(run: lorafit.Run) -> None:
    own = json.loads((run.adapter / "adapter_config.json").read_text())
    assert own["r"] == run.choices["r"].value
    assert own["lora_alpha"] == pytest.approx(run.choices["lora_alpha"].value)
    assert run.config.train.learning_rate == pytest.approx(
        run.choices["learning_rate"].value, rel=0.01
    )
    assert run.origins["adapter.r"] == run.origins["train.learning_rate"] == "measured"
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    ranks = {t.shape[0] for name, t in tensors.items() if name.endswith("lora_A.weight")}
    assert ranks == {own["r"]}


def test_the_ledger_adds_up_and_stays_within_the_budget(run: lorafit.Run) -> None:
    cost = json.loads((run.path / "choices.json").read_text())["cost"]
    assert cost["runs"] == pytest.approx(sum(p["runs"] for p in cost["phases"].values()))
    # Below 1 where rising evaluates less often than a plain run, which does every 7 steps here.
    assert 0.9 < cost["runs"] <= cost["budget"] == MANY["budget"]
    assert sum(trial["runs"] for trial in run.trials) == pytest.approx(cost["runs"], rel=0.02)


def test_the_metrics_are_those_of_the_delivered_lineage(run: lorafit.Run) -> None:
    steps = [line["step"] for line in run.metrics if "train_loss" in line]
    assert steps == sorted(steps)
    assert steps[-1] == 320
    assert run.eval["training"]["steps"] == 320


def test_nothing_of_the_search_is_left_behind(run: lorafit.Run) -> None:
    assert not (run.path / "tune").exists()


def test_the_same_seed_makes_the_same_choices(
    run: lorafit.Run, base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    again = train(base, data, tmp_path)
    assert {n: c.value for n, c in again.choices.items()} == {
        n: c.value for n, c in run.choices.items()
    }
    assert _same_weights(run, again)


def _same_weights(one: lorafit.Run, other: lorafit.Run) -> bool:
    a = load_file(one.adapter / "adapter_model.safetensors")
    b = load_file(other.adapter / "adapter_model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_what_the_user_sets_is_kept_and_its_phase_left_out(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    own: dict[str, Any]
    own = {"r": 3, "learning_rate": 2e-3, "lora_alpha": 5, "target_modules": ["q_lin", "v_lin"]}
    pinned = train(
        *(base, data, tmp_path),
        **own,
        strategy="rise",
    )
    assert not pinned.trials  # nothing was left to choose: a plain run
    own = json.loads((pinned.adapter / "adapter_config.json").read_text())
    assert (own["r"], own["lora_alpha"]) == (3, 5)

    rated = train(base, data, tmp_path, r=3, target_modules=["q_lin", "v_lin"])
    phases = {trial["phase"] for trial in rated.trials}
    assert "learning rate" in phases
    assert not phases & {"rank", "modules"}
    assert json.loads((rated.adapter / "adapter_config.json").read_text())["r"] == 3


def test_a_pinned_alpha_is_kept_while_the_rank_rises(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    run = train(base, data, tmp_path, lora_alpha=6, learning_rate=2e-3)
    assert json.loads((run.adapter / "adapter_config.json").read_text())["lora_alpha"] == 6
    assert run.choices["lora_alpha"].reason.startswith("set by")


def test_a_method_without_a_rank_gets_its_learning_rate(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    run = train(base, data, tmp_path, method="bitfit")
    assert run.origins["train.learning_rate"] == "measured"
    assert "r" not in run.choices


@pytest.mark.parametrize("pieces", [3, 14])
def test_interrupted_anywhere_it_goes_on_to_the_same_adapter(
    pieces: int,
    run: lorafit.Run,
    base: Path,
    data: DatasetDict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, done = Bench.train, [0]

    def stopping(self: Bench, *args: Any, **kwargs: Any) -> Any:
        if done[0] == pieces:
            raise KeyboardInterrupt
        done[0] += 1
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(Bench, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(base, data, tmp_path, **{"run.name": "stopped"})
    monkeypatch.setattr(Bench, "train", whole)
    again = lorafit.train(resume=tmp_path / "stopped", data=data, progress=False)
    assert _same_weights(run, again)
    assert again.choices["r"] == run.choices["r"]
    assert [t["trial"] for t in again.trials] == [t["trial"] for t in run.trials]
    assert len(again.metrics) == len(run.metrics)


@pytest.mark.parametrize("where", [(finishing, "verify_handoff"), (RunWriter, "deliver")])
def test_stopped_after_the_search_it_delivers_what_was_found(
    where: tuple[Any, str],
    run: lorafit.Run,
    base: Path,
    data: DatasetDict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopping(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*where, stopping)
        with pytest.raises(KeyboardInterrupt):
            train(base, data, tmp_path, **{"run.name": "stopped"})
        patch.undo()
        # Nothing is trained again.
        patch.setattr(Stepper, "take", stopping)
        again = lorafit.train(resume=tmp_path / "stopped", data=data, progress=False)
    assert again.status == "done"
    assert _same_weights(run, again)
    assert again.origins["adapter.r"] == MEASURED
    assert again.config.adapter.settings == run.config.adapter.settings
    assert {n: c.value for n, c in again.choices.items()} == {
        n: c.value for n, c in run.choices.items()
    }
    assert not (again.path / "tune").exists()


def test_killed_at_any_write_after_the_training_it_delivers_what_was_found(
    run: lorafit.Run, base: Path, data: DatasetDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finishing, "finish", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(base, data, tmp_path, **{"run.name": "trained"})
    rename, finish = Path.replace, finishing.finish
    statuses = []
    for number in itertools.count():
        folder = shutil.copytree(tmp_path / "trained", tmp_path / f"killed-{number}")
        left = [number]

        def dying(self: Path, target: Any, left: list[int] = left) -> Path:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return rename(self, target)

        def armed(*given: Any) -> None:
            patch.setattr(Path, "replace", dying)
            finish(*given)

        with monkeypatch.context() as patch:
            patch.setattr(Stepper, "take", stopping)  # nothing is trained again
            patch.setattr(finishing, "finish", armed)
            with contextlib.suppress(KeyboardInterrupt):
                lorafit.train(resume=folder, data=data, progress=False)
            killed = lorafit.Run.open(folder)
            statuses.append(killed.status)
            patch.setattr(Path, "replace", rename)
            patch.setattr(finishing, "finish", finish)
            if killed.status != "done":
                killed = lorafit.train(resume=folder, data=data, progress=False)
        assert killed.status == "done"
        assert _same_weights(run, killed)
        assert killed.origins["adapter.r"] == MEASURED
        assert killed.config.adapter.settings == run.config.adapter.settings
        assert killed.choices["r"] == run.choices["r"]
        assert not list(killed.path.glob("*final*"))
        if left[0]:
            break
    # Before the result is whole, between its delivery and the end, and at the end.
    assert list(dict.fromkeys(statuses)) == ["trained", "delivered", "done"]


@pytest.mark.parametrize("pieces", [2, 8])
def test_killed_by_the_system_it_goes_on_to_the_same_adapter(
    pieces: int, run: lorafit.Run, base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, rows in data.items():
        rows.to_csv(folder / f"{name}.csv", index=False)
    script = textwrap.dedent(
        f"""
        import lorafit
        settings = {MANY!r} | {{"run.dir": {str(tmp_path)!r}, "run.name": "killed"}}
        lorafit.train({str(base)!r}, {str(folder)!r}, **settings)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": "src:."}
    )
    journal, deadline = tmp_path / "killed" / "tune", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if journal.is_dir() and len(list(journal.glob("trunk-*.json"))) >= pieces:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    process.wait()
    again = lorafit.train(resume=tmp_path / "killed", progress=False)
    assert _same_weights(run, again)


def test_the_search_cannot_see_the_test_split(
    base: Path, data: DatasetDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forbidden:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"the search asked the test split for {name}")

        def __len__(self) -> int:
            raise AssertionError("the search asked how long the test split is")

        def __getitem__(self, key: Any) -> Any:
            raise AssertionError("the search read the test split")

    whole = searching.search

    def guarded(job: Job, *rest: Any) -> Any:
        problem, subject = job.problem, job.subject
        rows = problem.splits.pop("test")
        test, subject.encoded["test"] = subject.encoded["test"], cast(Any, Forbidden())
        found = whole(job, *rest)
        subject.encoded["test"], problem.splits["test"] = test, rows
        return found

    monkeypatch.setattr(searching, "search", guarded)
    run = train(base, data, tmp_path)
    assert run.eval["n"] == len(data["test"])


def test_shuffled_labels_lead_to_the_smallest_rank_and_no_claim(base: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shuffled = {
        name: Dataset.from_dict(
            {"text": rows["text"], "label": random.permutation(rows["label"]).tolist()}
        )
        for name, rows in splits().items()
    }
    run = train(base, DatasetDict(shuffled), tmp_path)
    assert run.choices["r"].value == Rules.first_rank
    assert "more does not help" not in run.choices["r"].reason
    assert run.evaluation.course is not None
    assert not run.evaluation.course.falling


def test_too_few_steps_are_said_and_the_defaults_taken(
    base: Path, data: DatasetDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="lorafit"):
        run = train(base, data, tmp_path, max_steps=10)
    assert "10 steps are too few to measure anything" in caplog.text
    assert run.choices["r"].value == 8
    assert not run.trials


def test_short_runs_are_compared_whole(base: Path, data: DatasetDict, tmp_path: Path) -> None:
    open_budget = {name: value for name, value in MANY.items() if name != "budget"}
    run = lorafit.train(base, data, **open_budget | {"run.dir": str(tmp_path), "max_steps": 60})
    assert {trial["phase"] for trial in run.trials} == {"whole runs"}
    cost = json.loads((run.path / "choices.json").read_text())["cost"]
    assert 1 < cost["runs"] < 3.2
    assert len(run.choices["learning_rate"].evidence["tried"]) == 3


def test_short_runs_keep_to_a_budget_that_was_given(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    run = train(base, data, tmp_path, max_steps=60, budget=1.5)
    assert json.loads((run.path / "choices.json").read_text())["cost"]["runs"] < 1.5
    assert "the budget of 1.5 runs pays for no other rate" in run.choices["learning_rate"].reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "rize"}, 'no strategy "rize".*[Dd]id you mean.*rise'),
        ({"budget": "soon"}, "a number of runs such as 1.5, or a time"),
        ({"budget": 0.5}, "at least 1"),
        ({"budget": "0.001s"}, "one run of these epochs takes about"),
        ({"r": "many"}, "adapter.r"),
    ],
)
def test_wrong_settings_are_one_clear_error(
    settings: dict[str, Any], message: str, base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(base, data, tmp_path, **settings)
    assert not any(tmp_path.iterdir())

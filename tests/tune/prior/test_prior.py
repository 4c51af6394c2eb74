"""A run with a prior begins near earlier ones and leaves its line; without one nothing changes."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict
from safetensors.torch import load_file

import lorafit
from lorafit import pipeline
from lorafit.errors import ConfigError
from lorafit.methods import methods
from lorafit.pipeline.job import Job
from lorafit.run.folder import SEARCH
from lorafit.settings import from_keywords, resolve
from lorafit.training.progress import QuietProgress
from lorafit.tune.bench.bench import Bench
from lorafit.tune.prior.centre import ENTRY, NOISE, SPREAD, Centre, similarity, situation
from lorafit.tune.prior.centre import first as first_rate
from lorafit.tune.prior.lessons import Lesson, add, read
from lorafit.tune.rise.size import FACTORS
from tests import tiny_text

USUAL = 2e-3
SIZES = {"train": 64, "validation": 40, "test": 40}
SMALL: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "engine": "eager",
    "progress": False,
    "bf16": False,
}
LONG: dict[str, Any] = SMALL | {
    "per_device_train_batch_size": 4,
    "max_steps": 320,
    "warmup_ratio": 0.1,
    "strategy": "rise",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.save_base(tmp_path_factory.mktemp("base"), "distilbert")


@pytest.fixture(scope="module")
def data() -> DatasetDict:
    return DatasetDict({n: tiny_text.rows(size, i) for i, (n, size) in enumerate(SIZES.items())})


def train(base: Path, data: Any, folder: Path, **more: Any) -> lorafit.Run:
    return lorafit.train(base, data, **(SMALL | {"run.dir": str(folder / "runs")} | more))


@pytest.fixture(scope="module")
def first(base: Path, data: DatasetDict, tmp_path_factory: pytest.TempPathFactory) -> lorafit.Run:
    """A run whose prior is not there yet."""
    folder = tmp_path_factory.mktemp("first")
    return train(base, data, folder, prior=str(folder / "prior.jsonl"))


def line_of(run: lorafit.Run) -> Lesson:
    (line,) = read(run.path.parents[1] / "prior.jsonl")
    return line


def centre(run: lorafit.Run) -> float:
    tried = run.choices["learning_rate"].evidence["tried"]
    return sorted(line["learning_rate"] for line in tried)[1]


def same_weights(one: lorafit.Run, other: lorafit.Run) -> bool:
    a, b = (load_file(run.adapter / "adapter_model.safetensors") for run in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_run_leaves_its_line(first: lorafit.Run) -> None:
    line = line_of(first)
    assert (line.task, line.method, line.classes) == ("sequence_classification", "lora", 2)
    assert (line.batch_size, line.usual) == (8, USUAL)
    assert line.best == pytest.approx(first.config.train.learning_rate)
    assert line.r == first.choices["r"].value
    assert line.cost == pytest.approx(first.choosing_cost["runs"])
    gain = first.evaluation.base["nll"].value - first.evaluation.tuned["nll"].value
    assert line.gain == pytest.approx(gain)


def test_the_line_has_no_texts_and_no_names_of_files(first: lorafit.Run) -> None:
    kept = json.loads(line_of(first).model_dump_json())
    words = {name: value for name, value in kept.items() if isinstance(value, str | list)}
    assert words == {
        "task": "sequence_classification",
        "method": "lora",
        "modules": "all-linear",
    }


def test_an_empty_prior_changes_nothing(
    first: lorafit.Run, base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    plain = train(base, data, tmp_path)
    assert plain.choices == first.choices
    assert same_weights(plain, first)
    assert not list(tmp_path.glob("*.jsonl"))


def taught(first: lorafit.Run, file: Path, best: float, count: int) -> float:
    """Writes lines of the same situation; the centre that they make."""
    for number in range(count):
        values = {"best": best, "cost": 1.0 + number}
        add(file, line_of(first).model_copy(update=values))
    share = count / (count + (NOISE / SPREAD) ** 2)
    return USUAL * math.exp(share * math.log(best / USUAL))


def test_the_first_rates_are_around_what_near_runs_found(
    first: lorafit.Run, base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    file = tmp_path / "prior.jsonl"
    wanted = taught(first, file, USUAL / 2, 3)
    run = train(base, data, tmp_path, prior=str(file))
    choice = run.choices["learning_rate"]
    rates = [line["learning_rate"] for line in choice.evidence["tried"]]
    assert rates == pytest.approx(sorted(wanted * factor for factor in FACTORS))
    assert choice.evidence["prior"]["near"] == 3
    assert "because of 3 earlier runs of yours" in choice.reason
    assert len(read(file)) == 4
    assert read(file)[-1].usual == USUAL


def test_a_long_search_begins_there_too_and_is_resumed_without_the_file(
    first: lorafit.Run,
    base: Path,
    data: DatasetDict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a search decides by is written down: the file may be gone, other or damaged by then."""
    files = [tmp_path / name for name in ("whole.jsonl", "stopped.jsonl")]
    for file in files:
        add(file, line_of(first).model_copy(update={"best": 2 * USUAL}))
    whole = train(base, data, tmp_path, **LONG, prior=str(files[0]))
    assert centre(whole) > USUAL * math.sqrt(4 / 32)
    usual = read(files[0])[-1].usual
    assert usual == pytest.approx(USUAL * math.sqrt(4 / 32))

    done, trains = [0], Bench.train

    def stopping(self: Bench, *args: Any, **kwargs: Any) -> Any:
        if done[0] == 2:
            raise KeyboardInterrupt
        done[0] += 1
        return trains(self, *args, **kwargs)

    monkeypatch.setattr(Bench, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(base, data, tmp_path, **LONG, prior=str(files[1]), **{"run.name": "stopped"})
    monkeypatch.setattr(Bench, "train", trains)
    stopped = tmp_path / "runs" / "stopped"
    assert (stopped / SEARCH / f"{ENTRY}.json").is_file()
    files[1].write_text("damaged\n")
    again = lorafit.train(resume=stopped, data=data, progress=False)
    assert again.choices["learning_rate"] == whole.choices["learning_rate"]
    assert same_weights(again, whole)
    damaged, line = files[1].read_text().splitlines()
    assert damaged == "damaged"  # a line is added, what others wrote is not touched
    assert Lesson.model_validate_json(line) == read(files[0])[-1]


def test_a_damaged_file_is_refused_before_there_is_a_run(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    file = tmp_path / "prior.jsonl"
    file.write_text("{}\n")
    with pytest.raises(ConfigError, match=r"line 1 of .* is damaged"):
        train(base, data, tmp_path, prior=str(file))
    with pytest.raises(ConfigError, match="there is no folder"):
        train(base, data, tmp_path, prior=str(tmp_path / "missing" / "prior.jsonl"))
    with pytest.raises(ConfigError, match="prior is for the strategy rise"):
        train(base, data, tmp_path, prior=str(tmp_path / "new.jsonl"), strategy="none")
    assert not (tmp_path / "runs").exists()


def test_a_rate_that_is_set_neither_asks_nor_teaches(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    file = tmp_path / "prior.jsonl"
    run = train(base, data, tmp_path, prior=str(file), learning_rate=1e-3, max_steps=40)
    assert run.config.train.learning_rate == 1e-3
    assert not file.exists()


def test_a_line_that_cannot_be_added_costs_the_run_nothing(
    base: Path,
    data: DatasetDict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "prior.jsonl"

    def stepping(self: Bench) -> Any:
        file.mkdir(exist_ok=True)  # in the way, once the search has begun
        return starts(self)

    starts = Bench.start
    monkeypatch.setattr(Bench, "start", stepping)
    with caplog.at_level(logging.WARNING, logger="lorafit"):
        run = train(base, data, tmp_path, prior=str(file))
    assert run.status == "done"
    assert any("The run itself is complete" in message for message in caplog.messages)


@pytest.mark.parametrize("method", sorted(methods))
def test_every_method_has_a_situation(method: str, data: DatasetDict, tmp_path: Path) -> None:
    """Also those without a rank, and those that leave nothing of the model frozen."""
    base = tiny_text.save_base(tmp_path, "bert")
    given = {"model.name_or_path": str(base), "data.path": "(live object)", "method": method}
    settings = resolve(from_keywords(given | {"bf16": False}))
    problem = pipeline.pose(data, settings.config)
    job = Job(problem, pipeline.prepare(problem, settings.config), settings)
    bench = Bench(job, frozenset({"train.learning_rate"}), 1.25, QuietProgress(), ())
    here = situation(bench)
    assert here.method == method
    assert (here.alpha is None) == ("lora_alpha" not in settings.config.adapter.settings)
    assert similarity(here, here) == 1.0
    assert first_rate(bench, 1e-3) == Centre(1e-3, 1e-3)

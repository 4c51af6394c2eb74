"""Strategies of whole runs: what they try, what it costs, and that they can be killed."""

from __future__ import annotations

import builtins
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict
from safetensors.torch import load_file

import lorafit
from lorafit.console import show_result
from lorafit.errors import ConfigError, TrainingError
from lorafit.tune import strategies, whole
from lorafit.tune.bench import bench
from lorafit.tune.bench.bench import Bench
from lorafit.tune.grid import Grid
from tests import tiny_text

SHORT: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "num_train_epochs": 3,
    "engine": "eager",
    "progress": False,
    "bf16": False,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.save_base(tmp_path_factory.mktemp("base"), "distilbert")


@pytest.fixture(scope="module")
def data() -> DatasetDict:
    return tiny_text.splits(96)


def train(base: Path, data: Any, folder: Path, strategy: str, budget: float, **more: Any) -> Any:
    settings = {"tune.strategy": strategy, "tune.budget": budget, "run.dir": str(folder)}
    return lorafit.train(base, data, **(SHORT | settings | more))


RANKS, FACTORS = (1, 4), (1 / 3, 1.0)


@strategies.register("small grid")
class SmallGrid(Grid):
    ranks = RANKS
    rate_factors = FACTORS


@pytest.fixture(scope="module")
def grid(base: Path, data: DatasetDict, tmp_path_factory: pytest.TempPathFactory) -> lorafit.Run:
    """Two rates and two ranks on all linear layers: four runs."""
    folder = tmp_path_factory.mktemp("grid")
    run: lorafit.Run = train(base, data, folder, "small grid", 4, target_modules="all-linear")
    return run


def runs_of(run: lorafit.Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.read_json("choices.json")["whole_runs"]
    return found


def test_the_grid_tries_every_combination_and_keeps_the_best(grid: lorafit.Run) -> None:
    tried = runs_of(grid)
    assert {(p["r"], p["learning_rate"]) for p in tried} == {
        (r, 2e-3 * factor) for r in RANKS for factor in FACTORS
    }
    assert len(tried) == 4
    best = min(tried, key=lambda p: p["loss"])
    assert grid.choices["r"].value == best["r"]
    assert grid.choices["learning_rate"].value == best["learning_rate"]
    assert "target_modules" not in [c for c in grid.choices if grid.origins.get(c) == "measured"]
    tensors = load_file(grid.adapter / "adapter_model.safetensors")
    ranks = {t.shape[0] for name, t in tensors.items() if name.endswith("lora_A.weight")}
    assert ranks == {best["r"]}


def test_every_rank_has_the_same_scaling_and_rivals_are_compared_in_pairs(
    grid: lorafit.Run,
) -> None:
    own = json.loads((grid.adapter / "adapter_config.json").read_text())
    assert own["lora_alpha"] / own["r"] == 2
    rivals = grid.choices["r"].evidence["rivals"]
    assert {rival["value"] for rival in rivals} == set(RANKS) - {own["r"]}
    # The gain of the winner over the best run of every other rank: never negative.
    assert all(rival["gain"]["mean"] >= 0 for rival in rivals)


def test_a_grid_costs_as_many_runs_less_what_smaller_ranks_save(grid: lorafit.Run) -> None:
    """A plain run has rank 8, and in so small a model the factors are a good part of it."""
    cost = grid.read_json("choices.json")["cost"]
    assert 2 < cost["runs"] < 4
    assert sum(trial["runs"] for trial in grid.trials) == pytest.approx(cost["runs"])


def test_tpe_makes_as_many_runs_as_the_budget_pays_for(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    run = train(base, data, tmp_path, "tpe", 3.9, r=4)
    tried = runs_of(run)
    assert 1 <= len(tried) <= 3
    storage = JournalStorage(JournalFileBackend(str(run.path / "optuna.log")))
    study = optuna.load_study(study_name="lorafit", storage=storage)
    assert len(study.trials) == 3
    assert study.best_value == pytest.approx(min(p["loss"] for p in tried))
    low, high = 2e-3 * whole.RATE_FACTORS[0], 2e-3 * whole.RATE_FACTORS[-1]
    assert all(low * 0.99 <= p["learning_rate"] <= high * 1.01 for p in tried)
    assert run.config.adapter.settings["r"] == 4
    assert "r" not in tried[0]  # it was set, so it is not searched


def test_a_killed_search_goes_on_and_asks_the_same(
    base: Path, data: DatasetDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_search = train(base, data, tmp_path / "a", "tpe", 3, r=2)
    done = Bench.score
    calls = 0

    def dies(self: Bench, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 15:  # in the second of three runs, which are evaluated twelve times each
            raise MemoryError("killed")
        return done(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Bench, "score", dies)
        with pytest.raises(MemoryError):
            train(base, data, tmp_path / "b", "tpe", 3, r=2)
    [killed] = lorafit.Run.list(tmp_path / "b")
    resumed = lorafit.train(base, data, resume=killed, progress=False)
    assert runs_of(resumed) == runs_of(whole_search)
    one, other = (
        load_file(r.adapter / "adapter_model.safetensors") for r in (whole_search, resumed)
    )
    assert all((one[name] == other[name]).all() for name in one)


def test_budgets_that_pay_for_too_little_are_refused(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="the grid is 24 whole runs, and"):
        train(base, data, tmp_path, "grid", 1.5)
    with pytest.raises(ConfigError, match="give it 2 runs or more"):
        train(base, data, tmp_path, "tpe", 1.5)


def test_without_optuna_it_says_what_to_install(
    base: Path, data: DatasetDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "optuna":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"pip install 'lorafit\[tpe\]'"):
        train(base, data, tmp_path, "tpe", 4)


def test_a_grid_that_diverges_everywhere_says_so(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    given = {"learning_rate": 1e20, "target_modules": "all-linear", "max_grad_norm": None}
    with pytest.raises(TrainingError, match="every run diverged"):
        train(base, data, tmp_path, "small grid", 2, **given)


@pytest.mark.parametrize(
    ("more", "advised"),
    [({"r": 1, "lora_alpha": 2}, False), ({"learning_rate": 1e-2}, True)],
    ids=["open", "set"],
)
def test_a_rate_is_advised_only_where_the_search_tries_no_others(
    base: Path,
    data: DatasetDict,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, Any],
    advised: bool,
) -> None:
    monkeypatch.setattr(bench, "guessing", lambda *_: 1e-6)  # nothing learns so much
    given = {"target_modules": "all-linear"} | more
    with caplog.at_level(logging.WARNING, "lorafit"):
        train(base, data, tmp_path, "small grid", 2, **given)
    said = [record.message for record in caplog.records if "diverges at" in record.message]
    assert len(said) == 2  # of two runs: at each rate, or at each rank
    assert all(("Try learning_rate=" in line) is advised for line in said)


def test_a_word_for_all_layers_is_not_taken_apart(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search too short for branches keeps the default, which is a word and no list."""
    run = train(base, tiny_text.splits(24), tmp_path, "rise", 1)
    assert run.choices["target_modules"].value == "all-linear"
    show_result(run)
    assert "target_modules   all-linear" in " ".join(capsys.readouterr().out.split("\n"))
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert '<code>target_modules</code> <span class="equals"><span class="text">all-linear' in page

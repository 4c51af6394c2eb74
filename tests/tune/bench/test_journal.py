"""A search's journal that somebody has changed: one clear error, and never another search."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from benchmarks.soak import mutate

from lorafit.errors import RunError
from lorafit.run import Run, digest
from lorafit.run.folder import SEARCH
from lorafit.tune.bench.journal import BUDGET, Entry, Journal, noted_budget
from lorafit.tune.bench.state import Shape, State

NAMES = ("start", "rate-0.002", "trunk-3")


def made(name: str) -> Entry:
    """A piece of work as a search notes it."""
    number = NAMES.index(name)
    tensors = {"weight/lora_A": torch.full((2, 3), number + 0.5), "step/lora_A": torch.ones(2, 1)}
    generators: Any = {"python": [3, [number, 2**32 - 1], None]}
    state = State(number, Shape({"r": 2, "target_modules": ["q"]}), tensors, generators, 6)
    facts: Any = {"cost": {"trained": 1.5, "time_s": 0.25}, "diverged": False, "lines": []}
    return Entry(name, facts, {"losses": torch.arange(3.0) + number}, state)


def nothing() -> Entry:
    raise AssertionError("the entry was there, and was computed again")


def journal(folder: Path) -> Journal:
    found = Journal(Run(folder))
    found.begin(1.25)
    return found


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    (folder / "config.yaml").touch()  # what makes it a run
    whole = journal(folder)
    for name in NAMES:
        whole.once(name, partial(made, name))
    return folder


@pytest.fixture
def run(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "run"))


def assert_as_made(entry: Entry, expected: Entry) -> None:
    assert (entry.name, entry.facts) == (expected.name, expected.facts)
    assert entry.kept is not None
    assert expected.kept is not None
    assert (entry.kept.step, entry.kept.shape.settings, entry.kept.factors) == (
        expected.kept.step,
        expected.kept.shape.settings,
        expected.kept.factors,
    )
    assert entry.kept.generators == expected.kept.generators
    for found, made in (
        (entry.arrays, expected.arrays),
        (entry.kept.tensors, expected.kept.tensors),
    ):
        assert found.keys() == made.keys()
        assert all(torch.equal(found[key], made[key]) for key in made)


def test_what_was_written_is_read_as_it_was(run: Path) -> None:
    assert noted_budget(Run(run)) == 1.25
    again = journal(run)
    for name in NAMES:
        assert_as_made(again.once(name, nothing), made(name))


def files() -> list[str]:
    endings = ("json", "arrays.safetensors", "state.safetensors")
    return [f"{name}.{ending}" for name in NAMES for ending in endings]


@pytest.mark.parametrize("file", [f"{BUDGET}.json", f"{BUDGET}.arrays.safetensors", *files()])
def test_a_changed_file_is_refused_with_what_to_do_or_says_the_same(run: Path, file: str) -> None:
    path, name = run / SEARCH / file, file.partition(".json")[0].partition(".arrays")[0]
    name = name.partition(".state")[0]
    whole, refused, count = path.read_bytes(), 0, 150
    damage = mutate.json_damaged if path.suffix == ".json" else mutate.damaged
    for number in range(count):
        path.write_bytes(damage(whole, Random(f"{file}:{number}")))
        try:
            again = journal(run)
            if name != BUDGET:
                assert_as_made(again.once(name, nothing), made(name))
            assert noted_budget(Run(run)) == 1.25
        except RunError as error:
            refused += 1
            said = str(error)
            assert "\n" not in said
            assert str(run / SEARCH) in said
            assert "elete the folder" in said
    assert refused > 0.9 * count


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def done(folder: Path) -> None:
        values = json.loads((folder / "trunk-3.json").read_text())
        change(values)
        (folder / "trunk-3.json").write_text(json.dumps(values))

    return done


def renamed(folder: Path) -> None:
    """An entry, with its files, in another's place."""
    for file in folder.glob("start.*"):
        shutil.copy(file, folder / file.name.replace("start", "trunk-3"))


EDITS: dict[str, Callable[[Path], Any]] = {
    "a better loss": edit(lambda values: values["facts"].update(diverged=True)),
    "a cost left out": edit(lambda values: values["facts"].pop("cost")),
    "another step": edit(lambda values: values["state"].update(step=0)),
    "no state": edit(lambda values: values.update(state=None)),
    "no digest": edit(lambda values: values.pop(digest.CONTENT)),
    "another entry": renamed,
    "another's arrays": lambda f: shutil.copy(
        f / "start.arrays.safetensors", f / "trunk-3.arrays.safetensors"
    ),
    "another's weights": lambda f: shutil.copy(
        f / "start.state.safetensors", f / "trunk-3.state.safetensors"
    ),
    "no arrays": lambda f: (f / "trunk-3.arrays.safetensors").unlink(),
    "no budget": lambda f: (f / f"{BUDGET}.json").unlink(),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_is_noticed(run: Path, what: str) -> None:
    EDITS[what](run / SEARCH)
    with pytest.raises(RunError, match=r"is damaged: .*\. Delete the folder"):
        journal(run).once("trunk-3", nothing)


def test_weights_that_nothing_starts_from_may_be_gone(run: Path) -> None:
    first = journal(run)
    first.forget(first.once("trunk-3", nothing))
    entry = journal(run).once("trunk-3", nothing)
    assert entry.kept is not None
    assert (entry.kept.step, entry.kept.tensors) == (2, {})

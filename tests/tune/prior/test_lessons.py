"""The file of a prior: whole lines only, whoever writes at once; damage is one clear line."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from lorafit.errors import ConfigError, RunError
from lorafit.tune.prior.lessons import Lesson, add, read, told
from tests.faults.mutants import deep, mutants


def lesson(**more: object) -> Lesson:
    values = {
        "task": "sequence_classification",
        "method": "lora",
        "modules": "all-linear",
        "alpha": 16.0,
        "parameters": 10_000_000,
        "hidden_size": 384,
        "classes": 2,
        "tokens": 1e5,
        "tokens_per_row": 25.0,
        "batch_size": 8,
        "epochs": 2.0,
        "usual": 1e-3,
        "best": 2e-3,
        "learning_rate": 1.8e-3,
        "r": 8,
        "lora_alpha": 6.5,
        "cost": 1.2,
        "gain": 0.3,
    }
    return Lesson.model_validate(values | more)


def test_what_was_added_is_read_and_a_missing_file_is_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "prior.jsonl"
    assert read(file) == []
    lines = [lesson(), lesson(modules=["query", "value"], best=None), lesson(r=None, classes=None)]
    assert all(add(file, line) for line in lines)
    assert read(file) == lines
    assert told(lines) == [lines[0], lines[2]]
    assert file.read_bytes().count(b"\n") == len(lines)


def test_a_line_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    file = tmp_path / "prior.jsonl"
    assert add(file, lesson())
    before = file.read_bytes()
    assert not add(file, lesson())
    assert file.read_bytes() == before


def _add_many(file: Path, writer: int) -> None:
    for number in range(20):
        add(file, lesson(cost=1 + writer + number / 100))


def test_processes_that_add_at_once_lose_and_tear_nothing(tmp_path: Path) -> None:
    file = tmp_path / "prior.jsonl"
    processes = [
        multiprocessing.get_context("fork").Process(target=_add_many, args=(file, writer))
        for writer in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    costs = {line.cost for line in read(file)}
    assert costs == {1 + writer + number / 100 for writer in range(4) for number in range(20)}


def test_the_rest_of_a_killed_write_is_passed_over_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "prior.jsonl"
    add(file, lesson())
    whole = file.read_bytes()
    for end in range(1, len(whole) - 1, 7):
        file.write_bytes(whole + whole[:end])
        assert read(file) == [lesson()]
        assert add(file, lesson(r=4))
        assert read(file) == [lesson(), lesson(r=4)]


def test_a_last_line_without_its_end_counts(tmp_path: Path) -> None:
    file = tmp_path / "prior.jsonl"
    add(file, lesson())
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    assert read(file) == [lesson()]
    assert not add(file, lesson())
    assert add(file, lesson(r=4))
    assert read(file) == [lesson(), lesson(r=4)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "it is not JSON"),
        (deep(20_000), "it is not JSON"),
        ("[]", r"it is \[\]"),
        (lesson().model_dump_json(exclude={"usual"}), "usual is missing"),
        (json.dumps(lesson().model_dump(mode="json") | {"best": -1}), "best is -1"),
        (json.dumps(lesson().model_dump(mode="json") | {"schema": 99}), "schema is 99"),
    ],
)
def test_a_damaged_line_is_named_with_what_to_do(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "prior.jsonl"
    add(file, lesson())
    with file.open("a") as out:
        out.write(line + "\n")
    with pytest.raises(ConfigError, match=rf"line 2 of .* is damaged: {said}.*Delete that line"):
        read(file)


def test_damage_of_any_kind_is_one_clear_line_or_harmless(tmp_path: Path) -> None:
    """Whatever is read is within its bounds, so that nothing later can fail on it."""
    file = tmp_path / "prior.jsonl"
    said: list[str] = []
    for damaged in mutants(lesson().model_dump(mode="json", by_alias=True), 400, seed=0):
        file.write_bytes(damaged + b"\n")
        try:
            found = read(file)
        except ConfigError as error:
            said.append(str(error))
            continue
        for one in found:
            assert one.usual > 0
            assert one.parameters > 0
    assert 100 < len(said) < 400
    assert not any("\n" in message for message in said)


def test_what_cannot_be_a_file_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        read(tmp_path / "missing" / "prior.jsonl")
    with pytest.raises(ConfigError, match="cannot read"):
        read(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read(tmp_path / "binary")


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "prior.jsonl"
    add(file, lesson())
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        add(file, lesson(r=4))
    assert file.read_bytes() == before

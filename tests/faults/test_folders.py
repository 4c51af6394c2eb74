"""Folders that appear whole, whatever kills the process that makes them, and block no name."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from datasets import DatasetDict

from lorafit.comparison.request import Request, find_or_make
from lorafit.config import Config, DataConfig, ModelConfig
from lorafit.errors import RunError
from lorafit.export.folder import staged
from lorafit.pipeline.problem import Live
from lorafit.run import Run, RunWriter, atomic, locks, stage
from tests import tiny, tiny_text
from tests.faults.operations import forked, kill

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
CONFIG = Config(model=ModelConfig(name_or_path="m"), data=DataConfig(path="d"))


def each_operation(work: Callable[[Path], Any], top: Path) -> Iterator[Path]:
    """A folder for each file operation of some work, in which it was killed before that."""
    whole = forked(lambda: work(top / "whole"), top / "whole")
    assert whole.code == 0, whole.error
    assert whole.operations
    for number in range(1, len(whole.operations) + 1):
        folder = top / str(number)
        assert forked(lambda: work(folder), folder, kill(number)).code == -9  # noqa: B023 called here
        yield folder


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(f"{atomic.TEMPORARY}*")]


def test_a_kill_while_a_run_is_made_does_not_block_its_name(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        RunWriter.create(CONFIG, folder, "x")

    for folder in each_operation(make, tmp_path):
        if not (folder / "x").exists():
            make(folder)
        assert Run(folder / "x").config == CONFIG
        assert Run(folder / "x").summary.status == "interrupted"
        assert len(Run.list(folder)) == 1
        with pytest.raises(RunError, match="exists and is never overwritten"):
            make(folder)
        assert leftovers(folder) == []


def request(folder: Path, name: str | None = "x") -> Request:
    config = CONFIG.model_dump(mode="json")
    config["run"] |= {"dir": str(folder), "name": name}
    return Request(
        config=config,
        arms={"lora": {}},
        rates={"lora": 1e-3},
        seeds=1,
        budget=1.0,
        steps=1,
        trial_steps=1,
        noise=[],
        task={},
        parameters=1,
        base="m",
        data={},
        general="",
        text_length=8,
    )


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Live:
    tokenizer = tiny_text.bert_tokenizer(tmp_path_factory.mktemp("words"))
    return Live(hf.AutoModel.from_config(tiny.CONFIGS["bert"](pad_token_id=0)), tokenizer)


def test_a_kill_while_a_comparison_is_made_does_not_block_it(tmp_path: Path, live: Live) -> None:
    splits = DatasetDict({"test": tiny_text.rows(2)})

    def make(folder: Path) -> tuple[Path, bool]:
        return find_or_make(request(folder), splits, ["a text"], live)

    for folder in each_operation(lambda folder: str(make(folder)), tmp_path):
        was_there = (folder / "x").exists()
        found, known = make(folder)
        assert (found, known) == (folder / "x", was_there)
        assert make(folder) == (found, True)
        made = Request.read(found)
        assert made.saved
        assert replace(made, saved=None) == request(folder)
        assert hf.AutoTokenizer.from_pretrained(found / "base").get_vocab()
        assert hf.AutoModel.from_pretrained(found / "base").num_parameters() > 0
        assert (found / "data" / "test").is_dir()
        assert leftovers(folder) == []


def test_a_live_comparison_that_an_earlier_version_left_without_its_model_goes_on(
    tmp_path: Path, live: Live
) -> None:
    splits = DatasetDict({"test": tiny_text.rows(2)})
    folder, _ = find_or_make(request(tmp_path), splits, ["a text"])
    assert not (folder / "base").exists()
    assert find_or_make(request(tmp_path), splits, ["a text"], live) == (folder, True)
    assert hf.AutoTokenizer.from_pretrained(folder / "base").get_vocab()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("damaged", ["", "[]", "null", "{", '{"key": 1}', "\udc80"])
def test_a_damaged_comparison_stops_no_other(
    tmp_path: Path, damaged: str, caplog: pytest.LogCaptureFixture
) -> None:
    splits = DatasetDict({"test": tiny_text.rows(2)})
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "request.json").write_bytes(damaged.encode(errors="surrogateescape"))
    folder, known = find_or_make(request(tmp_path, None), splits, ["a text"])
    assert (folder.name, known) == ("m-d-compare-001", False)
    assert find_or_make(request(tmp_path, None), splits, ["a text"]) == (folder, True)
    with pytest.raises(RunError, match="holds something else than this comparison"):
        find_or_make(request(tmp_path, "z"), splits, ["a text"])
    assert "is passed over" in caplog.text


def test_a_kill_while_a_folder_is_exported_leaves_all_or_nothing_and_no_trace_for_long(
    tmp_path: Path,
) -> None:
    def export(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        with staged(folder / "out") as files:
            atomic.save_tensors(files / "model.safetensors", {"a": torch.zeros(3)})
            (files / "config.json").write_text("{}")

    for folder in each_operation(export, tmp_path):
        out = folder / "out"
        if out.exists():
            assert {file.name for file in out.iterdir()} == {"model.safetensors", "config.json"}
        else:
            export(folder)
        assert leftovers(folder) == []


def test_what_a_living_process_is_making_is_not_removed(tmp_path: Path) -> None:
    with stage.staging(tmp_path, "x") as mine:
        (mine / "file").write_text("kept")
        forked(lambda: stage.sweep(tmp_path), tmp_path)
        stage.sweep(tmp_path)
        assert (mine / "file").read_text() == "kept"
        with stage.staging(tmp_path, "x") as other:
            assert other != mine
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_saved_weights_have_the_permissions_of_the_users_files(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        with staged(tmp_path / "out") as files:
            atomic.save_tensors(files / "a.safetensors", {"a": torch.zeros(3)})
            with open(
                files / "b.safetensors",
                "xb",
                opener=lambda path, flags: os.open(path, flags, 0o600),
            ) as file:
                file.write(b"private")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "out").iterdir()}
    assert modes == {mode}


def test_asking_whether_a_run_is_locked_keeps_nobody_out_and_is_right(tmp_path: Path) -> None:
    run = RunWriter.create(CONFIG, tmp_path, "x")
    with run.lock():
        assert locks.is_locked(run.path)
    over, wrong = threading.Event(), []

    def ask() -> None:
        while not over.is_set():
            wrong.append(locks.is_locked(run.path))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(wrong) < 300:
        pass
    over.set()
    for thread in threads:
        thread.join()
    assert not any(wrong)
    over.clear()
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(30):
            with run.lock():
                pass
    finally:
        over.set()
        asking.join()


def test_the_lock_does_not_write_through_a_link(tmp_path: Path) -> None:
    run = RunWriter.create(CONFIG, tmp_path / "runs", "x")
    (tmp_path / "mine").write_text("kept")
    (run.path / locks.HOLDER).symlink_to(tmp_path / "mine")
    with pytest.raises(RunError, match="is a link to"), run.lock():
        pass
    # A folder in which arms work is locked without a run: the link gives way.
    with locks.held(run.path, "comparing"):
        assert (run.path / locks.HOLDER).read_text() == str(os.getpid())
    assert (tmp_path / "mine").read_text() == "kept"


def test_a_run_without_a_process_is_interrupted_until_it_is_done(tmp_path: Path) -> None:
    run = RunWriter.create(CONFIG, tmp_path, "x")
    for status in ("created", "training", "trained", "delivered"):
        run.set_status(status)
        assert run.summary.status == "interrupted"
        with run.lock():
            assert run.summary.status == status
    run.set_status("done")
    assert run.summary.status == "done"
    assert json.loads((run.path / "status.json").read_text())["status"] == "done"

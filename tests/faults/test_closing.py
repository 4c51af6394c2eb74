"""A finished run that was killed at the very end; and one whose base is another now."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorafit
from lorafit.errors import ModelError, RunError
from lorafit.report.refresh import refresh
from lorafit.run import RunWriter
from tests import tiny_text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, and a run that is done; tests copy it."""
    top = tmp_path_factory.mktemp("made")
    tiny_text.save_base(top / "base", "bert")
    for split, rows in tiny_text.splits(16).items():
        rows.to_json(top / f"data-{split}.jsonl")
    data = {name: str(top / f"data-{name}.jsonl") for name in ("train", "validation", "test")}
    (top / "data").mkdir()
    for name, file in data.items():
        shutil.move(file, top / "data" / f"{name}.jsonl")
    settings: dict[str, Any] = {"max_steps": 2, "strategy": "none", "bf16": False, "batch_size": 8}
    folders: dict[str, Any] = {"run.dir": str(top / "runs"), "run.name": "x"}
    lorafit.train(str(top / "base"), str(top / "data"), **settings, **folders, progress=False)
    return top


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunWriter:
    """A copy of the run, whose base and data are where they were."""
    shutil.copytree(made / "runs" / "x", tmp_path / "x")
    return RunWriter(tmp_path / "x")


def leave_behind(run: RunWriter) -> None:
    """What a process leaves that is killed between its last two operations."""
    (run.path / "report.html").unlink()
    (run.path / "tune").mkdir()
    (run.path / "tune" / "start.json").write_text("{}")
    (run.path / ".tmp-eval.json-01234567").write_text("{")
    (run.path / "adapter" / ".tmp-adapter-01234567").mkdir()
    (run.path / "checkpoints" / ".tmp-step-00000002-1").mkdir()


def check_clean(run: RunWriter) -> None:
    assert not (run.path / "tune").exists()
    assert list(run.path.rglob(".tmp-*")) == []
    assert (run.path / "report.html").is_file()


def test_resuming_a_run_that_is_done_finishes_what_is_missing_and_says_so(
    run: RunWriter, caplog: pytest.LogCaptureFixture
) -> None:
    leave_behind(run)
    caplog.set_level(logging.INFO, "lorafit")
    found = lorafit.train(resume=run.path, progress=False)
    assert found.path == run.path
    check_clean(run)
    said = next(line for line in caplog.messages if "was done but for its last files" in line)
    assert "wrote report.html" in said
    assert "removed tune" in said
    with pytest.raises(RunError, match="is finished; there is nothing to resume"):
        lorafit.train(resume=run.path, progress=False)


def test_a_page_of_before_the_run_was_done_is_written_anew(run: RunWriter) -> None:
    page = run.path / "report.html"
    page.write_text("of an earlier session")
    os.utime(page, ns=(0, 0))
    lorafit.train(resume=run.path, progress=False)
    assert "of an earlier session" not in page.read_text()


def test_the_report_of_a_run_that_is_done_removes_what_was_left(run: RunWriter) -> None:
    leave_behind(run)
    page = refresh(run.path)
    assert "tune" in page.removed
    check_clean(run)
    assert refresh(run.path).removed == []


def test_a_report_leaves_a_run_alone_that_is_not_done_or_worked_on(run: RunWriter) -> None:
    leave_behind(run)
    with run.lock():
        assert refresh(run.path).removed == []
    run.set_status("training")
    assert refresh(run.path).removed == []
    assert (run.path / "tune").is_dir()


# The base model


def interrupt(run: RunWriter, base: Path) -> None:
    """Makes a run that is done one that was interrupted, of a base somewhere else."""
    run.set_status("training")
    text = (run.path / "config.yaml").read_text()
    at = text.index("name_or_path:")
    line = text[at : text.index("\n", at)]
    (run.path / "config.yaml").write_text(text.replace(line, f"name_or_path: {base}"))


def change_weights(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 0.5}, base / "model.safetensors", {"format": "pt"})


def change_config(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.5}))


def change_tokenizer(base: Path) -> None:
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 17}))


CHANGES = {
    "weights are not what they were": change_weights,
    "config is not what it was": change_config,
    "tokenizer is not what it was": change_tokenizer,
}


@pytest.mark.parametrize("said", CHANGES)
def test_a_run_is_not_resumed_on_another_base(
    made: Path, run: RunWriter, tmp_path: Path, said: str
) -> None:
    base = shutil.copytree(made / "base", tmp_path / "base")
    interrupt(run, base)
    CHANGES[said](base)
    with pytest.raises(ModelError, match=f"its {said}.*Bring the old files back"):
        lorafit.train(resume=run.path, progress=False)
    assert run.status == "training"


@pytest.mark.parametrize("noted", [True, False])
def test_a_run_of_the_same_base_or_of_an_earlier_version_is_resumed(
    made: Path, run: RunWriter, tmp_path: Path, noted: bool
) -> None:
    base = shutil.copytree(made / "base", tmp_path / "base")
    interrupt(run, base)
    before = load_file(run.path / "adapter" / "adapter_model.safetensors")
    if not noted:
        environment = json.loads((run.path / "environment.json").read_text())
        del environment["base"]
        run.write_json("environment.json", environment)
        change_tokenizer(base)
    found = lorafit.train(resume=run.path, progress=False)
    after = load_file(found.adapter / "adapter_model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_loaded_adapter_warns_once_of_another_base(
    made: Path, run: RunWriter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = shutil.copytree(made / "base", tmp_path / "base")
    file = run.path / "adapter" / "lorafit.json"
    facts = json.loads(file.read_text())
    facts["model"]["name_or_path"] = str(base)
    file.write_text(json.dumps(facts))
    lorafit.load(run.path)
    assert not [line for line in caplog.messages if "changed since it was trained" in line]
    change_weights(base)
    lorafit.predict(run.path, ["a good film"])
    [said] = [line for line in caplog.messages if "changed since it was trained" in line]
    assert "its weights are not what they were" in said
    del facts["base"]  # of an earlier version
    file.write_text(json.dumps(facts))
    caplog.clear()
    lorafit.load(run.path)
    assert not [line for line in caplog.messages if "changed since it was trained" in line]

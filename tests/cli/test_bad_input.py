"""Every bad input is one clear message and exit code 2, and leaves everything as it was."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

import lorafit
from lorafit.cli import app

from .bad_input import DOCUMENT, TABLE, Bad, document, make_files
from .conftest import Cli, only_line

SETTINGS = {"r": 2, "lora_alpha": 4, "learning_rate": 1e-2, "batch_size": 8, "max_length": 16}


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, data, a finished run and one that was interrupted before its first step."""
    path = tmp_path_factory.mktemp("bad")
    make_files(path)
    runs: dict[str, Any] = {"run.dir": str(path / "runs"), "progress": False, **SETTINGS}
    given = (path / "model", path / "reviews.csv")
    lorafit.train(*given, name="first", max_steps=2, target_modules=["query"], **runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lorafit.tune.search.fit", stop)
        with pytest.raises(KeyboardInterrupt):
            lorafit.train(*given, name="stopped", max_steps=2, target_modules=["query"], **runs)
    return path


def state(folder: Path) -> dict[str, str]:
    """Every file with a hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.typed)
def test_bad_input_is_one_message_and_changes_nothing(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, bad: Bad
) -> None:
    monkeypatch.chdir(folder)
    before, folders = state(folder), sorted(folder.rglob("*/"))
    name, *rest = bad.args
    silent = ("trian", "runs", "report", "open", "doctor", "version", "help")
    quiet = [] if name in silent else ["--quiet"]
    result = cli(name, *quiet, *rest)
    assert result.exit_code == 2, result.stdout + result.stderr
    assert bad.says in only_line(result, warnings=True)
    assert result.stdout == ""
    assert state(folder) == before
    assert sorted(folder.rglob("*/")) == folders


def test_preview_shows_what_stops_training_once_and_says_so_with_its_exit_code(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    result = cli("preview", "endless", "prompts.jsonl")
    assert result.exit_code == 2
    assert (result.stdout + result.stderr).count("the tokenizer has no end token") == 1
    assert "training would stop: " in result.stdout


def test_every_command_is_in_the_table() -> None:
    assert {command.name for command in app.registered_commands} <= {bad.args[0] for bad in TABLE}


def test_the_documented_table_is_this_one() -> None:
    page = DOCUMENT.read_text("utf-8")
    assert document(page) == page, "write it anew: python -m tests.cli.bad_input"
    assert TABLE[0].says in page

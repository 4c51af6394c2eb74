"""Links in a folder that came from somewhere else: nothing they point to is copied or written."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

import lorafit
from lorafit.errors import RunError
from lorafit.export.folder import copy_regular
from lorafit.run import RunWriter
from lorafit.run.atomic import refuse_links
from lorafit.run.locks import is_locked
from tests.faults import finished

SECRET = "a private key"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return finished.copied(made, tmp_path / "run")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET, encoding="utf-8")
    return file


class Marker:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def test_shrink_copies_no_links_pickles_or_files_it_does_not_know(
    run: Path, secret: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter, out = run / "adapter", tmp_path / "shrunk"
    (adapter / "notes.txt").symlink_to(secret)
    (adapter / "vocab.json").symlink_to(secret)
    (adapter / "folder").symlink_to(tmp_path)
    (adapter / "optimizer.pt").write_text(SECRET, encoding="utf-8")
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Marker(tmp_path / "marker")))
    os.mkfifo(adapter / "merges.txt")
    lorafit.shrink(run, 2, out=out, progress=False)
    there = {path.name for path in out.iterdir()}
    assert there == {
        *("adapter_config.json", "adapter_model.safetensors", "lorafit.json", "shrink.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert all(SECRET not in path.read_text(errors="replace") for path in out.iterdir())
    assert not (tmp_path / "marker").exists()
    assert len(lorafit.predict(out, ["a great film"])) == 1


def test_what_is_left_behind_is_said(run: Path, secret: Path, tmp_path: Path) -> None:
    (run / "adapter" / "vocab.json").symlink_to(secret)
    left = copy_regular(run / "adapter", tmp_path, ["vocab.json", "tokenizer.json", "absent"])
    assert left == ["vocab.json"]
    assert (tmp_path / "tokenizer.json").is_file()


def test_merge_copies_no_links_either(run: Path, secret: Path, tmp_path: Path) -> None:
    (run / "adapter" / "vocab.json").symlink_to(secret)
    lorafit.merge(run, tmp_path / "merged")
    files = [path for path in (tmp_path / "merged").rglob("*") if path.is_file()]
    assert all(SECRET not in path.read_text(errors="replace") for path in files)


@pytest.mark.parametrize(
    "name", [".lock.pid", ".lock", "metrics.jsonl", "checkpoints/x", "adapter", "status.json"]
)
def test_a_run_with_links_is_not_resumed(name: str, run: Path, secret: Path) -> None:
    RunWriter(run).set_status("training")
    place = run / name
    if place.is_dir():
        place.rename(run.parent / "moved")
        target = run.parent / "moved"
    else:
        target = secret
        place.unlink(missing_ok=True)
    place.parent.mkdir(exist_ok=True)
    if name == "status.json":
        secret.write_text('{"status": "training"}', encoding="utf-8")
    place.symlink_to(target)
    before = secret.read_text(encoding="utf-8")
    with pytest.raises(RunError, match="is a link"):
        lorafit.train(resume=run, progress=False)
    assert secret.read_text(encoding="utf-8") == before


def test_asking_whether_a_run_is_locked_opens_no_link(run: Path, secret: Path) -> None:
    (run / ".lock").unlink(missing_ok=True)
    (run / ".lock").symlink_to(secret)
    assert not is_locked(run)
    assert secret.read_text(encoding="utf-8") == SECRET


def test_a_link_anywhere_in_a_folder_is_refused(tmp_path: Path, secret: Path) -> None:
    refuse_links(tmp_path)
    (tmp_path / "link").symlink_to(secret)
    with pytest.raises(RunError, match="secret"):
        refuse_links(tmp_path)

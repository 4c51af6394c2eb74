"""Extensions from other packages, as docs/how-to/new-method.md and new-task.md have them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lorafit.errors import AdapterError
from lorafit.export import peft as peft_format
from tests import tiny, tiny_text

ROOT = Path(__file__).parents[2]


def installed(page: str, name: str, site: Path) -> Path:
    """The files of a how-to page, as a package of this name in a folder for ``sys.path``."""
    text = (ROOT / "docs" / "how-to" / page).read_text("utf-8")
    for file, content in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL):
        (site / file).write_text(content, encoding="utf-8")
    [toml] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    lines = []
    for group, entries in tomllib.loads(toml)["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed("new-method.md", "my_methods", tmp_path_factory.mktemp("methods"))


@pytest.fixture(scope="module")
def tasks_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed("new-task.md", "my_tasks", tmp_path_factory.mktemp("tasks"))


def run(package: Path, folder: Path, *args: str) -> str:
    path = os.pathsep.join([str(ROOT / "src"), str(package)])
    result = subprocess.run(
        [sys.executable, "-m", *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("which", ["package", "tasks_package"])
def test_it_passes_the_checks_by_one_import(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)
    quiet = ("-q", "-W", "error", "-p", "no:cacheprovider")
    out = run(folder, tmp_path, "pytest", str(folder), *quiet)
    assert re.search(r"^\d{2,} passed", out, re.MULTILINE)
    assert "skipped" not in out


def test_a_task_trains_and_predicts_from_the_command_line(
    tasks_package: Path, tmp_path: Path
) -> None:
    model = tiny_text.save_base(tmp_path / "model")
    rows = tiny_text.rows(60)
    scores = [0.5 if label == "neg" else 1.5 for label in rows["label"]]
    rows.remove_columns("label").add_column("score", scores).to_csv(tmp_path / "r.csv", index=False)
    settings = ("--task", "robust", "--num-train-epochs", "1", "--learning-rate", "1e-2")
    train = ("lorafit", "train", str(model), "r.csv", "--name", "mine")
    out = run(tasks_package, tmp_path, *train, *settings)
    assert "huber" in out
    card = (tmp_path / "runs" / "mine" / "adapter" / "README.md").read_text("utf-8")
    assert "Huber loss" in card
    assert run(tasks_package, tmp_path, "lorafit", "predict", "mine", "good film").strip()


def test_it_trains_and_predicts_from_the_command_line(package: Path, tmp_path: Path) -> None:
    model = tiny_text.save_base(tmp_path / "model")
    tiny_text.rows(60).to_csv(tmp_path / "reviews.csv", index=False)
    settings = ("--method", "gain", "--num-train-epochs", "1", "--learning-rate", "1e-2")
    train = ("lorafit", "train", str(model), "reviews.csv", "--name", "mine")
    run(package, tmp_path, *train, *settings)
    folder = tmp_path / "runs" / "mine"
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert config["peft_type"] == "LORAFIT_GAIN"
    assert "pos" in run(package, tmp_path, "lorafit", "predict", "mine", "good film")


def test_without_the_package_its_adapter_is_refused_by_name(tmp_path: Path) -> None:
    config = {"peft_type": "LORAFIT_GAIN", "target_modules": "all-linear"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({"base_model.model.x.gain": torch.zeros(2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="LORAFIT_GAIN"):
        peft_format.load(tiny.classifier("bert"), tmp_path)

"""The commands for real, on a tiny model on disk and rows in a file."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import lorafit
from tests import tiny_text

from .conftest import Cli, only_line
from .test_usage import SRC

FLAGS = (
    *("--r", "2", "--num-train-epochs", "1", "--batch-size", "8", "--max-length", "16"),
    *("--learning-rate", "1e-2", "--set", "train.eval_steps=2"),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and data."""
    folder = tmp_path_factory.mktemp("files")
    tiny_text.save_base(folder / "model")
    tiny_text.rows(60).to_csv(folder / "reviews.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def trained(files: Path) -> subprocess.CompletedProcess[str]:
    """`lorafit train` as a process of its own; the run is ``files/runs/first``."""
    where = (str(files / "model"), str(files / "reviews.csv"))
    return subprocess.run(
        [sys.executable, "-m", "lorafit", "train", *where, "--name", "first", *FLAGS],
        cwd=files,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": SRC},
    )


@pytest.fixture
def run(trained: subprocess.CompletedProcess[str], files: Path) -> str:
    assert trained.returncode == 0, trained.stderr
    return str(files / "runs" / "first")


def test_train_shows_the_comparison_and_leaves_an_adapter(
    trained: subprocess.CompletedProcess[str], run: str
) -> None:
    assert "accuracy" in trained.stdout
    assert "What was saved answers as the trained model does" in trained.stdout
    assert "text column: text" in trained.stderr
    assert "no test split" in trained.stderr
    assert "\x1b" not in trained.stdout + trained.stderr
    assert (Path(run) / "adapter" / "adapter_model.safetensors").is_file()
    config = (Path(run) / "config.yaml").read_text("utf-8")
    assert "r: 2  # flag --r" in config
    assert "eval_steps: 2  # flag --set" in config
    assert "weight_decay: 0.0  # default" in config


def test_a_runs_configuration_can_be_trained_again(cli: Cli, run: str) -> None:
    config = str(Path(run) / "config.yaml")
    result = cli("train", "--config", config, "--name", "again", "--quiet")
    assert result.exit_code == 0, result.stderr
    first = (Path(run) / "adapter" / "adapter_model.safetensors").read_bytes()
    assert Path("runs/again/adapter/adapter_model.safetensors").read_bytes() == first


def test_predict_answers_each_text(cli: Cli, run: str) -> None:
    result = cli("predict", run, "a great film", "a dull story", "--quiet")
    assert result.exit_code == 0, result.stderr
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[2] for line in lines] == ["a great film", "a dull story"]
    assert {line[0] for line in lines} <= {"neg", "pos"}
    assert result.stderr == ""


def test_predict_as_json_has_every_probability(cli: Cli, run: str) -> None:
    answer = json.loads(cli("predict", run, "a film", "--json").stdout)
    assert set(answer["probabilities"]) == {"neg", "pos"}


def test_evaluate_repeats_what_train_measured(cli: Cli, run: str) -> None:
    result = cli("evaluate", run, "--json")
    assert result.exit_code == 0, result.stderr
    saved = json.loads((Path(run) / "eval.json").read_text("utf-8"))
    assert json.loads(result.stdout)["tuned"] == saved["tuned"]


def test_evaluate_takes_other_data(cli: Cli, run: str, tmp_path: Path) -> None:
    tiny_text.rows(20, seed=9).to_csv(tmp_path / "other.csv", index=False)
    result = cli("evaluate", run, "other.csv")
    assert result.exit_code == 0, result.stderr
    assert "20 examples" in result.stdout


def test_evaluate_reads_other_data_in_their_encoding(cli: Cli, run: str, tmp_path: Path) -> None:
    frame = tiny_text.rows(20, seed=9).to_pandas()
    frame["text"] += " café"
    frame.to_csv(tmp_path / "utf.csv", index=False)
    frame.to_csv(tmp_path / "latin.csv", index=False, encoding="cp1252")
    same = json.loads(cli("evaluate", run, "utf.csv", "--json", "--quiet").stdout)
    result = cli("evaluate", run, "latin.csv", "--encoding", "cp1252", "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["tuned"] == same["tuned"]


def test_merge_writes_a_plain_model_and_never_over_something(
    cli: Cli, run: str, tmp_path: Path
) -> None:
    result = cli("merge", run, "out", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (tmp_path / "out" / "model.safetensors").is_file()
    again = cli("merge", run, "out", "--quiet")
    assert again.exit_code == 2
    only_line(again)


def test_the_snippets_of_the_page_on_handing_on_give_the_answers_of_the_run(
    files: Path, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/hand-off.md").read_text("utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert [("AutoPeft" in code, "BASE" in code) for code in snippets] == [
        (False, True),
        (True, False),
    ]
    # A base in an installed package has a name that lorafit's own classes know.
    package = tmp_path / "a_package_with_a_model"
    shutil.copytree(files / "model", package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    packaged = tmp_path / "adapter"
    shutil.copytree(Path(run) / "adapter", packaged)
    config = packaged / "adapter_config.json"
    fields = json.loads(config.read_text("utf-8"))
    fields["base_model_name_or_path"] = "package:a_package_with_a_model/model"
    config.write_text(json.dumps(fields), "utf-8")

    tuned = lorafit.load(run)
    inputs = dict(tuned.tokenizer("a warm film", return_tensors="pt"))
    expected = tuned.model(**inputs).logits
    base, adapter = str(files / "model"), str(Path(run) / "adapter")
    named = [code.replace("BASE", base).replace("runs/NAME/adapter", adapter) for code in snippets]
    ours = snippets[1].replace("from peft", "from lorafit.peft")
    for code in [*named, ours.replace("runs/NAME/adapter", str(packaged))]:
        names: dict[str, Any] = {}
        exec(code, names)
        with torch.no_grad():
            found = names["model"].eval()(**inputs).logits
        torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-5)


def test_preview_and_plan_write_nothing(cli: Cli, files: Path, tmp_path: Path) -> None:
    where = (str(files / "model"), str(files / "reviews.csv"))
    preview = cli("preview", *where)
    assert preview.exit_code == 0, preview.stderr
    assert "neg" in preview.stdout
    plan = cli("plan", *where, "--r", "2", "--target-modules", "query,value")
    assert plan.exit_code == 0, plan.stderr
    assert "query, value" in plan.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_commands_of_the_page_on_new_tokens_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_text.save_base(tmp_path / "bert-base-uncased")
    tiny_text.save_language_model(tmp_path / "Qwen/Qwen1.5-MoE-A2.7B", "mixtral")
    rows = tiny_text.rows(60).map(lambda row: {"text": f"{row['text']} <drug>"})
    rows.to_csv(tmp_path / "reports.csv", index=False)
    tiny_text.prompts(60).to_json(tmp_path / "prompts.jsonl")
    page = Path(__file__).parents[2] / "docs/how-to/new-tokens.md"
    commands = re.findall(r"^```\n(lorafit .*)\n```$", page.read_text("utf-8"), re.MULTILINE)
    assert len(commands) == 3
    for number, command in enumerate(commands):
        few = ("--name", str(number), "--set", "generate.max_new_tokens=4")
        result = cli(*shlex.split(command)[1:], *FLAGS, *few)
        assert result.exit_code == 0, result.output
    facts = [
        json.loads((tmp_path / f"runs/{number}/adapter/adapter_config.json").read_text())
        for number in range(3)
    ]
    assert [len(fields.get("trainable_token_indices") or ()) for fields in facts] == [2, 2, 0]
    assert facts[2]["target_parameters"] == ["experts.gate_up_proj", "experts.down_proj"]
    answered = cli("predict", "runs/0", "a warm film with <drug>")
    assert answered.exit_code == 0, answered.output
    merged = cli("merge", "runs/0", "merged")
    assert merged.exit_code == 0, merged.output
    for bad, message in (
        (("--trainable-token-indices", "seven"), "should be a whole number"),
        (("--trainable-token-indices", "1234"), "from 0 to 98"),
        (("--add-tokens", " "), "a token is empty"),
        (("--target-parameters", "q_prj.weight"), "no parameter"),
    ):
        result = cli("train", "bert-base-uncased", "reports.csv", *FLAGS, *bad)
        assert result.exit_code == 2
        assert message in result.stderr, result.stderr

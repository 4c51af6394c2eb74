"""Wrong usage, start-up, and the program as a process of its own."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import lorafit
from lorafit.cli import COMMANDS, app
from lorafit.cli.table import FLAGS
from lorafit.evidence.course import Course
from lorafit.settings.keys import fields, sections, top_level

from .conftest import Cli, FakeApi, only_line

SRC = str(Path(__file__).parents[2] / "src")


def process(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``python ARGS`` with the package on the path."""
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": SRC} | environment,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(cli: Cli, name: str) -> None:
    result = cli(name, "--help")
    assert result.exit_code == 0
    assert "Usage: lorafit " + name in result.stdout


def test_no_command_has_two_flags_of_one_name() -> None:
    group: Any = typer.main.get_command(app)
    for name, one in group.commands.items():
        typed = [flag for p in one.params for flag in (*p.opts, *p.secondary_opts)]
        assert len(typed) == len(set(typed)), name


def test_no_command_shows_the_help(cli: Cli) -> None:
    result = cli()
    assert result.exit_code == 0
    assert all(name in result.stdout for name in COMMANDS)


def test_the_version_is_one_line(cli: Cli) -> None:
    result = cli("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("lorafit ")
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_flag_is_refused_by_every_command(cli: Cli, api: FakeApi, name: str) -> None:
    result = cli(name, "--colour", "red")
    assert result.exit_code == 2
    assert "No such option: --colour" in only_line(result)
    assert f"See lorafit {name} --help." in result.stderr
    assert api.calls == []


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("--bs", "Did you mean --batch-size?"),
        ("--n-epochs", "Did you mean --num-train-epochs?"),
        ("--lora-rank", "Did you mean --r?"),
        ("--max-seq-length", "Did you mean --max-length?"),
        ("--early-stopping", "Did you mean --set train.early_stopping_patience=VALUE?"),
        ("--warmup", "Did you mean --set train.warmup_ratio=VALUE?"),
        ("--max-iters", "Did you mean --max-steps?"),
        ("--trust-remote", "Did you mean --trust-remote-code?"),
        ("--learning-rat", "Did you mean --learning-rate?"),
        ("--save-dir", "(--name)"),
        ("--fp16", "train.bf16=true"),
        ("--gradient-checkpointing", "a smaller batch_size"),
        ("--split", "data.test_fraction"),
    ],
)
def test_a_flag_of_another_tool_is_answered_by_its_meaning(cli: Cli, typed: str, hint: str) -> None:
    result = cli("train", "m", "d", typed)
    assert result.exit_code == 2
    line = only_line(result)
    assert line.startswith(f"UsageError: No such option: {typed}. ")
    assert hint in line


@pytest.mark.parametrize(
    "typed",
    [
        "m d",
        "--model m --data d",
        "--model m d",
        "d --model m",
        "m --data d",
        "--data d m",
        "m d --model m",
        "m d --data d",
    ],
)
@pytest.mark.parametrize("output", ["", "--output out/r", "--output-dir ./out/r --name r"])
def test_model_data_and_output_may_be_flags(
    cli: Cli, api: FakeApi, typed: str, output: str
) -> None:
    result = cli("train", *typed.split(), *output.split())
    assert result.exit_code == 0, result.stderr
    [(_, _, call)] = api.calls
    config = call["config"].config
    assert (config.model.name_or_path, config.data.path) == ("m", "d")
    assert (config.run.dir, config.run.name) == (("out", "r") if output else ("runs", None))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("m d --model x", "MODEL is m and --model is x"),
        ("m d --data x", "DATA is d and --data is x"),
        ("m d --output out/x --name y", "--output is out/x and --name is y"),
        ("m d --output out/x --runs-dir other", "both set run.dir"),
        ("m d --output ..", 'not ".."'),
        ("--data d", "which model?"),
        ("--model m", "which data?"),
    ],
)
def test_names_that_disagree_are_refused(cli: Cli, api: FakeApi, typed: str, said: str) -> None:
    result = cli("train", *typed.split())
    assert result.exit_code == 2
    assert said in result.stderr
    assert api.calls == []


def test_a_lone_file_of_data_is_no_model_in_the_example(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text("text,label\na,b\n")
    result = cli("train", str(tmp_path / "tickets.csv"))
    assert result.exit_code == 2
    assert "which model?" in result.stderr
    assert "lorafit train distilbert-base-uncased" in result.stderr


def test_a_command_without_settings_hints_at_its_own_flags_only(cli: Cli) -> None:
    assert "Did you mean --runs-dir?" in only_line(cli("evaluate", "x", "--run-dir", "y"))
    assert "mean" not in only_line(cli("evaluate", "x", "--lr", "1"))


@pytest.mark.parametrize("name", ["train", "compare", "plan", "preview"])
def test_a_command_alone_shows_how_it_is_called(cli: Cli, name: str) -> None:
    line = only_line(cli(name))
    assert f"For example: lorafit {name} distilbert-base-uncased reviews.csv" in line
    assert "lorafit demo" in line
    assert f"For example: lorafit {name} m reviews.csv" in only_line(cli(name, "m"))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_with_a_command_is_its_help(cli: Cli, name: str) -> None:
    result = cli("help", name)
    assert result.exit_code == 0
    assert result.stdout == cli(name, "--help").stdout


def test_an_unknown_command_names_the_close_one(cli: Cli) -> None:
    result = cli("trian")
    assert result.exit_code == 2
    assert "Did you mean 'train'?" in only_line(result)


def test_every_flag_sets_a_setting_and_each_once() -> None:
    keys = [flag.key for flag in FLAGS]
    known = {*top_level(), *(f"{s}.{name}" for s in sections() for name in fields(s, "lora"))}
    assert len(set(keys)) == len(keys)
    assert set(keys) <= known


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from lorafit.cli import app\n"
        "try: app(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy', 'pandas'} & set(sys.modules)),"
        " file=sys.stderr)"
    )
    assert process("-c", code).stderr == "[]\n"


def test_a_wrong_setting_file_is_told_without_loading_a_model() -> None:
    result = process("-m", "lorafit", "train", "m", "d", "--config", "none.yaml")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == 'ConfigError: there is no configuration file "none.yaml".\n'


def test_the_module_runs_as_a_program() -> None:
    result = process("-m", "lorafit", "--help")
    assert result.returncode == 0
    assert "Usage: lorafit" in result.stdout


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    command = f"{sys.executable} -m lorafit doctor --json | true"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": SRC},
    )
    assert result.stderr == ""
    assert result.returncode in (0, 1)  # 0 when `true` was slower


@pytest.mark.parametrize("name", ["runs", "doctor"])
def test_output_to_a_pipe_has_no_colours(name: str, tmp_path: Path) -> None:
    result = process("-m", "lorafit", name, "--runs-dir", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr


def test_runs_lists_what_there_is(cli: Cli, tmp_path: Path) -> None:
    from lorafit.config import Config, DataConfig, ModelConfig
    from lorafit.run import RunWriter

    assert "There are no runs" in cli("runs").stdout
    config = Config(model=ModelConfig(name_or_path="m"), data=DataConfig(path="d"))
    run = RunWriter.create(config, tmp_path / "runs", "first")
    run.append_metrics({"step": 12, "train_loss": 0.5})
    run.write_json(
        "eval.json",
        {"metric": "accuracy", "base": {"accuracy": {"value": 0.5}}, "tuned": {}},
    )
    lines = cli("runs").stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:2] == ["first", "interrupted"]
    assert lines[1].split()[4:] == ["12", "accuracy", "0.500", "m", "d"]
    assert '"name": "first"' in cli("runs", "--json").stdout
    (tmp_path / "file").touch()
    assert "is a file" in only_line(cli("runs", "--runs-dir", "file"))


SAID_OF_OTHERS = {"--editable"}
"""Flags of pip and the like in our messages."""


def test_every_flag_that_is_advised_exists() -> None:
    """In any text of the source, of whatever module."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    known = (
        {
            name
            for command in COMMANDS
            for option in group.get_command(context, command).params
            for name in (*option.opts, *option.secondary_opts)
        }
        | {"--install-completion", "--version", "--help"}
        | SAID_OF_OTHERS
    )
    source = Path(lorafit.__file__).parent
    advised: dict[str, str] = {}
    for file in source.rglob("*.py"):
        if file.parent.name == "testing" or file.name == "synonyms.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+[a-z]", node.value):
                    advised.setdefault(flag, file.name)
    assert {flag: file for flag, file in advised.items() if flag not in known} == {}
    for setting in ("num_train_epochs", "max_steps"):
        said = Course(9, 3.0, falling=True, setting=setting, value=30).advice
        assert said is not None
        assert re.findall(r"--[a-z-]+", said)[0] in known

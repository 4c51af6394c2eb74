from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch

import lorafit
from lorafit.config import TrainConfig
from lorafit.errors import ConfigError
from lorafit.machine.placement import find_device
from lorafit.pipeline.measure import measuring_engine
from tests import tiny_text

ROWS = [
    {"text": f"{word} film number {n}", "label": label}
    for n in range(12)
    for word, label in [("good", "yes"), ("bad", "no")]
]


def have(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    """A machine with so many GPUs of NVIDIA, of which the first is the current one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("name", ["meta", "CPU", "gpu", "cuda:", "cuda:00", "cuda:-1", "cpu:0", ""])
def test_other_names_are_refused_as_setting_and_as_argument(name: str) -> None:
    with pytest.raises(ValueError, match=f'no device "{name}"; choose auto, cpu, cuda, cuda:N'):
        TrainConfig(device=name)
    with pytest.raises(ConfigError, match=f'no device "{name}"; choose auto, cpu, cuda, cuda:N'):
        find_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3", "mps"])
def test_a_device_that_is_not_there_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    have(monkeypatch, 0)
    assert TrainConfig(device=name).device == name  # a file may come from another machine
    built = torch.backends.mps.is_built() if name == "mps" else torch.backends.cuda.is_built()
    with pytest.raises(ConfigError) as refused:
        find_device(name)
    message = str(refused.value)
    assert message.startswith(f'the device is "{name}", but torch ')
    assert ("is built without" in message) is not built
    assert message.endswith('Choose "cpu", or "auto", which takes what there is.')


def test_a_gpu_is_found_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, 2)
    assert find_device("cuda") == torch.device("cuda:0")
    assert find_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="there are 2 GPUs, up to cuda:1"):
        find_device("cuda:2")
    have(monkeypatch, 1)
    with pytest.raises(ConfigError, match="there is one GPU, cuda:0"):
        find_device("cuda:1")


def test_each_of_several_processes_is_placed_by_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerate.PartialState(), "num_processes", 2)
    with pytest.raises(ConfigError, match=r'several processes.*Leave it at "auto"'):
        find_device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.save_base(tmp_path_factory.mktemp("base"), "distilbert")


def test_a_run_trains_predicts_and_is_measured_where_it_was_asked_to(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keywords: dict[str, Any] = {"max_steps": 2, "strategy": "none", "progress": False}
    run = lorafit.train(base, ROWS, device="cpu", dir=str(tmp_path), **keywords)
    assert run.config.train.device == "cpu"
    assert run.origins["train.device"] == "keyword device"
    plan = lorafit.plan(base, ROWS, device="cpu", progress=False)
    assert plan.device == "cpu"
    assert ("device", "cpu") in plan._facts()  # noqa: SLF001

    tuned = lorafit.load(run, device="cpu")
    assert tuned.device == "cpu"
    answers = lorafit.predict(tuned, ["a good film"], progress=False)
    assert len(answers) == 1
    assert tuned.predict(["a good film"]) == answers
    assert measuring_engine(tuned, run.config) is not None
    assert tuned.model.device == torch.device("cpu")

    # The machine the run is used on may have other devices than the one it was trained on.
    text = (run.path / "config.yaml").read_text(encoding="utf-8")
    (run.path / "config.yaml").write_text(text.replace("device: cpu", "device: cuda"), "utf-8")
    have(monkeypatch, 0)
    assert lorafit.Run(run.path).config.train.device == "cuda"
    assert run.predict(["a good film"], device="cpu", progress=False)
    assert run.evaluate(ROWS, device="cpu", progress=False)["split"] == "all rows"
    for call in (run.predict, run.evaluate):
        with pytest.raises(ConfigError, match='the device is "cuda", but'):
            call(ROWS, device="cuda", progress=False)


def test_nothing_is_read_for_a_device_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, 0)
    calls = (lorafit.train, lorafit.plan, lorafit.preview, lorafit.compare, lorafit.plan_comparison)
    for call in calls:
        with pytest.raises(ConfigError, match='the device is "cuda", but'):
            call(tmp_path / "no-model", tmp_path / "no-data.csv", device="cuda", progress=False)

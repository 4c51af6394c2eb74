"""A call is a guest in the caller's process: whatever it needs, it leaves everything as it was."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import datasets
import numpy as np
import psutil
import pytest
import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled
from transformers import modeling_gguf_pytorch_utils as gguf
from transformers.utils import logging as transformers_logging

import lorafit
from lorafit.errors import LorafitError, TrainingError
from lorafit.training import guest
from tests import tiny_text

SETTINGS: dict[str, Any] = {
    "r": 2,
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "max_length": 16,
    "learning_rate": 1e-2,
    "lora_dropout": 0.2,
    "strategy": "none",
    "progress": False,
}


def state() -> dict[str, Any]:
    """All of the process that a library could change and forget."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    return {
        "python's generator": random.getstate(),
        "numpy's generator": {
            **numpy,
            "state": (numpy["state"]["key"].tolist(), numpy["state"]["pos"]),
        },
        "torch's generator": torch.get_rng_state().tolist(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "only warned": torch.is_deterministic_algorithms_warn_only_enabled(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109 what the process has
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "hook": sys.excepthook,
        "transformers' verbosity": transformers_logging.get_verbosity(),
        "transformers' bars": transformers_logging.is_progress_bar_enabled(),
        "datasets' verbosity": datasets.utils.logging.get_verbosity(),
        "datasets' bars": datasets.are_progress_bars_disabled(),
        "datasets' caching": datasets.is_caching_enabled(),
        "hub's bars": are_progress_bars_disabled(),
        "gguf": vars(gguf)["tqdm"],
        "loggers": {
            name: (logger.level, logger.propagate, logger.disabled, list(logger.handlers))
            for name, logger in {"": logging.getLogger(), **logging.root.manager.loggerDict}.items()
            if isinstance(logger, logging.Logger)
            and (name.startswith("lorafit") or name in ("", "transformers", "datasets", "torch"))
        },
        "warnings": list(warnings.filters),
        "accelerate": dict(accelerate.PartialState._shared_state),  # noqa: SLF001
        "accelerator": dict(accelerate.state.AcceleratorState._shared_state),  # noqa: SLF001
        "gradient state": dict(accelerate.state.GradientState._shared_state),  # noqa: SLF001
    }


def different(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    loggers = before["loggers"]
    after = {**after, "loggers": {k: v for k, v in after["loggers"].items() if k in loggers}}
    return [name for name, value in before.items() if value != after[name]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guest")
    tiny_text.save_base(folder / "model")
    tiny_text.rows(60).to_csv(folder / "reviews.csv", index=False)
    model, data = str(folder / "model"), str(folder / "reviews.csv")
    lorafit.train(model, data, name="one", runs_dir=str(folder / "runs"), **SETTINGS)
    return folder


def calls(place: Path, out: Path) -> dict[str, Callable[[], object]]:
    """Every public call, and each with an error."""
    model, data = str(place / "model"), str(place / "reviews.csv")
    run = place / "runs" / "one"
    new: dict[str, Any] = {"runs_dir": str(out / "runs")}
    few: dict[str, Any] = {"methods": "bitfit", "seeds": 1, "general_text": None}
    exact: dict[str, Any] = {"deterministic": True}
    small = out / "small"
    return {
        "load": lambda: lorafit.load(run),
        "load, missing": lambda: lorafit.load(out / "none"),
        "predict": lambda: lorafit.predict(run, ["a great film"]),
        "predict, empty": lambda: lorafit.predict(run, [""]),
        "evaluate": lambda: lorafit.evaluate(run, progress=False),
        "evaluate, missing": lambda: lorafit.evaluate(run, str(out / "none.csv")),
        "preview": lambda: lorafit.preview(model, data, progress=False),
        "preview, missing": lambda: lorafit.preview(model, str(out / "none.csv")),
        "plan": lambda: lorafit.plan(model, data, **SETTINGS),
        "plan, deterministic": lambda: lorafit.plan(model, data, **exact, **SETTINGS),
        "plan, wrong": lambda: lorafit.plan(model, data, **SETTINGS | {"target_modules": "none"}),
        "train": lambda: lorafit.train(model, data, **new, **SETTINGS),
        "train, deterministic": lambda: lorafit.train(model, data, **new, **exact, **SETTINGS),
        "train, diverging": lambda: lorafit.train(
            model, data, **new, **SETTINGS | {"learning_rate": 1e30}
        ),
        "train, choosing": lambda: lorafit.train(
            model, data, **new, **SETTINGS | {"strategy": "rise", "r": None, "learning_rate": None}
        ),
        "merge": lambda: lorafit.merge(run, out / "merged"),
        "merge, not empty": lambda: lorafit.merge(run, place),
        "shrink": lambda: lorafit.shrink(run, 1, data, small, retrain_steps=2),
        "shrink, wrong": lambda: lorafit.shrink(run, 100, None, out / "large"),
        "compare, wrong": lambda: lorafit.compare(
            model, data, **few | {"methods": "none"}, **new, r=2
        ),
        "compare": lambda: lorafit.compare(model, data, **few, **new, max_steps=2, progress=False),
    }


NAMES = list(calls(Path(), Path()))


@pytest.fixture(autouse=True)
def someone_elses_state() -> Iterator[None]:
    """A host that has seeded, and set things otherwise than they are by default."""
    verbosity = transformers_logging.get_verbosity(), datasets.utils.logging.get_verbosity()
    transformers_logging.set_verbosity_warning()
    datasets.utils.logging.set_verbosity_info()
    random.seed(3)
    np.random.seed(4)
    torch.manual_seed(5)
    np.random.standard_normal()
    yield
    transformers_logging.set_verbosity(verbosity[0])
    datasets.utils.logging.set_verbosity(verbosity[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_call_leaves_the_process_as_it_was(name: str, place: Path, tmp_path: Path) -> None:
    call = calls(place, tmp_path)[name]
    before = state()
    try:
        call()
    except LorafitError:
        assert "," in name
    else:
        assert not name.endswith(("missing", "wrong", "empty", "diverging"))
    assert different(before, state()) == []


def test_a_hosts_deterministic_mode_stays_on(place: Path, tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        calls(place, tmp_path)["load"]()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "names", [("load", "load, missing"), ("predict", "evaluate", "preview", "plan")]
)
def test_calls_in_threads_leave_the_process_as_it_was(
    names: tuple[str, ...], place: Path, tmp_path: Path
) -> None:
    made = calls(place, tmp_path)
    before = state()

    def several(name: str) -> None:
        for _ in range(2):
            try:
                made[name]()
            except LorafitError:
                assert "," in name

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(several, names * (4 // len(names))))
    assert different(before, state()) == []


class Once:
    """Progress that does something in the second step."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def start(self, step: int, total_steps: int) -> None: ...
    def phase(self, name: str, runs: float, time_s: float) -> None: ...
    def evaluated(self, step: int, metrics: Any, best: bool) -> None: ...
    def stop(self) -> None: ...

    def step(self, update: Any) -> None:
        if update.step == 2:
            self._action()


def weights(run: lorafit.Run) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()


def test_a_second_training_at_once_is_refused_and_the_first_gets_what_it_gets_alone(
    place: Path, tmp_path: Path
) -> None:
    model, data = str(place / "model"), str(place / "reviews.csv")
    said: list[str] = []

    def second() -> None:
        try:
            lorafit.train(model, data, runs_dir=str(tmp_path / "second"), **SETTINGS)
        except TrainingError as error:
            said.append(str(error))

    def meanwhile() -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(60)

    first = lorafit.train(
        model, data, runs_dir=str(tmp_path / "runs"), **SETTINGS | {"progress": Once(meanwhile)}
    )
    assert len(said) == 1
    assert "process of its own" in said[0]
    assert not (tmp_path / "second").exists()
    assert weights(first) == weights(lorafit.Run(place / "runs" / "one"))
    second()  # and after the first there is nothing in the way
    assert len(said) == 1


def test_a_load_while_another_thread_trains_gets_its_turn_and_disturbs_nothing(
    place: Path, tmp_path: Path
) -> None:
    model, data = str(place / "model"), str(place / "reviews.csv")
    loaded: list[object] = []
    threads: list[threading.Thread] = []

    def meanwhile() -> None:
        threads.append(
            threading.Thread(target=lambda: loaded.append(lorafit.load(place / "runs" / "one")))
        )
        threads[0].start()
        while not guest.waiting():
            pass

    more = SETTINGS | {"progress": Once(meanwhile)}
    run = lorafit.train(model, data, runs_dir=str(tmp_path / "runs"), **more)
    threads[0].join(60)
    assert len(loaded) == 1
    assert weights(run) == weights(lorafit.Run(place / "runs" / "one"))


def test_a_new_accelerator_is_configured_as_if_nothing_had_been_trained(
    place: Path, tmp_path: Path
) -> None:
    reset = partial(accelerate.state.AcceleratorState._reset_state, reset_partial_state=True)  # noqa: SLF001
    reset()
    calls(place, tmp_path)["train"]()
    try:
        assert accelerate.Accelerator(mixed_precision="bf16").mixed_precision == "bf16"
    finally:
        reset()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_memory_that_the_host_frees_after_a_call_goes_back_to_the_system(
    place: Path, tmp_path: Path
) -> None:
    calls(place, tmp_path)["train"]()
    mine = psutil.Process()
    before = mine.memory_info().rss
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(100 << 20) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, 100 << 20)
    assert mine.memory_info().rss - before > 350 << 20
    for block in blocks:
        libc.free(block)
    assert mine.memory_info().rss - before < 50 << 20

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import lorafit
from lorafit import api as real
from lorafit.cli import app
from lorafit.comparison.outcome import Comparison
from lorafit.evidence import Choice, Difference, Evaluation
from lorafit.evidence.comparison import ComparisonRecord
from lorafit.shrinking.files import RankQuality, Shrunk
from tests.report.comparisons import comparison

Cli = Callable[..., Result]

METRIC = {"value": 0.8, "low": 0.75, "high": 0.85}
EVALUATION: dict[str, Any] = {
    "split": "test",
    "n": 1066,
    "metric": "accuracy",
    "confidence": 0.95,
    "base": {"accuracy": {"value": 0.5, "low": 0.45, "high": 0.55}, "nll": METRIC},
    "tuned": {"accuracy": METRIC, "nll": METRIC},
    "paired": {"accuracy": {"difference": 0.3, "low": 0.25, "high": 0.35}},
    "handoff": {"reloaded_max_abs_diff": 0.0, "merged_max_abs_diff": 2e-6},
}

SHRUNK = Shrunk(
    path=Path("adapter-shrunk"),
    r=4,
    r_before=8,
    way="weighted",
    reason="as asked",
    curve=[
        RankQuality(8, 1.0, Difference(0.0, 0.0, 0.0), Difference(0.0, 0.0, 0.0)),
        RankQuality(
            4,
            0.9,
            Difference(0.2, 0.1, 0.3),
            Difference(0.1, 0.05, 0.15),
            Difference(0.0, -0.1, 0.1),
        ),
    ],
    gain=0.5,
    test={"accuracy": Difference(-0.01, -0.02, 0.0)},
)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs one command in an empty folder; standard error is apart."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, list(args), input=stdin, prog_name="lorafit")

    return run


class FakeRun:
    """What the final screen needs of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adapter = path / "adapter"
        self.eval = EVALUATION
        self.evaluation = Evaluation.from_json(EVALUATION)
        self.choices = {
            "engine": Choice(value="fast", reason="an encoder on a processor"),
            "target_modules": Choice(value=["q_lin", "v_lin"], reason="as asked"),
        }
        self.choosing_cost: dict[str, Any] = {}


class FakeApi:
    """Stands in for `lorafit.api`: notes each call and returns something to show.

    A call that the real function would not take is a `TypeError` here, too.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.error: BaseException | None = None
        self.instead: dict[str, Callable[..., Any]] = {}
        self.returns: dict[str, Any] = {
            "train": FakeRun(Path("runs/m-d-001")),
            "demo": FakeRun(Path("runs/demo-001")),
            "evaluate": EVALUATION,
            "load": SimpleNamespace(task=SimpleNamespace(text=["text"])),
            "compare": Comparison(
                Path("runs/m-d-compare-001"), ComparisonRecord.from_json(comparison())
            ),
            "merge": Path("merged"),
            "shrink": SHRUNK,
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        signature = inspect.signature(getattr(real, name))

        def call(*args: Any, **kwargs: Any) -> Any:
            signature.bind(*args, **kwargs)
            self.calls.append((name, args, kwargs))
            if self.error is not None:
                raise self.error
            if name in self.instead:
                return self.instead[name](*args, **kwargs)
            if name == "predict":
                return [{"label": "good", "probability": 0.9} for _ in args[1]]
            return self.returns[name]

        return call


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setitem(sys.modules, "lorafit.api", fake)
    monkeypatch.setattr(lorafit, "api", fake, raising=False)
    return fake


def only_line(result: Result, warnings: bool = False) -> str:
    """The whole of standard error, which has to be one message without a traceback.

    Args:
        result: Of a command.
        warnings: Some may stand before it.
    """
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    while warnings and lines and lines[0].startswith("warning: "):
        del lines[0]
    assert lines
    assert all(line.startswith("  ") for line in lines[1:])
    return "\n".join(lines) + "\n"

"""What `import lorafit` offers."""

from __future__ import annotations

import inspect
import operator
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import lorafit
import lorafit.api
import lorafit.peft
from lorafit import errors
from tests.report import folders

SRC = str(Path(__file__).parents[1] / "src")


@pytest.mark.parametrize("module", [lorafit, lorafit.peft], ids=lambda module: module.__name__)
def test_completion_shows_public_names_only(module: ModuleType) -> None:
    shown = [name for name in dir(module) if not name.startswith("__")]
    assert shown == sorted(module.__all__)
    assert all(hasattr(module, name) for name in shown)


def test_every_call_can_be_told_to_be_quiet() -> None:
    """Of all calls that say something along the way; a call has a docstring with its errors."""
    calls = [*lorafit.api.__all__, "Run.predict", "Run.evaluate"]
    for name in calls:
        call = operator.attrgetter(name)(lorafit)
        if inspect.isfunction(call):
            parameter = inspect.signature(call).parameters["progress"]
            assert (parameter.kind, parameter.default) == (parameter.KEYWORD_ONLY, True), name


def test_every_error_is_exported() -> None:
    own = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.LorafitError)
    }
    assert own <= set(lorafit.__all__)
    assert all(getattr(lorafit, name) is getattr(errors, name) for name in own)


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    assert not hasattr(lorafit, "importlib2")
    with pytest.raises(AttributeError, match='has no attribute "tarin"'):
        _ = lorafit.tarin


def test_opening_a_run_loads_no_model(tmp_path: Path) -> None:
    folders.finished(tmp_path / "m-d-001")
    code = (
        "import sys\n"
        "from lorafit import Run\n"
        f"run = Run('m-d-001', {str(tmp_path)!r})\n"
        "print(run.summary.status, run.report.name, *[type(one) is Run for one in "
        f"Run.list({str(tmp_path)!r})], callable(run.predict), callable(run.evaluate))\n"
        "print(*{'torch', 'transformers', 'lorafit.api', 'lorafit.using'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": SRC},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "done report.html True True True\n\n"


def test_importing_loads_nothing_until_a_name_is_used() -> None:
    code = (
        "import sys, lorafit; dir(lorafit); lorafit.DataError\n"
        "assert 'torch' not in sys.modules and 'lorafit.api' not in sys.modules\n"
        "assert lorafit.peft.LoraConfig.__module__.startswith('lorafit')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": SRC},
    )
    assert (done.returncode, done.stderr) == (0, "")

"""Commands that only look at files and at the machine load no heavy package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorafit.cli import COMMANDS
from tests.report import folders
from tests.report.comparisons import comparison

SRC = str(Path(__file__).parents[2] / "src")
HEAVY = ("torch", "transformers", "datasets", "pandas", "sklearn", "scipy", "accelerate", "peft")
PROGRAM = f"""
import sys
from lorafit.cli import main
try:
    main()
finally:
    sys.stderr.write(",".join(name for name in {HEAVY} if name in sys.modules))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, a begun one, and a comparison."""
    place = tmp_path_factory.mktemp("light")
    folders.finished(place / "runs" / "m-d-001")
    folders.begun(place / "runs" / "m-d-002")
    content = comparison()
    folders.write_json(place / "runs" / "m-d-compare-001" / "request.json", content["request"])
    folders.write_json(place / "runs" / "m-d-compare-001" / "compare.json", content)
    return place


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--help", "Usage: lorafit"),
        ("--version", "lorafit "),
        ("version", "lorafit "),
        ("help", "Usage: lorafit"),
        ("help compare", "Usage: lorafit compare"),
        ("runs", "m-d-compare-001"),
        ("runs --json", '"kind": "comparison"'),
        ("report m-d-001", "runs/m-d-001/report.html"),
        ("report m-d-compare-001", "runs/m-d-compare-001/compare.html"),
        ("doctor", "usable cores"),
        *((f"{name} --help", f"Usage: lorafit {name}") for name in COMMANDS),
    ],
)
def test_a_light_command_loads_nothing_heavy(place: Path, command: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split()],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=place,
        env=os.environ | {"PYTHONPATH": SRC},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout


def test_a_command_is_one_file_and_each_file_is_listed() -> None:
    folder = Path(SRC) / "lorafit" / "cli"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "app", "flags", "table"}
    assert set(COMMANDS) == files

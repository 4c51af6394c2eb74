"""`lorafit report`, `open` and `version`, and completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest

import lorafit
from tests.report import folders
from tests.report.comparisons import comparison

from .conftest import Cli, only_line

RUN = "m-d-001"
SRC = str(Path(__file__).parents[2] / "src")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the browser was asked for."""
    found: list[str] = []

    def noted(url: str) -> bool:
        found.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", noted)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return folders.finished(tmp_path / "runs" / RUN)


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "m-d-compare-001"
    folders.write_json(path / "request.json", comparison()["request"])
    folders.write_json(path / "compare.json", comparison())
    return path


@pytest.mark.parametrize("named", [RUN, f"runs/{RUN}"])
def test_report_writes_the_page_anew_and_prints_its_path(
    cli: Cli, run: Path, opened: list[str], named: str
) -> None:
    (run / "report.html").write_text("old")
    result = cli("report", named)
    assert (result.exit_code, result.stdout) == (0, f"runs/{RUN}/report.html\n")
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")
    assert opened == []


@pytest.mark.parametrize("command", [("report", RUN, "--open"), ("open", RUN)])
def test_the_page_is_opened_in_the_browser(
    cli: Cli, run: Path, opened: list[str], command: tuple[str, ...]
) -> None:
    assert cli(*command).exit_code == 0
    assert opened == [(run / "report.html").resolve().as_uri()]


def test_a_comparisons_page_is_written_too(cli: Cli, compared: Path) -> None:
    result = cli("report", str(compared))
    assert (result.exit_code, result.stdout) == (0, f"{compared}/compare.html\n")
    assert "Take ia3." in (compared / "compare.html").read_text(encoding="utf-8")


def test_a_run_that_is_still_training_has_a_page(cli: Cli, tmp_path: Path) -> None:
    folders.begun(tmp_path / "runs" / RUN)
    assert cli("report", RUN).exit_code == 0


@pytest.mark.parametrize("command", ["report", "open"])
def test_what_is_no_run_is_one_line(cli: Cli, tmp_path: Path, run: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, said in (
        ("m-d-01", f'there is no run "m-d-01"; "runs" has {RUN}. Did you mean "{RUN}"?'),
        ("empty", '"empty" is not a run folder: it has no config.yaml.'),
        ("file", 'there is no run "file"'),
        (f"runs/{RUN}/adapter", f'The run is the folder above: "runs/{RUN}".'),
    ):
        result = cli(command, name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in only_line(result)


def test_a_damaged_file_is_told_and_the_rest_is_written(cli: Cli, run: Path) -> None:
    (run / "eval.json").write_text("{")
    result = cli("report", RUN)
    assert result.exit_code == 2
    assert result.stdout == f"runs/{RUN}/report.html\n"
    assert "the page lacks what could not be read: eval.json is damaged" in only_line(result)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot read"),
        ("[]", "is damaged: it is not what lorafit compare writes"),
        ('{"arms": 1}', "is damaged: it is not what lorafit compare writes"),
    ],
)
def test_a_damaged_comparison_is_one_line(
    cli: Cli, compared: Path, content: str, said: str
) -> None:
    (compared / "compare.json").write_text(content)
    result = cli("report", str(compared))
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in only_line(result)


def test_an_unfinished_comparison_says_how_to_go_on(cli: Cli, compared: Path) -> None:
    (compared / "compare.json").unlink()
    result = cli("report", str(compared))
    assert result.exit_code == 2
    assert "The same lorafit compare command goes on with it." in only_line(result)


def test_without_a_browser_the_page_is_named(
    cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    result = cli("open", RUN)
    assert result.exit_code == 1
    assert result.stdout == f"runs/{RUN}/report.html\n"
    assert f'Open the page yourself: "runs/{RUN}/report.html".' in only_line(result)


def test_runs_lists_comparisons(cli: Cli, run: Path, compared: Path) -> None:
    lines = cli("runs").stdout.splitlines()
    assert [line.split()[0] for line in lines if line] == ["run", RUN, "comparison", compared.name]
    assert lines[-1].split()[4:] == ["3", "accuracy", "ia3", "0.761", "MODEL", "DATA"]
    listed = [json.loads(line) for line in cli("runs", "--json").stdout.splitlines()]
    assert [one["kind"] for one in listed] == ["run", "comparison"]


def test_version_says_what_the_flag_says(cli: Cli) -> None:
    assert cli("version").stdout == cli("--version").stdout
    assert lorafit.__version__ in cli("version").stdout
    assert only_line(cli("version", "now")).startswith("UsageError")


def test_the_shell_completes_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lorafit"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ
        | {"PYTHONPATH": SRC}
        | {"_LORAFIT_COMPLETE": "complete_bash", "COMP_WORDS": "lorafit re", "COMP_CWORD": "1"},
    )
    assert done.stdout.split() == ["report"], done.stderr

from __future__ import annotations

from pathlib import Path

import pytest

from lorafit.errors import RunError
from lorafit.report.html import write_report
from lorafit.report.refresh import find_folder, refresh
from tests.report import folders
from tests.report.comparisons import comparison


def test_names_are_looked_up_below_the_folder_of_the_runs(tmp_path: Path) -> None:
    run = folders.finished(tmp_path / "a")
    folders.write_json(tmp_path / "b" / "compare.json", comparison())
    assert find_folder("a", tmp_path) == run
    assert find_folder(run, tmp_path / "elsewhere") == run
    assert find_folder("b", tmp_path) == tmp_path / "b"
    with pytest.raises(RunError, match='no run "c"'):
        find_folder("c", tmp_path)


def test_the_page_of_a_run_is_the_one_training_writes(tmp_path: Path) -> None:
    run = folders.finished(tmp_path / "a")
    written = write_report(run).read_bytes()
    (run / "report.html").unlink()
    page = refresh(run)
    assert (page.path, page.problems) == (run / "report.html", [])
    assert page.path.read_bytes() == written


def test_what_could_not_be_read_is_told(tmp_path: Path) -> None:
    run = folders.finished(tmp_path / "a")
    (run / "choices.json").write_text("[", encoding="utf-8")
    [problem] = refresh(run).problems
    assert problem.startswith("choices.json is damaged")
    assert (run / "report.html").is_file()

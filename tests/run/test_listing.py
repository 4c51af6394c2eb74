from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from lorafit.run.listing import list_comparisons, list_runs
from tests.report import folders
from tests.report.comparisons import comparison


def begun(path: Path) -> Path:
    request = comparison()["request"] | {"arms": {"full": {}, "lora": {}}}
    folders.write_json(path / "request.json", request)
    return path


def test_a_comparison_goes_from_training_or_interrupted_to_done(tmp_path: Path) -> None:
    path = begun(tmp_path / "a")
    [found] = list_comparisons(tmp_path)
    assert (found.name, found.status, found.methods, found.seeds) == ("a", "interrupted", 2, 3)
    assert (found.metric, found.recommended, found.value) == (None, None, None)
    with FileLock(path / ".lock"):
        assert list_comparisons(tmp_path)[0].status == "training"
    folders.write_json(path / "compare.json", comparison())
    [found] = list_comparisons(tmp_path)
    assert (found.status, found.metric) == ("done", "accuracy")
    assert (found.recommended, found.value) == ("ia3", 0.761)
    assert (found.model, found.data) == ("MODEL", "DATA")


def test_damaged_files_leave_their_part_unknown(tmp_path: Path) -> None:
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"config": 1, "arms": 2}')):
        (begun(tmp_path / name) / "request.json").write_text(text)
        (tmp_path / name / "compare.json").write_text(text)
    found = list_comparisons(tmp_path)
    assert {one.name for one in found} == {"a", "b", "c"}
    assert {(one.model, one.methods, one.value) for one in found} == {("?", None, None)}


def test_runs_and_comparisons_are_told_apart(tmp_path: Path) -> None:
    folders.finished(tmp_path / "run")
    begun(tmp_path / "compared")
    (tmp_path / "other").mkdir()
    assert [one.name for one in list_runs(tmp_path)] == ["run"]
    assert [one.name for one in list_comparisons(tmp_path)] == ["compared"]
    assert list_comparisons(tmp_path / "none") == []

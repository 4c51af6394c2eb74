"""No module imports, even within a function, what imports it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

Graph = dict[str, set[str]]
"""Module to the modules it imports."""


def modules(folder: Path) -> dict[str, str]:
    """The source of each module of a package, by the name it is imported under."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text("utf-8")
    return found


def imported(node: ast.AST) -> Iterator[str]:
    """What is imported anywhere inside, as it is written; not what only types are taken from."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            inner: list[ast.AST] = [*node.orelse]
        case ast.Import():
            yield from (alias.name for alias in node.names)
            return
        case ast.ImportFrom():
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            return
        case _:
            inner = list(ast.iter_child_nodes(node))
    for child in inner:
        yield from imported(child)


def graph_of(sources: dict[str, str]) -> Graph:
    """Which of the modules import which of the others."""

    def home(name: str) -> str:
        while name and name not in sources:
            name = name.rpartition(".")[0]
        return name

    return {
        module: {home(name) for name in imported(ast.parse(text))} - {"", module}
        for module, text in sources.items()
    }


def circle(graph: Graph) -> list[str]:
    """The modules of one circle, each importing the next; empty: there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_modules_import_each_other() -> None:
    sources = modules(ROOT / "src" / "lorafit") | modules(ROOT / "benchmarks")
    graph = graph_of(sources)
    assert {"lorafit.api", "benchmarks.tuning.pairs"} <= graph.keys()
    assert "lorafit.run" in graph["lorafit.api"]
    assert circle(graph) == []


@pytest.mark.parametrize(
    ("first", "found"),
    [
        ("import p.b", True),
        ("from p.b import x", True),
        ("from p import b", True),
        ("def f():\n    from p.b import x", True),
        ("if TYPE_CHECKING:\n    from p.b import x", False),
        ("if TYPE_CHECKING:\n    from p.c import x\nelse:\n    from p.b import x", True),
        ("from p.c import x", False),
        ("from p import x", False),
    ],
)
def test_a_circle_is_found_wherever_the_import_stands(first: str, found: bool) -> None:
    sources = {"p": "", "p.a": first, "p.b": "class B:\n    def f(self):\n        import p.a"}
    graph = graph_of(sources | {"p.c": ""})
    assert circle(graph) in ([["p.a", "p.b", "p.a"], ["p.b", "p.a", "p.b"]] if found else [[]])

"""The map in ARCHITECTURE.md is the tree."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "lorafit"


def mapped() -> list[tuple[str, str]]:
    """Each line of the map: its path below ``src/lorafit``, and what is said of it."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    block = re.search(r"<!-- map: begin -->\n```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    first, *lines = block[1].splitlines()
    assert first == "src/lorafit/"
    found, above = [], ""
    for line in lines:
        indent, name, said = re.fullmatch(r"( +)(\S+) +(\S.*)", line).groups()  # type: ignore[union-attr]
        if len(indent) == 2:
            above = name
        found.append((name if len(indent) == 2 else above + name, said))
    return found


def packages(folder: Path) -> set[str]:
    return {path.parent.name + "/" for path in folder.glob("*/__init__.py")}


def test_the_map_names_every_folder_and_every_top_module() -> None:
    tree = {path.name for path in SOURCE.glob("*.py")} - {"__init__.py"} | packages(SOURCE)
    tree |= {top + below for top in packages(SOURCE) for below in packages(SOURCE / top)}
    assert {path for path, _ in mapped()} == tree


def test_the_map_is_in_the_order_of_the_import_contract() -> None:
    contract = (ROOT / "pyproject.toml").read_text("utf-8")
    layers = re.search(r"layers = \[\n(.*?)\]", contract, re.DOTALL)
    assert layers is not None
    order = re.findall(r"\w+", layers[1])
    top = [
        path.removesuffix("/").removesuffix(".py") for path, _ in mapped() if path.count("/") < 2
    ]
    top = [name for name in top if "/" not in name]
    assert top == order


def test_no_line_of_the_map_says_what_another_says() -> None:
    said = [text for _, text in mapped()]
    assert len(set(said)) == len(said)

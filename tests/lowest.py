"""Prints the lowest versions that pyproject.toml allows, for pip's ``--constraint``.

    python tests/lowest.py [extra ...]

Standard library only: it runs before anything is installed. Only what is declared is held down;
what the declared packages need besides comes as pip resolves it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
BOUND = re.compile(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9][0-9.]*)")


def lowest(*extras: str) -> dict[str, str]:
    """The lower bound of each declared requirement, by its name.

    Args:
        extras: Groups of optional dependencies; of a package that is named twice the higher bound
            counts, as it does for pip.

    Raises:
        ValueError: A requirement has no lower bound.
    """
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][e] for e in extras)]
    found: dict[str, str] = {}
    for requirement in (one for group in groups for one in group):
        bound = BOUND.fullmatch(requirement)
        if bound is None:
            raise ValueError(f'"{requirement}" in {PROJECT.name} has no lower bound of its own')
        name, version = bound.groups()
        found[name] = max(found.get(name, version), version, key=_numbers)
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


if __name__ == "__main__":
    for name, version in sorted(lowest(*sys.argv[1:]).items()):
        print(f"{name}=={version}")

"""The pages' templates, with what all of them use."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lorafit.report import numbers


@cache
def templates() -> Environment:
    """The pages' templates, with what all of them use."""
    loader = PackageLoader("lorafit.report", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source, _, _ = loader.get_source(environment, "style.css")
    environment.globals |= {
        "style": Markup(source),
        "is_number": numbers.is_number,
        "number": numbers.element,
        "named": lambda name, value: numbers.element(value, numbers.format_for(name)),
        "title": numbers.title_for,
        "units": numbers,
        "table_of": _table_of,
    }
    return environment


def _table_of(value: Any) -> list[str]:
    """Columns of a list of plain records, ``[]`` if the value is something else."""
    if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
        return []
    if any(isinstance(cell, dict | list) for record in value for cell in record.values()):
        return []
    return list(dict.fromkeys(key for record in value for key in record))

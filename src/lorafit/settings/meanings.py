"""All settings, with what each means: the text below its field in the source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from lorafit.config import AdapterConfig, Config
from lorafit.settings.keys import method_config, method_fields, sections, top_level


@dataclass(frozen=True)
class Group:
    """Settings that one class has.

    Attributes:
        section: Where they stand; empty: outside the sections.
        model: The class.
        names: Its fields that are settings.
        method: Whose own they are, in the section of the adapter; ``None``: everybody's.
    """

    section: str
    model: type[BaseModel]
    names: list[str]
    method: str | None = None

    def key(self, name: str) -> str:
        """``section.field``, or the field alone outside the sections."""
        return f"{self.section}.{name}" if self.section else name


def groups() -> Iterator[Group]:
    """All settings, in the order of the configuration; those of the adapter method by method."""
    from lorafit.methods import methods  # it brings torch

    yield Group("", Config, top_level())
    for section, stage in sections().items():
        yield Group(section, stage, list(stage.model_fields))
        if stage is AdapterConfig:
            for method in methods:
                yield Group(section, method_config(method), method_fields(method), method)


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """The texts below the fields of a class and of those it inherits from, each on one line."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        [body] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(meaning))),
                ):
                    found[name] = " ".join(meaning.split())
    return found

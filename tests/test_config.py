"""Every setting says what it means."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest
from pydantic import BaseModel

from lorafit.config import Config
from lorafit.methods import methods
from lorafit.settings.keys import method_config, method_fields, sections


def described(model: type[BaseModel]) -> set[str]:
    """The fields of a class, and of those it inherits from, that have a text below them."""
    found: set[str] = set()
    for base in model.__mro__:
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        [body] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(said))),
                ) if said.endswith((".", ":")):
                    found.add(name)
    return found


@pytest.mark.parametrize("stage", [Config, *sections().values()], ids=lambda stage: stage.__name__)
def test_every_setting_of_a_stage_has_its_meaning(stage: type[BaseModel]) -> None:
    assert set(stage.model_fields) - described(stage) == set()


@pytest.mark.parametrize("method", list(methods))
def test_every_setting_of_a_method_has_its_meaning(method: str) -> None:
    assert set(method_fields(method)) - described(method_config(method)) == set()

"""Writes src/lorafit/settings/keywords.py, the types of the settings as keywords, from `Config`.

python docs/keywords.py            write the file
python docs/keywords.py --check    fails if the file is not what the settings say
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from lorafit.config import AdapterConfig, Config
from lorafit.methods import methods
from lorafit.settings.keys import SHORT, method_config, method_fields, sections, top_level
from lorafit.settings.resolve import MEASURABLE
from lorafit.settings.synonyms import ALIASES, OUTPUT

FILE = Path(__file__).resolve().parents[1] / "src" / "lorafit" / "settings" / "keywords.py"

HEAD = '''"""The settings as typed keywords of `lorafit.train` and its like, for editors.

Written by `make docs` from `Config` and the methods' settings. Change those instead. What is
passed is checked when the call is made; a setting that is not here (of a ``peft:NAME`` method, or
one whose name two groups have) goes in as ``**{"group.name": value}``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypedDict
'''
CLASSES = {
    "SharedKeywords": ("TypedDict", "Settings that every call takes."),
    "SettingsKeywords": ("SharedKeywords", "All settings, as `lorafit.train` takes them."),
    "CompareKeywords": ("SharedKeywords", "Those of `lorafit.compare`; its ``budget`` is another."),
    "ShrinkKeywords": ("SharedKeywords", "Those of `lorafit.shrink`; its ``r`` is another."),
}
OWN = {
    "budget": ("SettingsKeywords", "ShrinkKeywords"),
    "r": ("SettingsKeywords", "CompareKeywords"),
    "rank": ("SettingsKeywords", "CompareKeywords"),
}
"""Settings that not every call takes, and the classes of those that do."""
POSITIONAL = frozenset({"data.path", "model.name_or_path"})
"""What is passed as model and data."""

Field = tuple[str, str]
"""The type of a keyword, and what it means."""


def text() -> str:
    """The whole module."""
    found = keywords()
    parts = [HEAD]
    for name, (base, meaning) in CLASSES.items():
        total = ", total=False"
        lines = [f'\n\nclass {name}({base}{total}):\n    """{meaning}"""\n']
        for keyword, (kind, doc) in found.items():
            if name in OWN.get(keyword, ("SharedKeywords",)):
                lines.append(f"\n    {keyword}: {kind}\n{_docstring(doc)}")
        parts.append("".join(lines))
    return "".join(parts)


def keywords() -> dict[str, Field]:
    """Every setting that one name says which it is, in the order of the configuration."""
    by_name: dict[str, dict[str, Field]] = {}
    for name in top_level():
        by_name[name] = {name: _field(name, [Config])}
    for section, stage in sections().items():
        for name in _names(stage):
            models = _models(stage, name)
            by_name.setdefault(name, {})[f"{section}.{name}"] = _field(f"{section}.{name}", models)
    found = {}
    for name, places in by_name.items():
        if len(places) == 1 and not POSITIONAL & places.keys():
            [found[name]] = places.values()
    by_key = {key: field for places in by_name.values() for key, field in places.items()}
    for name, key in (SHORT | ALIASES).items():
        if key not in POSITIONAL:
            found[name] = by_key[key]
    return found | dict.fromkeys(OUTPUT, ("str", "Folder of the run: ``dir`` and ``name`` in one."))


def _names(stage: type[BaseModel]) -> list[str]:
    own = list(stage.model_fields)
    if stage is AdapterConfig:
        own += [name for method in methods for name in method_fields(method)]
    return list(dict.fromkeys(own))


def _models(stage: type[BaseModel], name: str) -> list[type[BaseModel]]:
    """The classes that have a field; a setting of an adapter may belong to several methods."""
    if stage is not AdapterConfig or name in stage.model_fields:
        return [stage]
    return [method_config(method) for method in methods if name in method_fields(method)]


def _field(key: str, models: list[type[BaseModel]]) -> Field:
    name = key.rpartition(".")[2]
    kinds = [part for model in models for part in _types(model.model_fields[name].annotation)]
    if key in MEASURABLE:
        kinds.append('Literal["auto"]')
    if "Collection[str]" in kinds or "Sequence[str]" in kinds:
        kinds.insert(0, "str")  # one name is a list of one
    kinds = sorted(dict.fromkeys(kinds), key=lambda kind: kind == "None")
    meanings = [doc for model in models if (doc := _meanings(model).get(name))]
    return " | ".join(kinds), meanings[0] if meanings else ""


def _types(annotation: Any) -> list[str]:
    """The parts of a union, as Python writes them."""
    if annotation is type(None):
        return ["None"]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _types(inner[0])
    if origin is Literal:
        return [f"Literal[{', '.join(chr(34) + choice + chr(34) for choice in inner)}]"]
    if origin in (Union, types.UnionType):
        return [part for one in inner for part in _types(one)]
    generic = {list: "Sequence", set: "Collection", dict: "Mapping"}
    if origin in generic:
        parts = ", ".join(" | ".join(_types(one)) for one in inner)
        return [f"{generic[origin]}[{parts}]"]
    name: str = annotation.__name__
    return [name]


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """The texts under the fields of a class and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        [body] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for field, doc in zip(body.body, body.body[1:], strict=False):
            match field, doc:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(meaning))),
                ):
                    found[name] = " ".join(meaning.split())
    return found


def _docstring(doc: str) -> str:
    if not doc:
        return ""
    quoted = f'    """{doc}"""\n'
    if len(quoted) <= 101:
        return quoted
    lines = textwrap.wrap(f'"""{doc}"""', 96, break_long_words=False, break_on_hyphens=False)
    return textwrap.indent("\n".join(lines), "    ") + "\n"


def main(check: bool) -> int:
    """Writes or compares the file; returns the exit code."""
    if not check:
        FILE.write_text(text(), encoding="utf-8")
    elif FILE.read_text("utf-8") != text():
        print(f"{FILE.name} is not what the settings say; run make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))

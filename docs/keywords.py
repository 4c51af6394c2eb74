"""Writes src/lorafit/settings/keywords.py, the types of the settings as keywords, from `Config`.

python docs/keywords.py            write the file
python docs/keywords.py --check    fails if the file is not what the settings say
"""

from __future__ import annotations

import sys
import textwrap
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from lorafit.settings.keys import SHORT
from lorafit.settings.meanings import groups, meanings
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
    models: dict[str, list[type[BaseModel]]] = {}  # a setting of an adapter may be several methods'
    for group in groups():
        for name in group.names:
            models.setdefault(group.key(name), []).append(group.model)
    by_key = {key: _field(key, classes) for key, classes in models.items()}
    by_name: dict[str, list[str]] = {}
    for key in by_key:
        by_name.setdefault(key.rpartition(".")[2], []).append(key)
    found = {
        name: by_key[keys[0]]
        for name, keys in by_name.items()
        if len(keys) == 1 and keys[0] not in POSITIONAL
    }
    for name, key in (SHORT | ALIASES).items():
        if key not in POSITIONAL:
            found[name] = by_key[key]
    return found | dict.fromkeys(OUTPUT, ("str", "Folder of the run: ``dir`` and ``name`` in one."))


def _field(key: str, models: list[type[BaseModel]]) -> Field:
    name = key.rpartition(".")[2]
    kinds = [part for model in models for part in _types(model.model_fields[name].annotation)]
    if key in MEASURABLE:
        kinds.append('Literal["auto"]')
    if "Collection[str]" in kinds or "Sequence[str]" in kinds:
        kinds.insert(0, "str")  # one name is a list of one
    kinds = sorted(dict.fromkeys(kinds), key=lambda kind: kind == "None")
    texts = [text for model in models if (text := meanings(model).get(name))]
    return " | ".join(kinds), texts[0] if texts else ""


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

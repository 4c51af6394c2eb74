"""Writes docs/reference from the code and checks every link in the documentation.

python docs/build.py            write the pages, then check
python docs/build.py --check    check only; fails if a page is not what the code says
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import lorafit
from lorafit.cli import app
from lorafit.config import AdapterConfig, Config
from lorafit.methods import method_of, methods
from lorafit.settings.keys import method_config, method_fields, recommended, sections, top_level
from lorafit.settings.meanings import meanings
from lorafit.testing import MethodChecks, TaskChecks

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
HEAD = "<!-- Written by `make docs` from the code. Change the code instead. -->\n\n"


def settings_page() -> str:
    """Every setting with its type, default and meaning."""
    parts = [
        "# Settings\n",
        "Write them in a YAML file (`--config run.yaml`), singly (`--set train.max_steps=100`),",
        "as flags (`--r 8`) or as keyword arguments of `lorafit.train(model, data, r=8)`. Later",
        "ones win in the order default, file, `--set`, flag. Unknown names are errors.\n",
        "```yaml\nadapter:\n  r: 8\n  target_modules: [q_lin, v_lin]\n"
        "train:\n  learning_rate: 2e-3\n```\n",
        "## General\n",
        _table(Config, top_level()),
    ]
    for name, stage in sections().items():
        parts.append(f"\n## {name}\n\n{_doc(stage)}\n")
        if stage is AdapterConfig:
            parts.append("`adapter.method` names the method; the other settings are its own.\n")
            for method in methods:
                own = method_config(method)
                if methods[method].preset_of is not None:
                    parts.append(f"### {method}\n\n{_preset(method)}\n")
                    continue
                parts.append(f"### {method}\n\n{_doc(own)}\n")
                parts.append(_table(own, method_fields(method), recommended(method)))
        else:
            parts.append(_table(stage, list(stage.model_fields)))
    return "\n".join(parts) + "\n"


def _preset(method: str) -> str:
    """What a preset is, in one line."""
    parent = methods[method].preset_of or ""
    usual = recommended(parent)
    other = [f"`{k}: {_value(v)}`" for k, v in recommended(method).items() if usual.get(k) != v]
    text = _doc(methods[method])
    return f"{text}\n\nThe settings of [{parent}](#{parent}), with {', '.join(other)}."


def _table(model: type[BaseModel], names: list[str], defaults: dict[str, Any] | None = None) -> str:
    texts = meanings(model)
    lines = ["| name | type | default | meaning |", "|---|---|---|---|"]
    for name in names:
        field = model.model_fields[name]
        default = (defaults or {}).get(name, field.get_default(call_default_factory=True))
        shown = "required" if default is PydanticUndefined else f"`{_value(default)}`"
        kind = _type(field.annotation)
        meaning = texts.get(name, "").replace("``", "`")
        for python, yaml in (("None", "null"), ("True", "true"), ("False", "false")):
            meaning = meaning.replace(f"`{python}`", f"`{yaml}`")
        lines.append(f"| `{name}` | {kind} | {shown} | {meaning} |".replace("  |", " |"))
    return "\n".join(lines)


def _type(annotation: Any) -> str:
    """A type in words."""
    words = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    if annotation in words:
        return words[annotation]
    if annotation is type(None):
        return "null"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if origin in (list, set):
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"mapping of {_type(inner[0])} to {_type(inner[1])}"
    return " or ".join(map(_type, inner)) or str(annotation)


def _value(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def cli_page() -> str:
    """Every command with its arguments and flags."""
    group: Any = typer.main.get_command(app)
    parts = [
        "# Command line\n",
        "Exit codes: 0 success, 2 wrong usage (the input has to change), 1 any other failure,",
        "130 after Ctrl-C, 143 after SIGTERM. Results go to standard output, everything else to",
        "standard error.",
        "`--debug` shows the traceback of an error. `lorafit --install-completion` makes the shell",
        "complete commands and flags; `--show-completion` prints what it would install.\n",
    ]
    for name, command in group.commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join(
            ["lorafit", name, *(str(p.metavar) for p in arguments), "[OPTIONS]" * bool(options)]
        )
        parts.append(f"## {name}\n\n```\n{usage}\n```\n\n{inspect.cleandoc(command.help or '')}\n")
        parts += ["| | |", "|---|---|"]
        parts += [f"| `{p.metavar}` | {p.help} |" for p in arguments]
        for option in options:
            names = ", ".join(f"`{n}`" for n in [*option.opts, *option.secondary_opts])
            parts.append(f"| {names} | {option.help} |")
        parts.append("")
    return "\n".join(parts)


def api_page() -> str:
    """Every public name with its signature and docstring."""
    parts = ["# Python\n"]
    names = getattr(lorafit, "__all__", [])
    for name in names:
        thing = getattr(lorafit, name)
        if inspect.ismodule(thing):
            parts.append(f"## lorafit.{name}\n\n{_doc(thing)}\n")
            continue
        if not callable(thing):
            continue
        parts.append(f"## lorafit.{name}\n\n```\n{_signature(name, thing)}\n```\n\n{_doc(thing)}\n")
        if inspect.isclass(thing):
            parts += list(_methods(name, thing))
    for checks, asked in ((MethodChecks, "parameter_count"), (TaskChecks, "row")):
        member = getattr(checks, asked)
        shown = f"```\n{_signature(asked, member)}\n```"
        parts.append(f"## lorafit.testing.{checks.__name__}\n\n{_doc(checks)}\n")
        parts.append(f"### {checks.__name__}.{asked}\n\n{shown}\n\n{_doc(member)}\n")
    return "\n".join(parts)


def _methods(owner: str, thing: type) -> Iterator[str]:
    members: dict[str, Any] = {}
    for base in thing.__mro__:
        if base is thing or (
            base.__module__.startswith("lorafit.")
            and getattr(lorafit, base.__name__, None) is not base
        ):
            for name, member in vars(base).items():
                members.setdefault(name, member)
    for name, member in members.items():
        inner = member.fget if isinstance(member, property) else member
        inner = getattr(inner, "__func__", inner)
        if name.startswith("_") or not inspect.isfunction(inner):
            continue
        shown = f"{owner}.{name}" if isinstance(member, property) else _signature(name, inner)
        yield f"### {owner}.{name}\n\n```\n{shown}\n```\n\n{_doc(inner)}\n"


def _signature(name: str, thing: Any) -> str:
    if getattr(getattr(thing, "__init__", None), "__module__", "").startswith("transformers."):
        return f"{name}(...)"  # as the installed version has it
    try:
        text = f"{name}{inspect.signature(thing)}"
    except (TypeError, ValueError):
        return name
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)
    return text if len(text) <= 96 else re.sub(r", (?=\*|\w+:|\w+=)", ",\n    ", text)


def _doc(thing: Any) -> str:
    """A docstring as Markdown: double backquotes become single, sections become lists."""
    text = inspect.getdoc(thing) or ""
    text = re.sub(
        r"^(Args|Returns|Raises|Attributes|Yields):\n", r"**\1**\n\n", text, flags=re.MULTILINE
    )
    text = re.sub(r"^    (\*{0,2}\w+): ", r"- `\1`: ", text, flags=re.MULTILINE)
    text = re.sub(r"^    (?=\S)", "", text, flags=re.MULTILINE)
    return text.replace("``", "`")


def methods_page() -> str:
    """What each method computes and what it saves."""
    parts = [
        "# Methods\n",
        "`lorafit train MODEL DATA --method NAME`. The settings of each are in",
        "[Settings](settings.md#adapter).\n",
        "An adapter folder holds `adapter_config.json` and `adapter_model.safetensors`. What",
        "PEFT has is written in PEFT's format. A method that PEFT does not have keeps to the",
        "same scheme: the configuration lists the settings below its own `peft_type`, which",
        "PEFT refuses, and each tensor stands under `base_model.model.` and its path in the",
        "model: trained weights of the base under their own names, modules trained whole (such",
        "as a new head) likewise, and what is added to a layer below the layer's path.\n",
        "| method | family | `peft_type` | PEFT loads it |",
        "|---|---|---|---|",
    ]
    for name in methods:
        kind = methods[name].config_class.model_fields["peft_type"].default
        loads = "no" if kind.startswith("LORAFIT_") else "yes"
        parts.append(f"| [{name}](#{name}) | {methods[name].family} | `{kind}` | {loads} |")
    for name in methods:
        preset = methods[name].preset_of is not None
        text = _preset(name) if preset else _doc(sys.modules[methods[name].__module__])
        text = re.sub(
            r"^\.\. math:: (.*(?:\n   +.*)*)", r"```math\n\1\n```", text, flags=re.MULTILINE
        )
        parts.append(f"\n## {name}\n\n{text}")
    bridge = sys.modules[method_of.__module__ + ".peft.bridge"]
    parts.append(f"\n## peft:NAME\n\n{_doc(bridge)}")
    return "\n".join(parts) + "\n"


PAGES = {
    "methods.md": methods_page,
    "settings.md": settings_page,
    "cli.md": cli_page,
    "api.md": api_page,
}


def broken_links() -> list[str]:
    """Links of the documentation to files or headings that are not there."""
    broken = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            if not path.exists() or (anchor and anchor not in _anchors(path)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    return broken


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def main(check: bool) -> int:
    """Writes or compares the pages, then checks the links; returns the exit code."""
    wrong = []
    for name, page in PAGES.items():
        path, text = REFERENCE / name, HEAD + page().rstrip() + "\n"
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text("utf-8") != text:
            wrong.append(f"docs/reference/{name} is not what the code says; run make docs")
    wrong += [f"broken link in {link}" for link in broken_links()]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))

"""What commands take: arguments and flags that several have, and the flags of settings."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorafit.cli.table import FLAGS, METAVARS, PARSED, Flag
from lorafit.errors import ConfigError
from lorafit.settings.synonyms import OUTPUT, place_and_name
from lorafit.trust import TrustKeywords

if TYPE_CHECKING:
    from lorafit.settings import Settings

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show results and warnings only.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or a run's name.")]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python code that comes with the base model; no file can ask for it.",
    ),
]
Attention = Annotated[
    str | None,
    typer.Option(
        "--attn-implementation",
        metavar="NAME",
        help="Attention of the base: sdpa, eager, or a kernel of the Hub, which is code.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="NAME", help="Where it computes: auto, cpu, cuda, cuda:N or mps."
    ),
]
RunsDir = Annotated[
    Path, typer.Option("--runs-dir", metavar="DIR", help="Folder in which runs are looked up.")
]


@dataclass(frozen=True)
class Given:
    """What was typed that concerns settings.

    Attributes:
        flags: Key to (flag, value), of the flags that were given.
        config: The ``--config`` file.
        sets: The ``--set`` texts.
        command: What is run with them.
    """

    flags: dict[str, tuple[str, Any]]
    config: Path | None
    sets: list[str]
    command: str

    @property
    def names(self) -> list[str]:
        """Everything that was given, as typed."""
        named = [flag for flag, _ in self.flags.values()]
        return named + ["--config"] * (self.config is not None) + ["--set"] * bool(self.sets)

    def resolve(self) -> Settings:
        """Defaults < file < ``--set`` < flags.

        Raises:
            ConfigError: See `lorafit.settings.resolve`.
        """
        from lorafit.settings import check_order, from_file, from_flags, from_sets, resolve

        layers = [] if self.config is None else [from_file(self.config)]
        layers += [from_sets(self.sets), from_flags(self.flags)]
        model, data = (
            next((str(layer[key].value) for layer in reversed(layers) if key in layer), None)
            for key in ("model.name_or_path", "data.path")
        )
        self._check_given(model, data)
        if model is not None and data is not None:
            typed = shlex.join(["lorafit", self.command, data, model])
            check_order(model, data, f"Did you mean: {typed}")
        return resolve(*layers)

    def _check_given(self, model: str | None, data: str | None) -> None:
        """Shows how a command is called to whom leaves out what it is about.

        Raises:
            ConfigError: No source names the model, or the data.
        """
        if model is not None and data is not None:
            return
        from lorafit.settings.order import is_data
        from lorafit.settings.resolve import MISSING

        if model is not None and is_data(model):
            model, data = None, model
        key = "model.name_or_path" if model is None else "data.path"
        example = shlex.join(
            ["lorafit", self.command, model or "distilbert-base-uncased", data or "reviews.csv"]
        )
        demo = (
            "\nTo see it at work first, without a network: lorafit demo" if not self.names else ""
        )
        raise ConfigError(f"{MISSING[key]}\nFor example: {example}{demo}")


def with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command MODEL, DATA, ``--config``, ``--set`` and every flag of the table.

    The function is called with its own parameters and ``given: Given``. A flag of its own
    takes the place of one of the table with the same name.
    """
    own = inspect.signature(function, eval_str=True).parameters
    names = {"--" + name.replace("_", "-") for name in own}
    command = function.__name__
    flags_here = [flag for flag in FLAGS if flag.shown not in names]
    added = _parameters(flags_here)

    @functools.wraps(function)
    def run(**kwargs: Any) -> None:
        taken = {name: kwargs.pop(name) for name in added}
        flags = _model_and_data(taken)
        for flag in flags_here:
            typed = _typed(flag, taken)
            if typed is not None:
                flags[flag.key] = typed
        _add_output(flags, taken)
        given = Given(flags, taken["config"], taken["sets"] or [], command)
        function(**kwargs, given=given)

    arguments = [added["model"], added["data"]]
    options = [parameter for name, parameter in added.items() if name not in ("model", "data")]
    rest = [parameter for name, parameter in own.items() if name != "given"]
    # Typer reads a function's signature and type hints; both are made here.
    parameters = [*arguments, *rest, *options]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__
    return run


def _model_and_data(taken: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """MODEL and DATA, which may be typed as flags as well.

    Raises:
        ConfigError: One is typed twice, with different values.
    """
    places = [value for value in (taken["model"], taken["data"]) if value is not None]
    keys = {"model": "model.name_or_path", "data": "data.path"}
    named = {name: taken[f"named_{name}"] for name in keys}
    if len(places) == 1 and named["model"] is not None and named["data"] is None:
        places.insert(0, named["model"])  # a single argument beside --model is DATA
    found: dict[str, tuple[str, Any]] = {}
    for name, key in keys.items():
        typed = places.pop(0) if places else None
        if typed is not None and named[name] is not None and typed != named[name]:
            raise ConfigError(
                f"{name.upper()} is {typed} and --{name} is {named[name]}.\nLeave one of them out."
            )
        if typed is not None:
            found[key] = (name.upper(), typed)
        elif named[name] is not None:
            found[key] = (f"--{name}", named[name])
    return found


def _add_output(flags: dict[str, tuple[str, Any]], taken: Mapping[str, Any]) -> None:
    """The run's folder as place and name.

    Raises:
        ConfigError: These are given as well, and are others.
    """
    for name in OUTPUT:
        flag, folder = f"--{name.replace('_', '-')}", taken[name]
        if folder is None:
            continue
        for key, value in place_and_name(folder).items():
            other, known = flags.setdefault(key, (flag, value))
            if known != value:
                raise ConfigError(
                    f"{flag} is {folder} and {other} is {known}, but both set {key}.\n"
                    "Leave one of them out."
                )


def _typed(flag: Flag, taken: dict[str, Any]) -> tuple[str, Any] | None:
    """The name that was typed for a flag, and the value; ``None``: it was not.

    Raises:
        ConfigError: Two of its names were typed, with different values.
    """
    parameters = [flag.parameter, *map(_parameter, flag.others)]
    found = [
        (name, taken[parameter])
        for name, parameter in zip((flag.shown, *flag.others), parameters, strict=True)
        if taken[parameter] is not None and taken[parameter] != []
    ]
    if not found:
        return None
    first = found[0]
    for name, value in found[1:]:
        if value != first[1]:
            raise ConfigError(
                f"{first[0]} is {first[1]} and {name} is {value}, but both set {flag.key}.\n"
                "Leave one of them out."
            )
    return first


def _parameter(name: str) -> str:
    """Name of the Python parameter of a flag's further name."""
    return "also_" + name.removeprefix("--").replace("-", "_")


def trust_given(code: bool, attention: str | None) -> TrustKeywords:
    """What of `TrustRemoteCode` and `Attention` was typed, as keywords of the calls."""
    given: TrustKeywords = {}
    if code:
        given["trust_remote_code"] = True
    if attention is not None:
        given["attn_implementation"] = attention
    return given


def run_path(run: str, runs_dir: Path) -> str:
    """The folder that RUN names: itself, or the run of this name below ``--runs-dir``."""
    below = runs_dir / run
    return str(below) if not Path(run).exists() and below.exists() else run


def _parameters(flags: Sequence[Flag]) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}

    def add(name: str, kind: Any, info: Any) -> None:
        found[name] = inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, info],
        )

    anywhere = "Hub id, local path or package:NAME/path."
    add("model", str, typer.Argument(metavar="MODEL", help=anywhere))
    add("data", str, typer.Argument(metavar="DATA", help=anywhere))
    for name in ("model", "data"):
        also = f"{name.upper()}, as a flag."
        add(f"named_{name}", str, typer.Option(f"--{name}", hidden=True, help=also))
    for name in OUTPUT:
        typed, folder = f"--{name.replace('_', '-')}", "Folder of the run: --runs-dir and --name."
        add(name, str, typer.Option(typed, hidden=True, help=folder))
    for flag in flags:
        options: dict[str, Any] = {"help": flag.explained, "rich_help_panel": flag.panel}
        kind = flag.type
        options["metavar"] = flag.metavar or METAVARS[kind]
        if kind in PARSED:
            options["parser"] = kind
            kind = float
        add(flag.parameter, kind, typer.Option(flag.declared, **options))
        for name in flag.others:
            add(_parameter(name), kind, typer.Option(name, **options, hidden=True))
    add("config", Path, typer.Option("--config", metavar="FILE", help="YAML file of settings."))
    add(
        "sets",
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting: train.max_steps=100."),
    )
    return found

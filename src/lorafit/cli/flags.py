"""The flags that set settings, in one table.

A row makes one flag for each command that takes settings. What is not common enough for
a flag is set with ``--set group.name=value`` or in a file.
"""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lorafit.errors import ConfigError
from lorafit.settings.synonyms import ALIASES, OUTPUT, place_and_name
from lorafit.trust import TrustKeywords

if TYPE_CHECKING:
    from lorafit.settings import Settings

N = TypeVar("N", int, float)

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
class Flag:
    """One flag for one setting.

    Attributes:
        key: The setting it sets.
        type: Type of the value as typed.
        help: What it does.
        panel: Heading it stands under in ``--help``.
        names: As typed, the first one first of all; empty: ``--`` and the setting's name.
        metavar: Word for the value; ``None``: made from the type.
    """

    key: str
    type: Any
    help: str
    panel: str
    names: tuple[str, ...] = ()
    metavar: str | None = None

    @property
    def parameter(self) -> str:
        """Name of the Python parameter."""
        return self.key.replace(".", "__")

    @property
    def declared(self) -> str:
        """The name as typer takes it."""
        name = self.key.rpartition(".")[2].replace("_", "-")
        if self.type is bool:
            return f"--{name}/--no-{name}"
        return self.names[0] if self.names else f"--{name}"

    @property
    def shown(self) -> str:
        """The name that origins and messages use."""
        return self.declared.partition("/")[0]

    @property
    def others(self) -> tuple[str, ...]:
        """Further names: hidden flags of their own, so that two values are noticed."""
        aliases = (f"--{name}" for name, key in ALIASES.items() if key == self.key)
        return (*self.names[1:], *aliases)

    @property
    def explained(self) -> str:
        """What it does, and its further names."""
        return f"{self.help} Also {', '.join(self.others)}." if self.others else self.help


def _number(text: str | float) -> int | float | str:
    """A whole number where one was typed: ``--lora-alpha 32`` is 32, not 32.0."""
    if text == "auto":
        return "auto"
    number = _read(float, text, "a number")
    return int(number) if number.is_integer() and not set(str(text)) & set(".eE") else number


def _whole(text: str | int) -> int | str:
    """A whole number, or ``auto``."""
    return "auto" if text == "auto" else _read(int, text, "a whole number")


def _rate(text: str | float) -> float | str:
    """A number, or ``auto``."""
    return "auto" if text == "auto" else _read(float, text, "a number")


def _read(kind: Callable[[Any], N], text: Any, what: str) -> N:
    """A number as it was typed.

    Raises:
        typer.BadParameter: It is none.
    """
    try:
        return kind(text)
    except ValueError:
        raise typer.BadParameter(f'"{text}" is neither {what} nor auto.') from None


PARSED = (_number, _rate, _whole)
"""Types that typer cannot read by itself."""

METAVARS = {
    _rate: "NUMBER|auto",
    _whole: "INTEGER|auto",
    _number: "NUMBER|auto",
    bool: None,
    float: "NUMBER",
    int: "INTEGER",
    list[str]: "TEXT",
    str: "TEXT",
}

# Written out: reading --help must not wait for torch. A test holds it to the registry.
METHODS = (
    "Method: lora, rslora, dora, pissa, full, head, bitfit, layernorm, last_layers, sparse, ia3, "
    "bottleneck, prompt or prefix."
)

FLAGS = (
    Flag("data.text", list[str], "Text column (twice for pairs), or prompt. Guessed.", "Data"),
    Flag(
        "data.label",
        list[str],
        "Label column (0/1 columns if repeated), or completion.",
        "Data",
    ),
    Flag("data.where", str, "Keep rows for which this holds: \"category != 'plot'\".", "Data"),
    Flag("data.test", str, "File with the test rows.", "Data", metavar="FILE"),
    Flag("data.validation", str, "File with the validation rows.", "Data", metavar="FILE"),
    Flag("data.encoding", str, "Encoding of DATA, if not UTF-8: cp1252.", "Data", metavar="NAME"),
    Flag("data.clean_labels", bool, "Join labels that differ in case or spaces only.", "Data"),
    Flag("data.dedupe", bool, "Leave out training rows whose text is there twice.", "Data"),
    Flag("data.skip_bad_rows", bool, "Leave out rows that cannot be read.", "Data"),
    Flag("data.max_length", int, "Longest input in tokens; longer ones are cut.", "Data"),
    Flag("task", str, "Task. Guessed from columns and model if left out.", "Data"),
    Flag("adapter.method", str, METHODS, "Adapter"),
    Flag("adapter.r", _whole, "Rank. Measured if left out.", "Adapter"),
    Flag(
        "adapter.lora_alpha",
        _number,
        "The update is scaled by lora_alpha / r. Measured.",
        "Adapter",
    ),
    Flag("adapter.lora_dropout", float, "Dropout on the adapter's input.", "Adapter"),
    Flag(
        "adapter.target_modules",
        str,
        "Names such as q_lin,v_lin, a regular expression, or all-linear. Measured.",
        "Adapter",
    ),
    Flag(
        "adapter.target_parameters",
        str,
        "Also adapt weights that are no layers: experts.gate_up_proj,experts.down_proj.",
        "Adapter",
        metavar="NAMES",
    ),
    Flag(
        "adapter.trainable_token_indices",
        str,
        "Also train these rows of the input embeddings: 17,42.",
        "Adapter",
        metavar="IDS",
    ),
    Flag(
        "model.add_tokens",
        list[str],
        "New token for the tokenizer, with a trained row (repeat it for more).",
        "Adapter",
        metavar="TOKEN",
    ),
    Flag("adapter.use_rslora", bool, "Scale by lora_alpha / sqrt(r).", "Adapter"),
    Flag("adapter.use_dora", bool, "Also train the length of each weight row.", "Adapter"),
    Flag("adapter.bias", str, "Biases to train: none, all or lora_only.", "Adapter"),
    Flag("train.learning_rate", _rate, "Peak learning rate. Measured if left out.", "Training"),
    Flag("train.num_train_epochs", _rate, "Passes over the training data.", "Training"),
    Flag("train.max_steps", int, "Optimizer steps, instead of --num-train-epochs.", "Training"),
    Flag(
        "train.per_device_train_batch_size",
        int,
        "Examples in a batch.",
        "Training",
        ("--batch-size", "--per-device-train-batch-size"),
    ),
    Flag(
        "train.device",
        str,
        "Where it computes: auto, cpu, cuda, cuda:N or mps.",
        "Training",
        metavar="NAME",
    ),
    Flag(
        "tune.strategy",
        str,
        "How what is left out is measured: rise, grid, tpe, or none (take the defaults).",
        "Choosing",
    ),
    Flag(
        "tune.budget",
        str,
        "Most that choosing and training cost: in plain runs (1.25) or as a time (20min).",
        "Choosing",
    ),
    Flag("seed", int, "Seed of everything random.", "Training"),
    Flag(
        "model.trust_remote_code",
        bool,
        "Run Python code that comes with MODEL. A file cannot say so.",
        "Model",
    ),
    Flag(
        "model.attn_implementation",
        str,
        "Attention: sdpa, eager, or a kernel of the Hub, which is code.",
        "Model",
        metavar="NAME",
    ),
    Flag("run.name", str, "Name of the run folder.", "Output"),
    Flag("run.dir", str, "Folder of the runs.", "Output", ("--runs-dir",), "DIR"),
    Flag(
        "train.report_to",
        list[str],
        "Also log to tensorboard, trackio, wandb or mlflow.",
        "Output",
    ),
)


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

"""The flags that set settings, in one table.

A row makes one flag for each command that takes settings. What is not common enough for
a flag is set with ``--set group.name=value`` or in a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import typer

from lorafit.settings.synonyms import ALIASES

N = TypeVar("N", int, float)


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
    Flag(
        "tune.prior",
        str,
        "Begin near what earlier runs found, by this file; the run adds its line.",
        "Choosing",
        metavar="FILE",
    ),
    Flag("seed", int, "Seed of everything random.", "Training"),
    Flag(
        "model.head_init",
        str,
        "How a new head begins: probe (solved for on what the model says) or random.",
        "Model",
        metavar="WORD",
    ),
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

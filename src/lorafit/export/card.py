"""The model card: what the adapter is, how it was made, how good it is, how to load it.

Only facts that were measured or set are printed. The licence is left out unless it is known;
Hub ids go into the metadata only if they are Hub ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from jinja2 import Environment, PackageLoader, StrictUndefined

from lorafit.config import Config, TrainConfig
from lorafit.errors import LorafitError
from lorafit.evidence import Choice, Evaluation, Table
from lorafit.evidence.confusion import class_scores, confusion_of
from lorafit.evidence.headline import simple_sentence
from lorafit.evidence.rows import metric_rows
from lorafit.evidence.tables import Cell
from lorafit.export import base_card
from lorafit.paths import PACKAGE_PREFIX, resolve
from lorafit.run import atomic
from lorafit.run.commands import FOLDER
from lorafit.settings import LIVE
from lorafit.tasks.base import Task

FILE = "README.md"

_PIPELINE = {
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "CAUSAL_LM": "text-generation",
}
"""PEFT's task type to the Hub's pipeline tag."""


@dataclass(frozen=True)
class Card:
    """The facts of one adapter."""

    config: Config
    """The resolved settings of the run."""
    task: Task
    base_name: str | None
    """`LoadedModel.base_name`."""
    rows: Mapping[str, int]
    """Split to encoded rows."""
    max_length: int
    adapter: Mapping[str, Any]
    """The content of ``adapter_config.json``."""
    choices: Mapping[str, Choice] = field(default_factory=dict)
    """What was chosen automatically, by setting."""
    evaluation: Evaluation | None = None
    """What was measured."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Package to version."""
    trainable_parameters: int | None = None
    steps: int | None = None
    """Optimizer steps that were trained."""
    title: str | None = None
    """Heading; ``None``: made from the base model and the data."""
    data_hub_id: str | None = None
    """Set only if the data came from the Hub."""
    license: str | None = None
    """SPDX-style id as the Hub spells it; ``None``: what the base's own card says, if it does."""
    in_run: bool = False
    """The data was read by a run, so that a name that is no path is one of the Hub."""
    resized_head: bool = False
    """`LoadedModel.resized_head`."""


def render(card: Card) -> str:
    """Returns the card as Markdown with YAML metadata."""
    environment = Environment(
        loader=PackageLoader("lorafit.export", "."),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters["cell"] = _cell
    values = card.task.to_dict()
    evaluation = card.evaluation
    tables = [] if evaluation is None else evaluation.tables
    return environment.get_template("card.md.j2").render(
        metadata=metadata(card).to_yaml().strip(),
        title=_cell(_title(card)),
        method=_method(card),
        article="An" if _method(card)[:1] in "aeiouAEIO" else "A",
        base_link=_base_link(card),
        does=_does(card),
        weights=_weights(card),
        classes=_classes(tables),
        simple=_simple(tables) or _cell("" if evaluation is None else simple_sentence(evaluation)),
        confusions=_confusions(tables),
        use=_use(card),
        limits=_limits(card),
        evaluation=evaluation,
        confidence=f"{100 * card.config.run.confidence:g} %",
        results=[] if evaluation is None else _results(evaluation),
        handoff=_handoff(evaluation),
        labels=values.get("label_names", []),
        facts=_facts(card),
        peft_snippet=peft_snippet(card) if _in_peft(card) else "",
        lorafit_snippet=lorafit_snippet(card),
    )


def write(card: Card, folder: Path) -> Path:
    """Writes ``README.md`` into the adapter's folder, all or nothing.

    Raises:
        RunError: It cannot be written.
    """
    path = folder / FILE
    atomic.write_text(path, render(card))
    return path


def metadata(card: Card) -> ModelCardData:
    """Returns the metadata as the Hub defines it."""
    measured = [
        (row.info.hub, row.label, row.tuned.value)
        for row in ([] if card.evaluation is None else metric_rows(card.evaluation))
        if row.info.hub is not None and row.tuned is not None
    ]
    kind = _PIPELINE.get(card.task.task_type)
    hub_data = _data_hub_id(card)
    data = hub_data or _data_name(card)
    base, known = _hub_id(card), base_card.read(card.base_name)
    extra = {} if card.license else {
        name: value
        for name in ("license_name", "license_link")
        if (value := getattr(known, name)) is not None
    }  # fmt: skip
    if base:
        extra["base_model_relation"] = "adapter"
    results = [
        EvalResult(
            task_type=kind or "other",
            dataset_type=hub_data or "other",
            dataset_name=data,
            dataset_split="test" if card.evaluation is None else card.evaluation.split,
            metric_type=hub_name,
            metric_name=name,
            metric_value=round(float(value), 4),
        )
        for hub_name, name, value in measured
    ]
    return ModelCardData(
        base_model=base,
        datasets=[hub_data] if hub_data else None,
        language=known.language,
        library_name="peft" if _in_peft(card) else "lorafit",
        license=card.license or known.license,
        metrics=list(dict.fromkeys(hub_name for hub_name, _, _ in measured)) or None,
        model_name=_title(card) if results else None,
        eval_results=results or None,
        pipeline_tag=kind,
        tags=list(dict.fromkeys([card.config.adapter.method, "lorafit"])),
        **extra,
    )


def peft_snippet(card: Card, adapter: str = FOLDER) -> str:
    """Returns code that loads and uses the adapter with peft and transformers alone.

    It defines ``model``, ``tokenizer``, ``inputs`` (`Task.asking`) and what `Task.reading` does.
    """
    auto = card.task.auto_model.__name__
    labels: dict[int, str] = card.task.model_kwargs().get("id2label", {})
    base, options = _base(card)
    in_package = (card.base_name or "").startswith(PACKAGE_PREFIX)
    imports = ["from importlib.resources import files", ""] if in_package else []
    named = ", ".join(f"{index}: {_quoted(name)}" for index, name in labels.items())
    numbered = ", ".join(f"{_quoted(name)}: {index}" for index, name in labels.items())
    arguments = [base, *options]
    if labels:
        arguments += ["id2label=id2label", f"label2id={{{numbered}}}"]
    dtype = card.config.model.dtype
    if dtype != "auto":
        arguments.append(f"dtype={_quoted(dtype)}")
    if card.resized_head:
        arguments.append("ignore_mismatched_sizes=True")
    joined = "".join(f"    {argument},\n" for argument in arguments)
    return "\n".join(
        [
            *imports,
            "import torch",
            "from peft import PeftModel",
            f"from transformers import {auto}, AutoTokenizer",
            "",
            f"adapter = {_quoted(adapter)}",
            *([f"id2label = {{{named}}}"] if labels else []),
            f"base = {auto}.from_pretrained(\n{joined})",
            "tokenizer = AutoTokenizer.from_pretrained(adapter)",
            "base.config.pad_token_id = tokenizer.pad_token_id",
            "model = PeftModel.from_pretrained(base, adapter).eval()",
            "",
            *card.task.asking(card.max_length),
            *card.task.reading,
        ]
    )


def lorafit_snippet(card: Card, adapter: str = FOLDER) -> str:
    """Returns code that uses the adapter with lorafit."""
    texts = ", ".join(map(_quoted, card.task.examples))
    text = f"({texts})" if len(card.task.examples) > 1 else texts
    return f"import lorafit\n\nprint(lorafit.predict({_quoted(adapter)}, [{text}]))"


def _base(card: Card) -> tuple[str, list[str]]:
    """The base model as a Python expression, and further arguments to load it."""
    name = card.base_name or "the base model"
    options = []
    gguf_file = card.config.model.gguf_file
    if name.lower().endswith(".gguf"):
        name, _, gguf_file = name.rpartition("/")
    if name.startswith(PACKAGE_PREFIX):
        package, *inside = name.removeprefix(PACKAGE_PREFIX).strip("/").split("/")
        place = f"files({_quoted(package.replace('-', '_'))})"
        for part in inside:
            place += f" / {_quoted(part)}"
        expression = f"str({place})"
    else:
        expression = _quoted(name)
    if gguf_file is not None:
        options.append(f"gguf_file={_quoted(gguf_file)}")
    if card.config.model.revision is not None and _hub_id(card):
        options.append(f"revision={_quoted(card.config.model.revision)}")
    if card.config.model.trust_remote_code:
        options.append("trust_remote_code=True")
    return expression, options


def _hub_id(card: Card) -> str | None:
    """The base model's Hub id, if it can be one."""
    name = card.base_name
    if name is None or name.startswith(PACKAGE_PREFIX) or Path(name).is_absolute():
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def _base_link(card: Card) -> str:
    hub_id = _hub_id(card)
    if hub_id:
        return f"[{hub_id}](https://huggingface.co/{hub_id})"
    return f"`{card.base_name}`" if card.base_name else "a model given in memory"


def _title(card: Card) -> str:
    """What a person would write above it."""
    if card.title:
        return card.title
    what = _TITLES.get(card.task.name, card.task.name.replace("_", " ").capitalize())
    data = "" if card.config.data.path == LIVE else f" for {_data_name(card).replace('_', ' ')}"
    return f"{what}{data} ({_base_title(card)}, {_method(card)})"


_TITLES = {
    "sequence_classification": "Text classifier",
    "multi_label_classification": "Multi-label text classifier",
    "regression": "Text scorer",
    "token_classification": "Word tagger",
    "causal_lm": "Language model",
    "seq2seq": "Text-to-text model",
}
_PLAIN = {"model", "base", "weights", "snapshot", "checkpoint", "pytorch", "final"}
"""Names of folders that say nothing of the model in them."""


def _base_title(card: Card) -> str:
    """The base's own name, without the folders around it."""
    hub_id = _hub_id(card)
    if hub_id:
        return hub_id.rpartition("/")[2]
    name = (card.base_name or "a model in memory").removeprefix(PACKAGE_PREFIX).rstrip("/")
    parts = [part for part in name.split("/") if part and part.lower() not in _PLAIN]
    return parts[-1] if parts else name


def _data_hub_id(card: Card) -> str | None:
    """The data's Hub id, if it came from there."""
    name = card.config.data.path
    if card.data_hub_id or name == LIVE or name.startswith(PACKAGE_PREFIX):
        return card.data_hub_id
    try:
        if resolve(name) is not None:
            return None
        validate_repo_id(name)
    except (LorafitError, HFValidationError):
        return None
    return name if card.in_run else None


def _data_name(card: Card) -> str:
    """The data as a person calls it: no folders, no endings of files."""
    if _data_hub_id(card):
        return str(_data_hub_id(card))
    if card.config.data.path == LIVE:
        return "data in memory"
    name = card.config.data.path.rstrip("/").rpartition("/")[2]
    return re.sub(r"(\.(csv|tsv|jsonl?|parquet|txt|conll|bz2|gz|xz|zst|zip))+$", "", name) or name


def _does(card: Card) -> str:
    """What the model does, as the end of a sentence."""
    names = card.task.to_dict().get("label_names") or []
    known = {
        "sequence_classification": f"gives a text one of {len(names)} labels",
        "multi_label_classification": f"gives a text any of {len(names)} labels",
        "regression": "gives a text a number",
        "token_classification": f"gives each word of a text one of {len(names)} tags",
        "causal_lm": "goes on with a text",
        "seq2seq": "reads one text and writes another",
    }
    return known.get(card.task.name, f"does {card.task.name.replace('_', ' ')}")


def _weights(card: Card) -> str:
    """Which step the weights are of; empty: not known."""
    trained = {} if card.evaluation is None else card.evaluation.training
    steps, best = card.steps or trained.get("steps"), trained.get("best_step")
    if not steps:
        return ""
    if not card.config.train.load_best_model_at_end or best is None:
        return f"step {steps:,} of {steps:,}, the last"
    return f"step {best:,} of {steps:,}, where the validation loss was lowest"


_MOST_CLASSES = 60
_MOST_CONFUSIONS = 5
_FEW = 30
"""Test examples of a label below which its scores say little."""


def _classes(tables: Sequence[Table]) -> Table | None:
    """Scores of each class as text."""
    found = class_scores(tables)
    if found is None or len(found["rows"]) > _MOST_CLASSES:
        return None
    rows: list[list[Cell]] = [
        [f"{cell:.3f}" if isinstance(cell, float) else _cell(cell) for cell in row]
        for row in found["rows"]
    ]
    columns = ["F1" if name == "f1" else _cell(name) for name in found["columns"]]
    return {"title": found["title"], "columns": columns, "rows": rows}


def _simple(tables: Sequence[Table]) -> str:
    """What always giving the most frequent label would reach; empty: not such a task."""
    matrix = confusion_of(tables)
    if matrix is None or not matrix.total:
        return ""
    name, share = matrix.most_frequent
    return f"Always answering {_quoted_name(name)} would be right {100 * share:.1f} % of the time."


def _confusions(tables: Sequence[Table]) -> list[str]:
    """The largest confusions, a phrase each."""
    matrix = confusion_of(tables)
    if matrix is None:
        return []
    return [
        f"{count:,} x {_quoted_name(true)} called {_quoted_name(said)}"
        for true, said, count in matrix.largest(_MOST_CONFUSIONS)
    ]


def _quoted_name(name: str) -> str:
    return f'"{_cell(name)}"'


def _use(card: Card) -> str:
    """What it is for."""
    columns = " and ".join(_quoted_name(name) for name in card.task.text)
    one = len(card.task.text) == 1
    return (
        f"Texts like those it was trained on (column{'' if one else 's'} {columns} of "
        f"{_cell(_data_name(card))}). For other texts, another language or another time, measure "
        "it first: `lorafit evaluate` does."
    )


def _limits(card: Card) -> list[str]:
    """What a user of the model has to know, a sentence each."""
    found = []
    evaluation = card.evaluation
    if evaluation is not None:
        found.append(
            f"The scores are of {int(evaluation.n or 0):,} held-out examples of the same data. "
            "On texts of another origin they are likely lower."
        )
        matrix, scores = confusion_of(evaluation.tables), class_scores(evaluation.tables)
        never = [] if matrix is None else matrix.never_predicted
        if never:
            found.append(f"Never answered on these: {', '.join(map(_quoted_name, never))}.")
        rare = [] if scores is None else [
            str(row[0]) for row in scores["rows"] if isinstance(row[-1], int) and row[-1] < _FEW
        ]  # fmt: skip
        if rare:
            names = ", ".join(map(_quoted_name, rare[:8])) + (", ..." if len(rare) > 8 else "")
            found.append(f"Fewer than {_FEW} test examples, so the scores say little: {names}.")
    if card.task.name in ("causal_lm", "seq2seq"):
        found.append("What it writes may be wrong or offensive; check it before it is relied on.")
    elif card.task.name != "regression":
        found.append(
            "It answers every text, also one that none of its labels fits. Its probabilities were "
            "not calibrated."
        )
    found.append(f"Inputs of more than {card.max_length:,} tokens are cut.")
    found.append("It inherits the biases of the base model and of the data.")
    return found


def _method(card: Card) -> str:
    if card.adapter.get("use_dora"):
        return "DoRA"
    return "LoRA" if card.config.adapter.method == "lora" else card.config.adapter.method


def _in_peft(card: Card) -> bool:
    """Whether PEFT has the method, so that it loads the adapter."""
    return not str(card.adapter.get("peft_type", "")).startswith("LORAFIT_")


def _results(evaluation: Evaluation) -> list[list[str]]:
    return [
        [
            f"{row.info.title} ({row.info.unit})" if row.info.unit else row.info.title,
            *(f"{found:.3f}" if found else "" for found in (row.base, row.tuned)),
            f"{row.difference:+.3f}" if row.difference else "",
        ]
        for row in metric_rows(evaluation)
        if row.tuned is not None
    ]


def _handoff(evaluation: Evaluation | None) -> list[str]:
    if evaluation is None or evaluation.handoff is None:
        return []
    return [f"{name} {value:.1e}" for name, value in evaluation.handoff.differences.items()]


def _epochs(train: TrainConfig, evaluation: Evaluation | None) -> float | str:
    """Passes over the data: those that were set, or what ``auto`` came to."""
    if train.num_train_epochs != "auto" or evaluation is None or evaluation.course is None:
        return train.num_train_epochs
    return evaluation.course.epochs


def _facts(card: Card) -> list[tuple[str, str, str]]:
    """Name, value and reason of everything that was set or chosen."""
    train = card.config.train
    adapter = card.adapter
    rows = ", ".join(f"{count:,} {split}" for split, count in card.rows.items())
    found: list[tuple[str, Any, str]] = [
        ("base model", card.base_name, ""),
        ("data", _data_hub_id(card) or card.config.data.path, ""),
        ("rows", rows, ""),
        ("text", " and ".join(card.task.text), ""),
        ("label", card.task.to_dict().get("label"), ""),
        ("max_length", card.max_length, ""),
        *((name, adapter.get(name), _reason(card, name)) for name in _ADAPTER_FACTS),
        ("trainable parameters", card.trainable_parameters, ""),
        ("learning_rate", train.learning_rate, _reason(card, "learning_rate")),
        ("lr_scheduler_type", train.lr_scheduler_type, ""),
        ("num_train_epochs", None if train.max_steps else _epochs(train, card.evaluation), ""),
        ("max_steps", train.max_steps, ""),
        ("weights", _weights(card), ""),
        (
            "batch size",
            train.per_device_train_batch_size * train.gradient_accumulation_steps,
            "per device" if train.gradient_accumulation_steps == 1 else "per device, accumulated",
        ),
        ("seed", card.config.seed, ""),
        ("dtype of the base", card.config.model.dtype, ""),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in card.versions.items() if version),
            "",
        ),
    ]
    return [
        (name, _value(value), reason)
        for name, value, reason in found
        if value is not None and value is not False and value not in ([], {}, "", ())
    ]


_ADAPTER_FACTS = (
    *("r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save"),
    *("use_rslora", "use_dora", "init_lora_weights", "rank_pattern", "alpha_pattern"),
)


def _reason(card: Card, name: str) -> str:
    choice = card.choices.get(name)
    return choice.reason if choice else ""


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple | set):
        return ", ".join(sorted(map(str, value)))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    return str(value)


def _cell(value: Any) -> str:
    """Text that cannot break out of a Markdown table's cell."""
    text = " ".join(str(value).split())
    for sign in "\\|`*[]":
        text = text.replace(sign, f"\\{sign}")
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # inside of a word it means itself
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(text: str) -> str:
    """Text as a Python literal; JSON's strings are Python's."""
    return json.dumps(text, ensure_ascii=False)

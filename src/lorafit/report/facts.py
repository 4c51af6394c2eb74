"""The sections that list facts: the adapter, the cost, the data, the settings, how to load."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from statistics import median
from typing import Any

from lorafit.evidence.json import Json, mapping
from lorafit.report.folder import RunFolder
from lorafit.report.numbers import is_number
from lorafit.run.commands import FOLDER, predict_command


@dataclass(frozen=True)
class Part:
    """A group of the adapter's tensors: the same layer in every block, or a whole module.

    Attributes:
        name: Last part of the layers' paths, or the module's path.
        layers: How many layers, ``None`` for a module trained whole.
        parameters: Numbers in its tensors.
        ranks: The ranks that occur.
    """

    name: str
    layers: int | None
    parameters: int
    ranks: list[int]


@dataclass(frozen=True)
class Setting:
    """One line of ``config.yaml``."""

    name: str
    value: Any
    origin: str


def adapter_parts(tensors: Mapping[str, tuple[int, ...]]) -> list[Part]:
    """The tensors of an adapter in groups, low-rank ones first."""
    low_rank: dict[str, dict[str, list[tuple[str, tuple[int, ...]]]]] = {}
    whole: dict[str, int] = {}
    for key, shape in tensors.items():
        path, mark, rest = key.removeprefix("base_model.model.").partition(".lora_")
        if mark:
            leaf = path.rpartition(".")[2]
            low_rank.setdefault(leaf, {}).setdefault(path, []).append((rest, shape))
        else:
            module = path.rpartition(".")[0] or path
            whole[module] = whole.get(module, 0) + prod(shape)
    parts = []
    for leaf, layers in low_rank.items():
        inside = [item for layer in layers.values() for item in layer]
        ranks = {shape[0] for rest, shape in inside if rest.split(".")[0] in ("A", "embedding_A")}
        parameters = sum(prod(shape) for _, shape in inside)
        parts.append(Part(leaf, len(layers), parameters, sorted(ranks)))
    return parts + [Part(module, None, count, []) for module, count in whole.items()]


# What of the environment belongs to another section, by name.
_DATA = ("data", "data_fingerprint")
_TRAINED = ("trainable_parameters", "total_parameters")
_COST = ("steps", "epoch", "time_s", "peak_memory_bytes", "tokens_per_s", "stopped")


def measured(run: RunFolder) -> Json:
    """What the end of training wrote down; ``{}`` before."""
    return {} if run.evaluation is None else dict(run.evaluation.training)


def training_cost(run: RunFolder) -> Json:
    """Time, memory and speed of the training.

    Until training has ended they come from the metrics; the speed is then their median.
    """
    peaks = [v for line in run.metrics if is_number(v := line.get("peak_memory_bytes"))]
    speeds = [v for line in run.metrics if is_number(v := line.get("tokens_per_s"))]
    cost = (run.metrics[-1] if run.metrics else {}) | {
        "steps": run.metrics[-1].get("step") if run.metrics else None,
        "peak_memory_bytes": max(peaks, default=None),
        "tokens_per_s": median(speeds) if speeds else None,
    }
    cost |= measured(run)
    return {
        {"epoch": "epochs"}.get(name, name): cost[name]
        for name in _COST
        if cost.get(name) is not None
    }


def choosing_cost(run: RunFolder) -> Json:
    """What the automatic choices cost."""
    return dict(run.choices.cost)


def trained_facts(run: RunFolder) -> Json:
    """How many parameters were trained, of how many."""
    known = run.environment | measured(run)
    return {name: known[name] for name in _TRAINED if name in known}


def data_facts(run: RunFolder) -> Json:
    """Where the data came from and how it was read: settings first, then what was found."""
    facts: Json = {
        name: value
        for name, value in mapping(run.setting("data")).items()
        if name == "path" or run.origins.get(f"data.{name}") != "default"
    }
    # The task knows which columns were taken, asked for or guessed.
    titles = {
        "name": "task",
        "text": "text column",
        "label": "label column",
        "label_names": "labels",
    }
    for name in titles.keys() & run.task.keys():
        facts.pop(name, None)
    facts |= {
        titles.get(name, name): repr(value) if str(value).isspace() else value
        for name, value in run.task.items()
        if value
    }
    facts["new tokens"] = mapping(run.setting("model")).get("add_tokens")
    facts["longest input, tokens"] = run.extras.get("max_length")
    data = mapping(run.environment.get("data"))
    if data and all(isinstance(value, dict) for value in data.values()):
        seen = mapping(run.data.get("splits"))
        facts["splits"] = _without_zeros(
            {"split": name} | _learned(mapping(seen.get(name))) | mapping(value)
            for name, value in data.items()
        )
        facts["examples of each label"] = _label_counts(seen)
    else:
        facts |= data
    facts["fingerprint"] = facts.get("fingerprint") or run.environment.get("data_fingerprint")
    return {name: value for name, value in facts.items() if value not in (None, {}, [])}


_LEARNED = {
    "tokens": "tokens",
    "longest": "longest",
    "truncated": "cut off",
    "answers_cut": "answers cut off",
    "trained": "learned",
    "untrained": "nothing learned",
    "unknown": "unknown tokens",
}
"""Fields of a split's truth, and what the page calls them."""


def _learned(split: Json) -> Json:
    """What the encoded examples of a split teach."""
    return {title: split[name] for name, title in _LEARNED.items() if name in split}


def _without_zeros(rows: Iterable[Json]) -> list[Json]:
    """The rows of a table, less the columns that are zero in all of them."""
    kept = list(rows)
    empty = {name for name in kept[0] if all(row.get(name) == 0 for row in kept)}
    return [{name: row[name] for name in row if name not in empty} for row in kept]


def _label_counts(splits: Json) -> list[Json]:
    """How often each label occurs in each split."""
    counts = {name: mapping(mapping(split).get("labels")) for name, split in splits.items()}
    names = dict.fromkeys(label for found in counts.values() for label in found)
    return [
        {"label": label} | {split: found.get(label, 0) for split, found in counts.items()}
        for label in names
    ]


def data_notes(run: RunFolder) -> list[tuple[bool, str]]:
    """Whether it is a warning, and what was said while the data was read; warnings first."""
    return [
        (kind == "warnings", str(text))
        for kind in ("warnings", "facts")
        if isinstance(said := run.data.get(kind), list)
        for text in said
    ]


def machine_facts(run: RunFolder) -> Json:
    """The environment, less what other sections show."""
    shown = {"command", "versions", *_DATA, *_TRAINED}
    return {
        name: value
        for name, value in run.environment.items()
        if name not in shown and value not in (None, [], {})
    }


def versions(run: RunFolder) -> Json:
    """Installed packages."""
    found = mapping(run.environment.get("versions"))
    return {name: version for name, version in found.items() if version is not None}


def settings(run: RunFolder) -> dict[str, list[Setting]]:
    """The settings by section, the top level's under ``general``."""
    sections: dict[str, list[Setting]] = {}
    for path, value in _leaves(run.config):
        section = path[0] if len(path) > 1 else "general"
        name = ".".join(path)
        shown = ".".join(path[1:]) or name
        sections.setdefault(section, []).append(Setting(shown, value, run.origins.get(name, "")))
    return sections


def _leaves(values: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        inner = mapping(value)
        if inner:
            yield from _leaves(inner, (*path, name))
        else:
            yield (*path, name), value


# How to load ---------------------------------------------------------------------------

_AUTO = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}


def label_names(run: RunFolder) -> list[str]:
    """Names of the labels in order, ``[]`` if the run does not say."""
    found = run.task.get("label_names")
    return [str(name) for name in found] if isinstance(found, list) else []


def card_snippets(card: str, adapter: str) -> list[str]:
    """The Python in a model card, with the adapter's folder filled in."""
    blocks = re.findall(r"^```python\n(.*?)\n```$", card, re.DOTALL | re.MULTILINE)
    return [block.replace(json.dumps(FOLDER), json.dumps(adapter)) for block in blocks]


def snippets(run: RunFolder) -> list[tuple[str, str]]:
    """Title and code of each way to use the adapter; ``[]`` before there is one."""
    if not run.adapter:
        return []
    folder, adapter = str(run.path), str(run.path / "adapter")
    # The card's code fits this model exactly, and is what the tests of the card run.
    python = [
        (f"In Python, with {'PEFT' if 'from peft ' in code else 'lorafit'}", code)
        for code in card_snippets(run.card, adapter)
    ]
    return [
        *(python or _plain_snippets(run, folder, adapter)),
        _commands(folder, run.task.get("text")),
    ]


def _plain_snippets(run: RunFolder, folder: str, adapter: str) -> list[tuple[str, str]]:
    """The least that loads the adapter, for a folder without a card."""
    name = _AUTO.get(str(run.adapter.get("task_type")), "AutoModel")
    names = label_names(run)
    base = [repr(str(run.adapter.get("base_model_name_or_path") or "the base model"))]
    if names and name.endswith("Classification"):
        base.append(f"id2label={dict(enumerate(names))!r}")
        base.append(f"label2id={ ({name: i for i, name in enumerate(names)})!r}")
    inside = "".join(f"\n    {argument}," for argument in base) + "\n" if base[1:] else base[0]
    return [
        (
            "In Python, with PEFT",
            "from peft import PeftModel\n"
            f"from transformers import {name}, AutoTokenizer\n\n"
            f"base = {name}.from_pretrained({inside})\n"
            f"model = PeftModel.from_pretrained(base, {adapter!r})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({adapter!r})\n",
        ),
        (
            "In Python, with lorafit",
            "import lorafit\n\n"
            f"tuned = lorafit.load({folder!r})\n"
            "tuned.model, tuned.tokenizer  # the base model with the adapter on it\n",
        ),
    ]


def _commands(folder: str, texts: Any) -> tuple[str, str]:
    quoted = shlex.quote(folder)
    return (
        "On the command line",
        f"{predict_command(folder, texts)}\n"
        f"lorafit evaluate {quoted} DATA\n"
        f"lorafit merge {quoted} OUT   # a plain model, for any server\n",
    )


# Trials --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trials:
    """The tuner's trials as a table.

    Attributes:
        columns: Names; of nested values the last part, if it is unique.
        rows: Cells in the order of the columns.
        best: Row with the lowest validation loss, ``None`` if no trial has one.
    """

    columns: list[str]
    rows: list[list[Any]]
    best: int | None


def trials_table(trials: Sequence[Json]) -> Trials | None:
    """The trials, one a row; ``None`` if there are none."""
    flat = [{".".join(path): value for path, value in _leaves(trial)} for trial in trials]
    columns = list(dict.fromkeys(name for trial in flat for name in trial))
    if not columns:
        return None
    # settings.r is r, unless two columns would get the same name.
    short = [name.rpartition(".")[2] for name in columns]
    titles = [s if short.count(s) == 1 else n for s, n in zip(short, columns, strict=True)]
    losses = [(v, i) for i, trial in enumerate(flat) if is_number(v := trial.get("eval_loss"))]
    best = min(losses)[1] if losses else None
    return Trials(titles, [[trial.get(name) for name in columns] for trial in flat], best)

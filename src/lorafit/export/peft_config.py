"""``adapter_config.json``: a method's configuration in PEFT's fields, and back.

The fields of a method's ``Config`` have PEFT's names where PEFT has the method. Where it
has not, ``peft_type`` begins with ``LORAFIT_``, which PEFT refuses to load.

What PEFT would select with the written fields is checked here against what was adapted;
where its matching would select something else, the file lists the layers explicitly.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from lorafit.adapt import Adapters
from lorafit.data.read.rows import broken_character
from lorafit.errors import AdapterError, clause
from lorafit.evidence.json import parsed
from lorafit.methods import method_of, methods
from lorafit.methods.base import MethodConfig
from lorafit.methods.lora import LoraConfig
from lorafit.model import expressions
from lorafit.model.expressions import ExpressionError
from lorafit.model.sites import Site
from lorafit.model.targets import inside_modules, matches

CONFIG_FILE = "adapter_config.json"

# Fields that say nothing about what the adapter computes, or only something together with
# a setting that is refused anyway.
_IRRELEVANT = {
    "auto_mapping",
    "corda_config",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "modules_to_tie",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
    "target_modules_to_tie",
}


# Writing -------------------------------------------------------------------------------


def describe(
    adapters: Adapters,
    name: str = "default",
) -> dict[str, Any]:
    """The fields of ``adapter_config.json`` for one adapter.

    Args:
        adapters: The adapters of a model.
        name: Which one. Where its configuration names no base, the model's own name is taken.

    Raises:
        AdapterError: There is no such adapter.
    """
    config = adapters.configs.get(name)
    if config is None:
        raise AdapterError(f'there is no adapter "{name}" to write.')
    task = config.task_type
    base = config.base_model_name_or_path or _source(adapters.model)
    common = {
        "auto_mapping": None if task else _auto_mapping(adapters.model),
        "base_model_name_or_path": base,
        "inference_mode": True,
        "task_type": None if task is None else str(getattr(task, "value", task)),
    }
    if isinstance(config, LoraConfig):
        own = _lora_fields(config, adapters, name)
    else:
        own = {
            key: sorted(value) if isinstance(value, set) else value
            for key, value in config.model_dump().items()
        }
    return dict(sorted((own | common).items()))


def _lora_fields(config: LoraConfig, adapters: Adapters, name: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "bias": config.bias,
        "exclude_modules": _as_json(config.exclude_modules),
        "fan_in_fan_out": any(site.kind == "conv1d" for site in adapters.sites[name]),
        "init_lora_weights": config.init_lora_weights,
        "layers_pattern": config.layers_pattern,
        "layers_to_transform": config.layers_to_transform,
        "lora_dropout": config.lora_dropout,
        "modules_to_save": config.modules_to_save,
        "peft_type": "LORA",
        "revision": config.revision,
        "target_modules": _as_json(config.target_modules),
        "use_dora": config.use_dora,
        "use_rslora": config.use_rslora,
        **_ranks(config),
    }
    for key in ("target_parameters", "trainable_token_indices"):
        if value := getattr(config, key):
            fields[key] = value
    _say_explicitly(fields, adapters, name)
    return fields


def _ranks(config: LoraConfig) -> dict[str, Any]:
    """Ranks and alphas as saved.

    An adapter with an origin (PiSSA, OLoRA) is saved as an ordinary LoRA of twice the
    rank, and alpha grows so that the scale stays the same.
    """
    r_times, alpha_times = 1, 1.0
    if config.has_origin:
        r_times, alpha_times = 2, math.sqrt(2) if config.use_rslora else 2.0
    ranks: dict[str, Any] = {
        "r": config.r * r_times,
        "lora_alpha": number(config.lora_alpha * alpha_times),
        "rank_pattern": {k: v * r_times for k, v in config.rank_pattern.items()},
        "alpha_pattern": {k: number(v * alpha_times) for k, v in config.alpha_pattern.items()},
    }
    if config.has_origin:
        ranks["init_lora_weights"] = True
    return ranks


def _say_explicitly(fields: dict[str, Any], adapters: Adapters, name: str) -> None:
    """Replaces the selection by a list of layers where PEFT would read it differently."""
    adapted = {plain(site.path) for site in layer_sites(adapters, name)}
    paths = [plain(path) for path in adapters.paths]
    targets = fields["target_modules"]
    symbolic = targets is None or (isinstance(targets, str) and targets.lower() == "all-linear")
    # PEFT refuses block indices together with an expression.
    mixed = isinstance(targets, str) and fields["layers_to_transform"] is not None
    if not symbolic and not mixed and _peft_selection(fields, paths) == adapted:
        return
    fields |= {"exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}
    fields["target_modules"] = sorted({path.rpartition(".")[2] for path in adapted})
    if _peft_selection(fields, paths) != adapted:
        fields["target_modules"] = sorted(adapted)


def _peft_selection(fields: dict[str, Any], paths: Iterable[str]) -> set[str]:
    """The modules PEFT would adapt (``tuners_utils.check_target_module_exists``)."""
    chosen = set()
    indices, patterns = fields["layers_to_transform"], fields["layers_pattern"]
    wanted = {indices} if isinstance(indices, int) else set(indices or ())
    patterns = [patterns] if isinstance(patterns, str) else list(patterns or ())
    for path in paths:
        if not path or not matches(path, fields["target_modules"]):
            continue
        if fields["exclude_modules"] and matches(path, fields["exclude_modules"]):
            continue
        if inside_modules(path, fields["modules_to_save"] or ()):
            continue
        named = path in fields["target_modules"]
        if wanted and not named and _block(path, patterns) not in wanted:
            continue
        chosen.add(path)
    return chosen


def _block(path: str, patterns: Sequence[str]) -> int | None:
    """The number of the block that PEFT reads off a path: the first one below such a list."""
    parts = path.split(".")
    for at, part in enumerate(parts[:-1]):
        above = ".".join(parts[:at])
        if part.isdecimal() and (
            any(expressions.names(pattern, above) for pattern in patterns) if patterns else at > 1
        ):
            return int(part)
    return None


def layer_sites(adapters: Adapters, name: str) -> list[Site]:
    """Where layers are adapted: what ``target_modules`` means."""
    return [site for site in adapters.sites[name] if site.is_layer]


def plain(path: str) -> str:
    """A path or key without the part that ``torch.compile`` puts into it."""
    return path.replace("_orig_mod.", "")


def _source(model: nn.Module) -> str | None:
    """Where a transformers model came from."""
    source = getattr(model, "name_or_path", None) or None
    return source if isinstance(source, str) else None


def _auto_mapping(model: nn.Module) -> dict[str, str]:
    """How PEFT finds the model class when no task type says it."""
    return {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}


def _as_json(names: Collection[str] | str | None) -> list[str] | str | None:
    return names if names is None or isinstance(names, str) else sorted(names)


def number(value: float) -> int | float:
    """Whole numbers without a decimal point: PEFT's and vLLM's ``lora_alpha`` are ints."""
    return int(value) if value == int(value) else value


# Reading -------------------------------------------------------------------------------


def parse(folder: Path, source: str | None = None) -> MethodConfig:
    """Reads ``adapter_config.json``.

    Args:
        folder: Where it stands.
        source: What to call the adapter in messages; ``None``: the folder.

    Raises:
        AdapterError: It is missing, not JSON, of a method or with a PEFT option that we
            do not have.
    """
    source = source or str(folder)
    file = folder / CONFIG_FILE
    if not file.is_file():
        there = ", ".join(sorted(f.name for f in folder.iterdir())[:8]) or "nothing"
        raise AdapterError(
            f'"{source}" is not a PEFT adapter: it has no {CONFIG_FILE} (it has {there}).'
        )
    try:
        fields = parsed(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise AdapterError(f"{source}: {CONFIG_FILE} cannot be read as JSON: {error}") from None
    except RecursionError:
        raise AdapterError(f"{source}: {CONFIG_FILE} is nested too deeply to be read.") from None
    if not isinstance(fields, dict):
        raise AdapterError(f"{source}: {CONFIG_FILE} is not a JSON object.")
    if broken_character(fields) is not None:
        raise AdapterError(f"{source}: a text in {CONFIG_FILE} holds half of a character.")
    return from_fields(fields, source)


def from_fields(fields: dict[str, Any], source: str) -> MethodConfig:
    """Makes a method's configuration of PEFT's fields.

    Fields that we do not know are ignored while they say nothing (``None``, ``False``,
    empty), because newer PEFT versions add some.

    Raises:
        AdapterError: We do not have the method or one of its options.
    """
    kind = fields.get("peft_type")
    method = method_of(kind) if isinstance(kind, str) else None
    if method is None:
        got = f'peft_type is "{kind}"' if kind else "it has no peft_type"
        known = ", ".join(
            methods[name].config_class.model_fields["peft_type"].default
            for name in methods
            if methods[name].preset_of is None
        )
        raise AdapterError(
            f"{source} is not an adapter that can be loaded here: {got}; it can be {known}."
        )
    config_class: type[MethodConfig] = methods[method].config_class
    own = config_class.model_fields
    refused = {
        key: value
        for key, value in fields.items()
        if key not in own and key not in _IRRELEVANT and value
    }
    if refused:
        options = ", ".join(f"{key}={value!r:.60}" for key, value in sorted(refused.items()))
        raise AdapterError(
            f"{source} uses PEFT options that lorafit does not have: {options}. "
            "Load it with PEFT; `merge_and_unload` there gives a model that runs everywhere."
        )
    values = {key: value for key, value in fields.items() if key in own and value is not None}
    # Whether to train is decided by who loads it.
    values.pop("inference_mode", None)
    try:
        config = config_class.model_validate(values)
        expressions.check(_expressions(config))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or CONFIG_FILE}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        )
        raise AdapterError(f"{source}: {CONFIG_FILE} is not usable: {problems}") from None
    except (ExpressionError, OverflowError) as error:
        raise AdapterError(f"{source}: {CONFIG_FILE} is not usable: {clause(error)}.") from None
    return config


def _expressions(config: MethodConfig) -> Iterator[str]:
    """The texts of a configuration that are matched with module paths."""
    for name in ("target_modules", "exclude_modules", "layers_pattern"):
        value = getattr(config, name, None)
        if isinstance(value, str):
            yield value
        elif value and name == "layers_pattern":
            yield from value
    for name in ("rank_pattern", "alpha_pattern"):
        yield from getattr(config, name, None) or {}


# Serving -------------------------------------------------------------------------------


def servable(config: MethodConfig) -> list[str]:
    """Why vLLM could not serve an adapter with this configuration; empty: it can.

    vLLM computes ``lora_alpha / r`` (or ``/ sqrt(r)``) once for all layers and ignores
    ``rank_pattern`` and ``alpha_pattern``: these are harmless only if they lead to the
    same factor, and if no rank is above ``r``.
    """
    if not isinstance(config, LoraConfig):
        return ["vLLM serves LoRA adapters only"]
    reasons = []
    if config.use_dora:
        reasons.append("vLLM does not have DoRA")
    if config.bias != "none":
        reasons.append(f'vLLM does not load trained biases (bias="{config.bias}")')
    if config.modules_to_save:
        reasons.append(f"vLLM does not load modules_to_save ({', '.join(config.modules_to_save)})")
    if config.trainable_token_indices:
        reasons.append("vLLM does not load rows of embeddings (trainable_token_indices)")
    root = math.sqrt if config.use_rslora else float
    scale = config.lora_alpha / root(config.r)
    for pattern in [*config.rank_pattern, *config.alpha_pattern]:
        r = config.rank_pattern.get(pattern, config.r)
        alpha = config.alpha_pattern.get(pattern, config.lora_alpha)
        if r > config.r:
            reasons.append(f'rank_pattern: "{pattern}" has r={r}, above r={config.r}')
        if not math.isclose(alpha / root(r), scale, rel_tol=1e-6):
            reasons.append(
                f'vLLM ignores rank_pattern and alpha_pattern, and "{pattern}" has another scale'
            )
    return list(dict.fromkeys(reasons))

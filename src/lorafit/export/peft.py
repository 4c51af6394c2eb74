"""Adapters on disk, in PEFT's format: the only place that knows PEFT's tensor names.

A folder holds ``adapter_config.json`` (``peft_config.py``) and
``adapter_model.safetensors`` (found and read by ``peft_source.py``). A key is
``base_model.model.<module path>.`` and then ``lora_A.weight (r, d_in)``,
``lora_B.weight (d_out, r)``; embeddings have ``lora_embedding_A (r, vocab)`` and
``lora_embedding_B (dim, r)``, DoRA has ``lora_magnitude_vector (d_out,)``, and modules
trained whole stand under their plain names. The adapter's own name is nowhere in the file.
Prompt learning has one tensor, ``prompt_embeddings``, and ``base_model.`` before the rest.
Tensors that layers share (VeRA's projections) are there once, also with ``base_model.`` only.
Methods that PEFT does not have keep to the same scheme.

Loading is strict: a missing, unexpected or misshapen tensor is an error that lists them,
and the model is then as it was. Pickled weights are never read.
"""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import nn

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, ConfigError, LorafitError, TargetError
from lorafit.export.folder import staged
from lorafit.export.peft_config import (
    CONFIG_FILE,
    describe,
    layer_sites,
    number,
    parse,
    plain,
    servable,
)
from lorafit.export.peft_source import WEIGHTS_FILE, locate, read_tensors
from lorafit.methods.base import AdapterLayer, MethodConfig, ModulesToSaveWrapper
from lorafit.methods.lora import LoraConfig, LoraLayer
from lorafit.methods.lora.tokens import TokenRows
from lorafit.model import expressions

__all__ = [
    "PREFIX",
    "SaveEmbeddings",
    "add_origins",
    "attach",
    "load",
    "locate",
    "plain",
    "read_config",
    "read_tensors",
    "save",
    "servable",
    "tensors_of",
    "update",
]

log = logging.getLogger(__name__)

PREFIX = "base_model.model."
# Of tensors beside the model. PEFT's prompt learning wraps the model once less, and saves its
# one tensor without a path.
OUTER_PREFIX = "base_model."
PROMPT = "prompt_embeddings"
# The layers whose base weights PEFT saves along when they are targets.
EMBEDDING_LAYERS = ("embed_tokens", "lm_head")

SaveEmbeddings = bool | Literal["auto"]


# Saving --------------------------------------------------------------------------------


def save(
    adapters: Adapters,
    path: str | os.PathLike[str],
    name: str = "default",
    *,
    tensors: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Writes one adapter as PEFT does, all or nothing.

    An adapter that starts from a non-zero product (PiSSA, OLoRA) is written as an
    ordinary LoRA of twice the rank, which fits the unmodified base everywhere. Where the
    adapter's configuration names no base, the model's own name is written.

    Args:
        adapters: The adapters of a model.
        path: The folder; other files in it are left alone.
        name: Which adapter.
        tensors: What to write, named as by `tensors_of`; ``None``: the live tensors.

    Returns:
        The folder.

    Raises:
        AdapterError: The folder cannot be written; what was there is then unchanged.
    """
    path = Path(path)
    fields = describe(adapters, name)
    if tensors is None:
        tensors = tensors_of(adapters, name)
    # Cloned where memory is shared (tied weights), which safetensors refuses.
    ready: dict[str, torch.Tensor] = {}
    seen: set[tuple[torch.device, int]] = set()
    for key, tensor in tensors.items():
        memory = (tensor.device, tensor.untyped_storage().data_ptr())
        ready[key] = tensor.detach().clone() if memory in seen else tensor.detach().contiguous()
        seen.add(memory)
    with staged(path, last=CONFIG_FILE) as stage:
        save_file(ready, stage / WEIGHTS_FILE, metadata={"format": "pt"})
        text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
        (stage / CONFIG_FILE).write_text(text, encoding="utf-8")
    reasons = servable(adapters.configs[name])
    if reasons and fields.get("task_type") in ("CAUSAL_LM", None):  # of others vLLM serves none
        remedy = "" if adapters.unmergeable([name]) else "; merge it first"
        server = "vLLM (a server for language models)"
        log.info("%s cannot serve %s: %s%s.", server, path, "; ".join(reasons), remedy)
    return path


def tensors_of(
    adapters: Adapters,
    name: str = "default",
    *,
    save_embedding_layers: SaveEmbeddings = "auto",
) -> dict[str, torch.Tensor]:
    """One adapter's tensors under their names in PEFT's files, sharing the model's memory.

    Args:
        adapters: The adapters of a model.
        name: Which one.
        save_embedding_layers: The embeddings' base weights too; ``"auto"``: where PEFT saves
            them, which is where they are targets, or the vocabulary was resized.
    """
    state = adapters.state_dict(name)
    config = adapters.configs[name]
    tensors = {_key(key, config): tensor for key, tensor in state.items()}
    tensors |= _shared(adapters, name)
    for path, module in _embeddings_to_save(adapters, name, save_embedding_layers):
        own = f"{path}.base_layer" if isinstance(module, AdapterLayer) else path
        if isinstance(module, TokenRows):
            own = f"{path}.token_adapter.base_layer"
        for key, value in _plain(module).state_dict().items():
            tensors.setdefault(f"{PREFIX}{plain(own)}.{key}", value)
    return tensors


def _shared(adapters: Adapters, name: str) -> dict[str, torch.Tensor]:
    """What the adapter's layers share, under the names in PEFT's files."""
    return {OUTER_PREFIX + key: tensor for key, tensor in adapters.shared_state(name).items()}


def _key(key: str, config: MethodConfig) -> str:
    """The name in PEFT's files of one of the adapter's tensors."""
    key = plain(key)
    if not config.prompt_learning:
        return PREFIX + key
    last = key.rpartition(".")[2]
    return last if last == PROMPT else OUTER_PREFIX + key


def _embeddings_to_save(
    adapters: Adapters, name: str, mode: SaveEmbeddings
) -> list[tuple[str, nn.Module]]:
    """Paths and modules of the embeddings whose base weights are saved along.

    PEFT's rule: if one of them is a target (by the names it knows), those that are
    targets; if the vocabulary was resized or on request, both.
    """
    targets = {site.path for site in layer_sites(adapters, name)}
    targeted = any(path.rpartition(".")[2] in EMBEDDING_LAYERS for path in targets)
    if adapters.configs[name].prompt_learning:
        return []
    if mode == "auto":
        mode = targeted or _resized(adapters, name)
        if mode:
            log.info("The embeddings' own weights are saved with the adapter.")
    if not mode:
        return []
    return [
        (path, module)
        for path, module in _embeddings(adapters.model)
        if (not targeted or path in targets) and not isinstance(module, ModulesToSaveWrapper)
    ]


def _embeddings(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Paths and modules of the input and the output embeddings, wrapped or not."""
    found = []
    for getter in ("get_input_embeddings", "get_output_embeddings"):
        try:
            module = getattr(model, getter, lambda: None)()
        except NotImplementedError:
            continue
        path = next((p for p, m in model.named_modules() if m is module), None)
        if isinstance(module, nn.Module) and path is not None:
            found.append((path, module))
    return found


def _plain(module: nn.Module) -> nn.Module:
    """The layer inside an adapter layer."""
    return module.base_layer if isinstance(module, AdapterLayer) else module


def _resized(adapters: Adapters, name: str) -> bool:
    """Whether the vocabulary differs from that of the base model, if its config is at hand."""
    config = getattr(adapters.model, "config", None)
    source = adapters.configs[name].base_model_name_or_path or getattr(
        adapters.model, "name_or_path", None
    )
    size = getattr(config, "vocab_size", None)
    if config is None or size is None or not source:
        return False
    try:
        original = type(config).from_pretrained(source, local_files_only=True)
    except (OSError, ValueError):
        return False
    return bool(original.vocab_size != size)


# Loading -------------------------------------------------------------------------------


def load(
    model: nn.Module | Adapters,
    path: str | os.PathLike[str],
    name: str = "default",
    *,
    trainable: bool = False,
    **hub: Any,
) -> Adapters:
    """Puts a saved adapter on a model.

    Args:
        model: The base model, changed in place, or the adapters it already has.
        path: A folder or a Hub id.
        name: What to call the adapter here.
        trainable: Leave its parameters trainable.
        **hub: Where it is found, as for `lorafit.export.peft_source.locate`: ``revision``,
            ``subfolder``, ``token`` ...

    Returns:
        The adapters of the model.

    Raises:
        AdapterError: The adapter is not there, not in PEFT's safetensors format, uses
            options we do not have, or does not fit the model. The model is as before.
    """
    folder = locate(path, **hub)
    config = parse(folder, str(path))
    config.inference_mode = not trainable
    tensors = read_tensors(folder, source=str(path))
    adapters = model if isinstance(model, Adapters) else Adapters(model)
    attach(adapters, config, tensors, name, source=str(path))
    return adapters


def read_config(
    path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    **hub: Any,
) -> MethodConfig:
    """Reads an adapter's configuration only; arguments and errors as for `load`."""
    return parse(locate(path, revision=revision, subfolder=subfolder, **hub), str(path))


def attach(
    adapters: Adapters,
    config: MethodConfig,
    tensors: dict[str, torch.Tensor],
    name: str,
    *,
    source: str,
) -> None:
    """Adds an adapter with these tensors, or leaves the model as it was.

    Args:
        adapters: The adapters of a model.
        config: The adapter's configuration.
        tensors: Its tensors, named as in PEFT's files.
        name: What to call it here.
        source: What to call it in messages.

    Raises:
        AdapterError: It does not fit the model.
    """
    if isinstance(config, LoraConfig) and str(config.init_lora_weights).startswith("pissa_niter"):
        raise AdapterError(
            f"{source} was saved relative to a base that a random SVD changed "
            f"(init_lora_weights={config.init_lora_weights}), which cannot be repeated; convert it "
            "with PEFT's `path_initial_model_for_weight_conversion`."
        )
    fitted = _fitted(adapters, config, tensors)
    _check_sizes(adapters, fitted, tensors, source)
    first = not adapters.configs
    # Initialisation draws random numbers, which here are only overwritten.
    with torch.random.fork_rng(devices=[]):
        try:
            _add(adapters, fitted, name, _adapted(tensors))
        except ConfigError as error:
            raise _misfit(config, source, str(error)) from None
    try:
        update(adapters, tensors, name, source=source)
    except LorafitError:
        adapters.delete(name)
        if first:
            adapters.unload()
        raise


def update(
    adapters: Adapters,
    tensors: dict[str, torch.Tensor],
    name: str = "default",
    *,
    source: str = "the adapter",
    saved: LoraConfig | None = None,
) -> None:
    """Copies tensors, named as in PEFT's files, into an adapter that is there.

    Args:
        adapters: The adapters of a model.
        tensors: What to copy.
        name: The adapter.
        source: What to call it in messages.
        saved: The configuration beside the tensors, where it may be another one: the adapter
            then gets its scale, and computes what was saved. ``None``: it is the adapter's own.

    Raises:
        AdapterError: Names or shapes do not fit; nothing is copied then.
    """
    config = adapters.configs[name]
    tensors = dict(tensors)
    shared = _take_shared(adapters, tensors, name, source)
    own = adapters.state_dict(name)
    expected = {_key(key, config): key for key in own}
    prefix = OUTER_PREFIX if config.prompt_learning else PREFIX
    foreign = [key for key in tensors if not key.startswith(prefix) and key not in expected]
    if foreign:
        raise AdapterError(
            f"{source} is not a PEFT adapter: keys begin with {prefix}, got {foreign[0]}."
        )
    given = {expected.get(key, key.removeprefix(prefix)): t for key, t in tensors.items()}
    for key in [key for key in given if _is_copy(key, own)]:
        del given[key]
    bases = _take_embeddings(adapters, given, own)
    if isinstance(config, LoraConfig) and config.has_origin and (saved or config).has_origin:
        add_origins(given, own)
    try:
        adapters.load_state_dict(name, given)
    except AdapterError as error:
        raise _misfit(config, source, str(error)) from None
    with torch.no_grad():
        for live, tensor in shared:
            live.copy_(tensor)
        for weight, tensor in bases:
            if not torch.equal(weight, tensor.to(weight.device, weight.dtype)):
                log.info("The embeddings saved with %s replace those of the base.", source)
                weight.copy_(tensor)
    if saved is not None:
        _take_scale(adapters, name, saved)


def _take_scale(adapters: Adapters, name: str, saved: LoraConfig) -> None:
    """Gives an adapter that is there the scale of the file its tensors were read from.

    Args:
        adapters: The adapters of a model.
        name: The adapter, whose tensors are those of the file.
        saved: The configuration in the file. One of ours with twice the rank is an adapter
            that starts from a non-zero product here (PiSSA, OLoRA), at the same scale.
    """
    config = adapters.configs[name]
    if not isinstance(config, LoraConfig):
        return
    for path, layer in adapters.layers_of(name):
        scale = saved.scaling(path)
        if isinstance(layer, LoraLayer) and not math.isclose(scale, config.scaling(path)):
            root = math.sqrt if saved.use_rslora else float
            layer.lora_alpha[name] = scale * root(layer.r[name])
            layer.scaling[name], layer.use_rslora[name] = scale, saved.use_rslora
    times = 1.0
    if config.has_origin and not saved.has_origin:
        times = math.sqrt(2) if saved.use_rslora else 2.0
    update = {
        "lora_alpha": number(saved.lora_alpha / times),
        "alpha_pattern": {key: alpha / times for key, alpha in saved.alpha_pattern.items()},
        "use_rslora": saved.use_rslora,
    }
    adapters.configs[name] = config.model_copy(update=update)


def _is_copy(key: str, own: dict[str, torch.Tensor]) -> bool:
    """Tensors of modules trained whole that PEFT writes again, e.g. with ``bias="all"``."""
    for part in (".original_module.", ".modules_to_save."):
        head, found, tail = key.partition(part)
        # Below the module itself PEFT leaves the adapter's name in the key.
        for rest in (tail, tail.partition(".")[2]):
            if found and f"{head}.{rest}" in own:
                return True
    return False


def _take_shared(
    adapters: Adapters, given: dict[str, torch.Tensor], name: str, source: str
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Takes what layers share out of ``given``: pairs of live and saved tensor."""
    pairs = []
    for key, live in _shared(adapters, name).items():
        tensor = given.pop(key, None)
        if tensor is None or tensor.shape != live.shape:
            got = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
            problem = f"{key} is {got}, the model needs {tuple(live.shape)}"
            raise _misfit(adapters.configs[name], source, problem)
        pairs.append((live, tensor))
    return pairs


def _take_embeddings(
    adapters: Adapters, given: dict[str, torch.Tensor], own: dict[str, torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Takes base weights of embeddings out of ``given``: pairs of live and saved weight."""
    pairs = []
    for path, module in _embeddings(adapters.model):
        for name, live in _plain(module).state_dict().items():
            for place in ("", ".base_layer", ".token_adapter.base_layer"):
                key = f"{plain(path)}{place}.{name}"
                if key not in given or key in own:
                    continue
                tensor = given.pop(key)
                if tensor.shape != live.shape:
                    raise AdapterError(
                        f"the adapter was saved with {tensor.shape[0]} embeddings ({key}), the "
                        f"model has {live.shape[0]}: the vocabulary was resized. Call "
                        f"`model.resize_token_embeddings({tensor.shape[0]})` first."
                    )
                pairs.append((live, tensor))
    return pairs


def add_origins(given: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> None:
    """Completes PEFT's PiSSA or OLoRA tensors by the start that PEFT takes off the base.

    PEFT's file has ``A, B`` of rank r and means ``W - s B_0 A_0`` as the base, with
    ``A_0, B_0`` computed from ``W`` at every load. A new adapter here has computed the
    same pair, and holds it as the second half of its tensors.
    """
    for key, mine in own.items():
        theirs = given.get(key)
        if theirs is None or theirs.shape == mine.shape or theirs.ndim != 2:
            continue
        if key.endswith(".lora_A.weight") and 2 * theirs.shape[0] == mine.shape[0]:
            given[key] = torch.cat([theirs.to(mine), mine[theirs.shape[0] :]])
        elif key.endswith(".lora_B.weight") and 2 * theirs.shape[1] == mine.shape[1]:
            given[key] = torch.cat([theirs.to(mine), mine[:, theirs.shape[1] :]], dim=1)


def _add(adapters: Adapters, config: MethodConfig, name: str, adapted: set[str]) -> None:
    """Adds the adapter; where a name of its selection is stale, by the layers in its file."""
    try:
        adapters.add(config, name)
    except TargetError:
        here = {plain(path): path for path in adapters.paths}
        if not adapted or not adapted <= here.keys():
            raise
        selection = {
            "target_modules": {here[path] for path in adapted},
            "exclude_modules": None,
            "layers_to_transform": None,
            "layers_pattern": None,
        }
        adapters.add(config.model_copy(update=selection), name)


_SIZES = ("encoder_hidden_size", "nonzero", "num_virtual_tokens", "r", "rank_pattern")
"""Settings of methods that say how large tensors are."""


def _check_sizes(
    adapters: Adapters, config: MethodConfig, tensors: dict[str, torch.Tensor], source: str
) -> None:
    """Refuses a configuration that asks for more than the file holds, before it is allocated.

    What asks for less is found when the tensors are compared.

    Raises:
        AdapterError: It does.
    """
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    for setting in _SIZES:
        value = getattr(config, setting, None)
        for size in value.values() if isinstance(value, dict) else [value]:
            if isinstance(size, int) and size > max(largest, _SMALL):
                problem = f"{setting} is {size:,}, and no tensor of the file is as large"
                raise _misfit(config, source, problem)
    if not isinstance(config, LoraConfig) or config.target_parameters:
        return
    stored = {
        key.removeprefix(PREFIX).removesuffix(end): tensor.shape[0]
        for key, tensor in tensors.items()
        for end in (".lora_A.weight", ".lora_embedding_A")
        if key.endswith(end) and tensor.ndim
    }
    highest = max([_SMALL, *stored.values()])
    try:
        chosen = [plain(site.path) for site in adapters.selected(config)]
    except ConfigError:
        chosen = []  # stale names: then it is the file's layers that are adapted
    for path in {*chosen, *stored}:
        rank = config.rank(path)
        if rank > max(highest, stored.get(path, 0)):
            has = f"rank {stored[path]}" if path in stored else "no tensors for it"
            raise _misfit(
                config, source, f"{path} is to have rank {rank:,}, and the file has {has}"
            )


_SMALL = 1024
"""Sizes up to here are allocated and then compared, which says more about what is wrong."""


def _fitted(
    adapters: Adapters, config: MethodConfig, tensors: dict[str, torch.Tensor]
) -> MethodConfig:
    """The configuration without entries that mean nothing here.

    PEFT does not mind modules, patterns or biases that are not there (it lists both
    ``classifier`` and ``score`` for every classifier), so its files have them. Dropping
    them is safe: the tensors are compared strictly afterwards.
    """
    values: dict[str, Any] = {}
    if config.modules_to_save:
        names = dict.fromkeys(config.modules_to_save)
        values["modules_to_save"] = [
            n for n in names if any(p.endswith(n) for p in adapters.paths)
        ] or None
    if not isinstance(config, LoraConfig):
        return config.model_copy(update=values)
    adapted = _adapted(tensors)
    where = adapted if config.bias == "lora_only" else {plain(path) for path in adapters.paths}
    biases = {plain(name) for name in adapters.names if name.endswith(".bias")}
    if not any(f"{path}.bias" in biases for path in where):
        values["bias"] = "none"
    for setting in ("rank_pattern", "alpha_pattern"):
        values[setting] = {
            pattern: value
            for pattern, value in getattr(config, setting).items()
            if config.target_parameters or any(expressions.names(pattern, path) for path in adapted)
        }
    return config.model_copy(update=values)


def _adapted(tensors: dict[str, torch.Tensor]) -> set[str]:
    """Paths of the layers that a file has adapters for."""
    return {key.removeprefix(PREFIX).split(".lora_")[0] for key in tensors if ".lora_" in key}


def _misfit(config: Any, source: str, problem: str) -> AdapterError:
    base = getattr(config, "base_model_name_or_path", None)
    made_for = f' It was made for "{base}".' if base else ""
    detail = problem.removeprefix("the adapter does not fit this model:").strip()
    return AdapterError(f"{source} does not fit this model.{made_for}\n{detail}")

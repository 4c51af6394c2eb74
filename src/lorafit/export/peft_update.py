"""Tensors named as in PEFT's files, copied into an adapter that is there.

That is strict: a missing, unexpected or misshapen tensor is an error that lists them, and the
adapter is then as it was.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError
from lorafit.export.peft_config import number, plain
from lorafit.export.peft_tensors import (
    OUTER_PREFIX,
    PREFIX,
    base_layer_of,
    embeddings,
    key_on_disk,
    shared_tensors,
)
from lorafit.methods.lora import LoraConfig, LoraLayer

log = logging.getLogger(__name__)


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
    expected = {key_on_disk(key, config): key for key in own}
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
        raise misfit(config, source, str(error)) from None
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
    for key, live in shared_tensors(adapters, name).items():
        tensor = given.pop(key, None)
        if tensor is None or tensor.shape != live.shape:
            got = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
            problem = f"{key} is {got}, the model needs {tuple(live.shape)}"
            raise misfit(adapters.configs[name], source, problem)
        pairs.append((live, tensor))
    return pairs


def _take_embeddings(
    adapters: Adapters, given: dict[str, torch.Tensor], own: dict[str, torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Takes base weights of embeddings out of ``given``: pairs of live and saved weight."""
    pairs = []
    for path, module in embeddings(adapters.model):
        for name, live in base_layer_of(module).state_dict().items():
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


def misfit(config: Any, source: str, problem: str) -> AdapterError:
    """The error of an adapter that does not fit, with the base it was made for."""
    base = getattr(config, "base_model_name_or_path", None)
    made_for = f' It was made for "{base}".' if base else ""
    detail = problem.removeprefix("the adapter does not fit this model:").strip()
    return AdapterError(f"{source} does not fit this model.{made_for}\n{detail}")

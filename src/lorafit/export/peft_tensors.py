"""An adapter's tensors under their names in PEFT's files: the only place that knows these.

A key is ``base_model.model.<module path>.`` and then ``lora_A.weight (r, d_in)``,
``lora_B.weight (d_out, r)``; embeddings have ``lora_embedding_A (r, vocab)`` and
``lora_embedding_B (dim, r)``, DoRA has ``lora_magnitude_vector (d_out,)``, and modules
trained whole stand under their plain names. The adapter's own name is nowhere in the file.
Prompt learning has one tensor, ``prompt_embeddings``, and ``base_model.`` before the rest.
Tensors that layers share (VeRA's projections) are there once, also with ``base_model.`` only.
Methods that PEFT does not have keep to the same scheme.
"""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.export.peft_config import layer_sites, plain
from lorafit.methods.base import AdapterLayer, MethodConfig, ModulesToSaveWrapper
from lorafit.methods.lora.tokens import TokenRows

log = logging.getLogger(__name__)

PREFIX = "base_model.model."

# Of tensors beside the model. PEFT's prompt learning wraps the model once less, and saves its
# one tensor without a path.
OUTER_PREFIX = "base_model."

PROMPT = "prompt_embeddings"

# The layers whose base weights PEFT saves along when they are targets.
EMBEDDING_LAYERS = ("embed_tokens", "lm_head")

SaveEmbeddings = bool | Literal["auto"]


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
    tensors = {key_on_disk(key, config): tensor for key, tensor in state.items()}
    tensors |= shared_tensors(adapters, name)
    for path, module in _embeddings_to_save(adapters, name, save_embedding_layers):
        own = f"{path}.base_layer" if isinstance(module, AdapterLayer) else path
        if isinstance(module, TokenRows):
            own = f"{path}.token_adapter.base_layer"
        for key, value in base_layer_of(module).state_dict().items():
            tensors.setdefault(f"{PREFIX}{plain(own)}.{key}", value)
    return tensors


def shared_tensors(adapters: Adapters, name: str) -> dict[str, torch.Tensor]:
    """What the adapter's layers share, under the names in PEFT's files."""
    return {OUTER_PREFIX + key: tensor for key, tensor in adapters.shared_state(name).items()}


def key_on_disk(key: str, config: MethodConfig) -> str:
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
        for path, module in embeddings(adapters.model)
        if (not targeted or path in targets) and not isinstance(module, ModulesToSaveWrapper)
    ]


def embeddings(model: nn.Module) -> list[tuple[str, nn.Module]]:
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


def base_layer_of(module: nn.Module) -> nn.Module:
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

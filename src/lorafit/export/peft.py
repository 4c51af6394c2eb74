"""Adapters on disk, in PEFT's format.

A folder holds ``adapter_config.json`` (``peft_config.py``) and
``adapter_model.safetensors`` (found and read by ``peft_source.py``, its names are those of
``peft_tensors.py``).

Loading is strict: a missing, unexpected or misshapen tensor is an error that lists them,
and the model is then as it was. Pickled weights are never read.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.export.folder import staged
from lorafit.export.peft_attach import attach
from lorafit.export.peft_config import CONFIG_FILE, describe, parse, plain, servable
from lorafit.export.peft_source import WEIGHTS_FILE, locate, read_tensors
from lorafit.export.peft_tensors import PREFIX, SaveEmbeddings, tensors_of
from lorafit.export.peft_update import add_origins, update
from lorafit.methods.base import MethodConfig
from lorafit.run import atomic

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
        atomic.save_tensors(stage / WEIGHTS_FILE, ready, {"format": "pt"})
        text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
        (stage / CONFIG_FILE).write_text(text, encoding="utf-8")
    reasons = servable(adapters.configs[name])
    if reasons and fields.get("task_type") in ("CAUSAL_LM", None):  # of others vLLM serves none
        remedy = "" if adapters.unmergeable([name]) else "; merge it first"
        server = "vLLM (a server for language models)"
        log.info("%s cannot serve %s: %s%s.", server, path, "; ".join(reasons), remedy)
    return path


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

"""The engine that answers: packed, with the adapters merged into its own copy of the weights.

`Inference` keeps one for the model it is asked about, as long as that is what it was: parameters
that were replaced or changed in place, modules that came or went, and hooks hung on them make it
choose again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from lorafit import quiet
from lorafit.engine.base import Engine
from lorafit.engine.choose import Computing, choose_engine
from lorafit.engine.eager import EagerEngine
from lorafit.engine.frozen import version
from lorafit.machine.allocator import keep_freed_memory
from lorafit.machine.memory import memory
from lorafit.tasks.base import Task

COPIES = 2
"""Free memory there has to be for an engine with weights of its own, in sizes of the model: the
copy, and what it is laid out from."""


class Inference:
    """Chooses the engine that answers fastest, and keeps it.

    A copy of it, also in another process, has none yet.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._engine: Engine | None = None

    def __reduce__(self) -> tuple[type[Inference], tuple[()]]:
        """Laid out weights belong to a process and to the very tensors they were made of."""
        return Inference, ()

    def engine(
        self,
        model: nn.Module,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> Engine:
        """The engine for this model as it is now; see `answering_engine`."""
        key = (id(task), id(tokenizer), device, dtype, *_state(model))
        if self._engine is None or key != self._key:
            self._engine = None  # the memory of the one before is free
            self._engine = answering_engine(model, task, tokenizer, device, dtype)
            # Plain torch has moved the model to its device.
            self._key = (id(task), id(tokenizer), device, dtype, *_state(model))
        elif self._engine.name != "eager":
            keep_freed_memory()
        return self._engine


def answering_engine(
    model: nn.Module,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Engine:
    """The engine that answers fastest in these numbers.

    Args:
        model: The model, with adapters or merged.
        task: Whose answers are wanted.
        tokenizer: Of the model.
        device: Where it computes; elsewhere than on the CPU that is plain torch.
        dtype: float32 or bfloat16; ``None``: as the weights are stored, in which float32 is packed
            and other types are left to plain torch, whose roundings those who load the model get.
    """
    dtype = dtype or (torch.float32 if _is_float32(model) else None)
    if dtype is None or (device.type == "cpu" and not _has_room(model)):
        return EagerEngine(model, task, tokenizer, device)
    # Which engine it is was said where it matters: before the training.
    with quiet.saying_less("lorafit"):
        computing = Computing(device, dtype == torch.bfloat16, dtype, training=False)
        return choose_engine("auto", model, task, tokenizer, computing)


def _is_float32(model: nn.Module) -> bool:
    types = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return types == {torch.float32}


def _has_room(model: nn.Module) -> bool:
    size = sum(parameter.numel() for parameter in model.parameters()) * torch.float32.itemsize
    return COPIES * size < memory().available


def _state(model: nn.Module) -> list[object]:
    """What an engine was chosen for: other numbers are another model."""
    found: list[object] = []
    for module in model.modules():
        hooks: Any = module
        # Their counts, as `lorafit.engine.support.check_module` reads them.
        found += (
            id(module),
            len(hooks._forward_hooks),
            len(hooks._forward_pre_hooks),
        )
        tensors = (*module._parameters.values(), *module._buffers.values())
        found += ((id(one), *version(one), one.device) for one in tensors if one is not None)
    return found

"""A live model is lent: it goes back as it came, however the work on it ends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

P = ParamSpec("P")
R = TypeVar("R")

_TABLES = ("_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks")
"""What a module keeps of its parts, by name."""


def gives_back(call: Callable[P, R]) -> Callable[P, R]:
    """Makes a call give the models among its arguments back as they came, after errors too."""

    @functools.wraps(call)
    def called(*args: P.args, **keywords: P.kwargs) -> R:
        with ExitStack() as stack:
            for value in (*args, *keywords.values()):
                if isinstance(value, PreTrainedModel):
                    stack.enter_context(lent(value))
            return call(*args, **keywords)

    return called


@contextmanager
def lent(model: PreTrainedModel) -> Iterator[None]:
    """Puts back what a model consists of: modules, parameters, hooks, flags, configuration.

    Also where it is: torch moves the numbers of a parameter to another device within it. The
    numbers in the parameters are not copied: nothing here writes into those of a base model
    but merging, which is undone where it is done.
    """
    modules = [(module, _tables(module), module.training) for module in model.modules()]
    parameters = [(p, p.device, p.requires_grad, p.grad) for p in model.parameters()]
    config = dict(vars(model.config))
    try:
        yield
    finally:
        for module, tables, training in modules:
            for name, table in tables.items():
                own = getattr(module, name)
                own.clear()
                own.update(table)
            module.training = training
        for parameter, device, requires_grad, gradient in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None  # torch takes one of the parameter's own device only
            _move(parameter, device)
            if gradient is not None:
                _move(gradient, device)
            parameter.grad = gradient
        vars(model.config).clear()
        vars(model.config).update(config)


def _move(tensor: torch.Tensor, device: torch.device) -> None:
    """Brings the numbers of a tensor back to their device; the tensor stays the same object."""
    if tensor.device != device:
        tensor.data = tensor.data.to(device)


def _tables(module: nn.Module) -> dict[str, dict[Any, Any]]:
    return {name: dict(getattr(module, name)) for name in _TABLES}

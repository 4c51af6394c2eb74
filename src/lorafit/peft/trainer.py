"""How transformers' ``Trainer`` recognises our models.

The Trainer asks ``isinstance(model, peft.PeftModel)`` wherever adapters are treated
apart: what a checkpoint holds, how it is resumed, how the best one is put back. There is
no hook to register another class, and ``peft.PeftModel`` is no abstract base class. But
``isinstance`` also believes an object's ``__class__``, as it does for mocks and proxies:
if peft has been imported (the Trainer imports it where it is installed), our models
answer with peft's class of the same name. ``type(model)`` stays ours; pickle and
``copy`` go by it, with the ``__reduce_ex__`` below.

Without peft the Trainer saves the whole state of a model it does not know, and resumes
from that. The rest of this file makes that work: the columns that may be
passed on are read off the signature of ``forward``, which has to be the base model's, and
safetensors refuses tied weights, so that the state has each of them once.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from torch import nn


class LooksLikePeft:
    """Mixin of `PeftModel`: answers peft's class of the same name to ``isinstance``."""

    @property
    def __class__(self) -> type[Any]:
        """The class of the same name in peft where that is imported, else ours."""
        own = type(self)
        theirs = getattr(sys.modules.get("peft"), own.__name__, None)
        return theirs if isinstance(theirs, type) else own

    @__class__.setter
    def __class__(self, value: type[Any]) -> None:
        object.__dict__["__class__"].__set__(self, value)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The default goes by `__class__` in pickle and would refuse to write peft's.
        return _new, (type(self),), self.__dict__.copy()


def _new(cls: type[object]) -> object:
    return object.__new__(cls)


def _with_labels(
    self: nn.Module,
    input_ids: Any = None,
    labels: Any = None,
    start_positions: Any = None,
    end_positions: Any = None,
    **kwargs: Any,
) -> Any:
    """What the Trainer reads off the class: the names that labels may have."""
    raise NotImplementedError


class ForwardOfBase:
    """A ``forward`` that has the signature of the wrapped model's.

    Used only where peft is not installed: a plain method is easier on ``torch.compile``.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __get__(self, model: nn.Module | None, owner: type[Any]) -> Callable[..., Any]:
        if model is None:
            return _with_labels

        def forward(*args: Any, **kwargs: Any) -> Any:
            return self.function(model, *args, **kwargs)

        base: nn.Module = model.get_base_model()  # type: ignore[operator]
        forward.__signature__ = inspect.signature(base.forward)  # type: ignore[attr-defined]
        return forward


def save_tied_weights_once(model: nn.Module) -> None:
    """Leaves weights that stand under several names in the state under their first name."""
    model.register_state_dict_post_hook(_drop_tied)  # type: ignore[no-untyped-call]
    model.register_load_state_dict_pre_hook(_restore_tied)  # type: ignore[no-untyped-call]


def _tied(model: nn.Module, prefix: str) -> list[list[str]]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(prefix.rstrip("."), remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _drop_tied(model: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for _, *others in _tied(model, prefix):
        for name in others:
            state.pop(name, None)


def _restore_tied(model: nn.Module, state: dict[str, Any], prefix: str, *_rest: Any) -> None:
    for first, *others in _tied(model, prefix):
        if first in state:
            for name in others:
                state.setdefault(name, state[first])

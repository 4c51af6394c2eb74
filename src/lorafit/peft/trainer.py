"""How transformers' ``Trainer`` recognises our models.

The Trainer asks ``isinstance(model, peft.PeftModel)`` wherever adapters are treated
apart: what a checkpoint holds, how it is resumed, how the best one is put back. There is
no hook to register another class, and ``peft.PeftModel`` is no abstract base class. But
``isinstance`` also believes an object's ``__class__``, as it does for mocks and proxies:
if peft has been imported (the Trainer imports it where it is installed), our models
answer with peft's class of the same name. ``type(model)`` stays ours; pickle and
``copy`` go by it, with the ``__reduce_ex__`` below.

Without peft the Trainer saves the whole state of a model it does not know, and resumes
from that. It then reads the columns it may pass on from the signature of ``forward``,
so that this has to be the base model's.
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


class ForwardOfBase:
    """A ``forward`` that has the signature of the wrapped model's.

    Used only where peft is not installed: a plain method is easier on ``torch.compile``.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __get__(self, model: nn.Module | None, owner: type[Any]) -> Callable[..., Any]:
        if model is None:
            return self.function

        def forward(*args: Any, **kwargs: Any) -> Any:
            return self.function(model, *args, **kwargs)

        base: nn.Module = model.get_base_model()  # type: ignore[operator]
        forward.__signature__ = inspect.signature(base.forward)  # type: ignore[attr-defined]
        return forward

"""A call of an autograd function that type checkers can follow."""

from __future__ import annotations

from typing import Any, ParamSpec, Protocol

from torch import Tensor

P = ParamSpec("P")


class Differentiable(Protocol[P]):
    """A subclass of `torch.autograd.Function` with one tensor as result."""

    @staticmethod
    def forward(ctx: Any, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """Computes the result and keeps in ``ctx`` what the backward pass needs."""
        ...


def apply(function: type[Differentiable[P]], *args: P.args, **kwargs: P.kwargs) -> Tensor:
    """``function.apply``, which takes what its ``forward`` takes after ``ctx``."""
    run: Any = function
    result: Tensor = run.apply(*args, **kwargs)
    return result

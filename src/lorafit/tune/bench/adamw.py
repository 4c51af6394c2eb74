"""AdamW that counts the steps of each row of a low-rank factor by itself.

A factor that grows during training has rows that are older than others. Adam divides its
running means by ``1 - beta ** t``; with one counter for all, a row that has just begun would
be divided by the t of the oldest ones, and its first updates be up to 6.5 times the learning
rate. Here ``t`` is kept for each row of ``A`` and each column of ``B``.

Kingma and Ba 2015, arXiv 1412.6980; decoupled decay of Loshchilov and Hutter 2019, arXiv
1711.05101. With a common counter this is `torch.optim.AdamW`, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter


class RowAdamW(torch.optim.Optimizer):
    """AdamW whose state ``step`` may be a tensor that broadcasts over the parameter.

    Args:
        groups: Parameter groups; ``weight_decay`` may differ between them.
        lr: Learning rate.
        betas: Decay of the running means.
        eps: Added to the denominator.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; ``closure`` is not called."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            states = [self._state(parameter) for parameter in parameters]
            grads: list[Tensor] = [p.grad for p in parameters]
            means = [state["exp_avg"] for state in states]
            squares = [state["exp_avg_sq"] for state in states]
            steps = [state["step"] for state in states]
            beta1, beta2 = group["betas"]
            torch._foreach_add_(steps, 1.0)
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
            torch._foreach_lerp_(means, grads, 1.0 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, grads, grads, 1.0 - beta2)
            denominators = torch._foreach_sqrt(squares)  # noqa: SLF001 as torch.optim of 2.13 does
            first = [1.0 - beta1**step for step in steps]
            second = [(1.0 - beta2**step).sqrt() for step in steps]
            torch._foreach_div_(denominators, second)
            torch._foreach_add_(denominators, group["eps"])
            torch._foreach_mul_(denominators, first)
            torch._foreach_addcdiv_(parameters, means, denominators, -group["lr"])

    def _state(self, parameter: Parameter) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

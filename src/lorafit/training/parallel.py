"""Data parallelism: several processes, each with its share of every step's batches.

Processes are started by ``accelerate launch`` or ``torchrun``. Each has a whole copy of the
model; the gradients of the trainable parameters are summed once a step. Adapters are small,
so that this one sum costs less than wrapping the model would.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch.nn import Parameter

T = TypeVar("T")


class Workers:
    """The processes that train together; usually one."""

    def __init__(self) -> None:
        self._state = PartialState()

    @property
    def size(self) -> int:
        """Number of processes."""
        return int(self._state.num_processes)

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return int(self._state.process_index)

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return bool(self._state.is_main_process)

    def sum(self, values: list[float]) -> list[float]:
        """Sums each value over the processes."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self._state.device)
        total: list[float] = reduce(tensor, reduction="sum").tolist()
        return total

    def any(self, value: bool) -> bool:
        """Whether the value is true in some process."""
        return self.sum([float(value)])[0] > 0

    def sum_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Sums the gradients over the processes; a missing one counts as zero."""
        if self.size == 1:
            return
        trainable = list(parameters)
        flat = torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).flatten().float()
                for p in trainable
            ]
        )
        flat = reduce(flat, reduction="sum")
        for parameter, part in zip(
            trainable, flat.split([p.numel() for p in trainable]), strict=True
        ):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def gather(self, value: T) -> list[T]:
        """One value from each process, in the order of their ranks."""
        gathered: list[T] = gather_object([value]) if self.size > 1 else [value]
        return gathered

    def wait(self) -> None:
        """Waits until all processes are here."""
        self._state.wait_for_everyone()

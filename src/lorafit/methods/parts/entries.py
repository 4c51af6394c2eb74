"""One entry per adapter, of a known type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


class ModuleDict(nn.ModuleDict, Generic[M]):
    """torch's ``ModuleDict``, whose entries are all of one type."""

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> M: ...

r"""Head only: the pretrained model is frozen, its new head is trained (a linear probe).

.. math:: y = \mathrm{head}_\theta(f_{W_0}(x))

The yardstick at the lower end: what the pretrained features give without changing them.
The head's modules are what ``modules_to_save`` lists (the pipeline fills in the modules
that the checkpoint lacks); without any, the head that the model has is trained. What is
saved is the head; PEFT has no adapter without layers of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from lorafit.errors import ConfigError
from lorafit.methods import methods
from lorafit.methods.base import Family, Method, MethodConfig
from lorafit.model.sites import Site, head_modules


class HeadConfig(MethodConfig):
    """Head-only training has no settings of its own."""

    peft_type: str = "LORAFIT_HEAD"


@methods.register("head")
class Head(Method[HeadConfig]):
    """The modules on top of the pretrained model."""

    family: ClassVar[Family] = "yardstick"
    config_class = HeadConfig
    learning_rate = 3e-3

    def parameters(
        self, model: nn.Module, names: Sequence[str], sites: Sequence[Site], config: HeadConfig
    ) -> list[str]:
        """The head's own parameters where no module is trained whole."""
        if config.modules_to_save:
            return []
        heads = tuple(f"{path}." for path in head_modules(model))
        chosen = [name for name in names if name.startswith(heads)]
        if not chosen:
            raise ConfigError(
                f"{type(model).__name__} has no head of its own to train; list the modules to "
                "train in modules_to_save."
            )
        return chosen

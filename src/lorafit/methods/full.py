r"""Full fine-tuning: every weight is trained. The yardstick the others are compared with.

.. math:: W = W_0 + \Delta W, \qquad \Delta W \text{ unconstrained}

The trained weights are copies in the originals' places, so the base stays beside them and
can be had back bit for bit; memory holds the model twice. What is saved are the trained
weights themselves, as large as the model: PEFT has no such adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from lorafit.errors import ConfigError
from lorafit.methods import methods
from lorafit.methods.base import Family, Method, MethodConfig
from lorafit.model.sites import Site
from lorafit.model.targets import inside


class FullConfig(MethodConfig):
    """Settings of full fine-tuning."""

    peft_type: str = "LORAFIT_FULL"
    exclude_modules: set[str] | str | None = None
    """Modules that stay frozen: names, or a regular expression that matches whole paths."""


@methods.register("full")
class Full(Method[FullConfig]):
    """All parameters of the model."""

    family: ClassVar[Family] = "yardstick"
    config_class = FullConfig
    learning_rate = 5e-5
    trains_embeddings = True

    def parameters(
        self, model: nn.Module, names: Sequence[str], sites: Sequence[Site], config: FullConfig
    ) -> list[str]:
        """Every parameter but the excluded."""
        excluded: list[str] = []
        if config.exclude_modules:
            excluded = inside(model, names, config.exclude_modules, "exclude_modules")
        chosen = [name for name in names if name not in set(excluded)]
        if not chosen:
            raise ConfigError("exclude_modules leaves nothing to train.")
        return chosen

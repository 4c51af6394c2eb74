r"""LayerNorm tuning: only the gains and shifts of the normalisations are trained.

.. math:: h = \gamma \odot \mathrm{norm}(x) + \beta

Zhao et al. 2023, arXiv 2312.11420 (LN tuning). ``gamma`` and, where the model has it,
``beta`` start at the pretrained values. A normalisation is found by structure: a module
whose class is called a norm and that has a weight vector and at most a bias beside it, so
RMSNorm counts and BatchNorm, which also has running statistics, does not.

On disk this is PEFT's ``LN_TUNING``. Where we differ: PEFT wraps a copy of each module;
here the trained vectors stand in the module itself, which runs unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from lorafit.errors import ConfigError
from lorafit.methods import methods
from lorafit.methods.base import Family, Method, MethodConfig
from lorafit.model.sites import Site
from lorafit.model.targets import inside


class LayerNormConfig(MethodConfig):
    """Settings of LayerNorm tuning, with PEFT's names."""

    peft_type: str = "LN_TUNING"
    target_modules: set[str] | str | None = None
    """Normalisations to train: names, or a regular expression that matches whole paths.
    ``None``: all."""
    exclude_modules: set[str] | str | None = None
    """Names, or a regular expression that matches whole paths, of normalisations not trained."""


@methods.register("layernorm")
class LayerNormTuning(Method[LayerNormConfig]):
    """Weights and biases of normalisations."""

    family: ClassVar[Family] = "selective"
    config_class = LayerNormConfig
    learning_rate = 2e-3

    def parameters(
        self, model: nn.Module, names: Sequence[str], sites: Sequence[Site], config: LayerNormConfig
    ) -> list[str]:
        """The vectors of the normalisations."""
        norms = {path for path, module in model.named_modules() if _is_norm(module)}
        chosen = [name for name in names if name.rpartition(".")[0] in norms]
        if not chosen:
            raise ConfigError(
                f"layernorm trains normalisations with a weight, but {type(model).__name__} has "
                "none outside of the modules trained whole."
            )
        if config.target_modules is not None:
            chosen = inside(model, chosen, config.target_modules, "target_modules")
        if config.exclude_modules:
            excluded = set(inside(model, chosen, config.exclude_modules, "exclude_modules"))
            chosen = [name for name in chosen if name not in excluded]
        if not chosen:
            raise ConfigError("exclude_modules leaves nothing to train.")
        return chosen

    def resolved(
        self, model: nn.Module, sites: Sequence[Site], names: Sequence[str], config: LayerNormConfig
    ) -> LayerNormConfig:
        """Lists the modules: PEFT finds them by name only."""
        paths = {name.rpartition(".")[0] for name in names}
        return config.model_copy(update={"target_modules": paths, "exclude_modules": None})

    def saved_name(self, name: str, sites: Sequence[Site]) -> str:
        """PEFT's: below ``ln_tuning_layers``."""
        path, _, key = name.rpartition(".")
        return f"{path}.ln_tuning_layers.{key}"


def _is_norm(module: nn.Module) -> bool:
    keys = {key for key, parameter in module._parameters.items() if parameter is not None}
    return (
        re.search("norm", type(module).__name__, re.IGNORECASE) is not None
        and not isinstance(module, nn.modules.batchnorm._NormBase)  # noqa: SLF001 torch 2.13
        and "weight" in keys
        and keys <= {"weight", "bias"}
        and all(module.get_parameter(key).ndim == 1 for key in keys)
    )

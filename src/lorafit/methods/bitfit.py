r"""BitFit: only the bias terms are trained.

.. math:: h = W_0 x + b, \qquad b \text{ trained, starting at } b_0

Ben Zaken et al. 2022, arXiv 2106.10199. All biases of the model are meant, those of layer
norms included, as in the paper's main experiment; ``target_modules`` narrows them down
(the paper's smaller variant trains those of the queries and of the middle MLP layer).
Models without biases (Llama, T5) are refused. What is saved are the trained biases under
their names in the model; PEFT has biases only beside LoRA.
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


class BitfitConfig(MethodConfig):
    """Settings of BitFit."""

    peft_type: str = "LORAFIT_BITFIT"
    target_modules: set[str] | str | None = None
    """Modules whose biases are trained, at any depth: names, or a regular expression that
    matches whole paths. ``None``: all."""


@methods.register("bitfit")
class Bitfit(Method[BitfitConfig]):
    """Bias terms."""

    family: ClassVar[Family] = "selective"
    config_class = BitfitConfig
    learning_rate = 2e-3

    def parameters(
        self, model: nn.Module, names: Sequence[str], sites: Sequence[Site], config: BitfitConfig
    ) -> list[str]:
        """Everything that is called bias."""
        biases = [name for name in names if name.split(".")[-1] == "bias"]
        if not biases:
            raise ConfigError(
                f"bitfit trains biases, but {type(model).__name__} has none; "
                "layernorm or ia3 are as small."
            )
        if config.target_modules is None:
            return biases
        return inside(model, biases, config.target_modules, "target_modules")

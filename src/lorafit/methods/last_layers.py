r"""Last layers: the top ``k`` transformer blocks and what follows them are trained.

.. math:: y = f_{\theta}(g_{W_0}(x)), \qquad g = \text{embeddings and the lower blocks, frozen}

The usual partial fine-tuning (for instance Howard & Ruder 2018, arXiv 1801.06146, whose
gradual unfreezing we leave out; Lee et al. 2019, arXiv 1911.03090). What follows the blocks
inside the model, such as the last norm or a pooler, is trained too. Nothing below needs a
gradient, so the backward pass ends at the lowest trained block.

In an encoder-decoder the blocks are the decoder's: training the encoder's top would send
gradients through the whole decoder. What is saved are the trained weights; PEFT has no
such adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import nn

from lorafit.errors import ConfigError
from lorafit.methods import methods
from lorafit.methods.base import Family, Method, MethodConfig
from lorafit.model.sites import Site, find_blocks, output_embeddings


class LastLayersConfig(MethodConfig):
    """Settings of last-layer training."""

    peft_type: str = "LORAFIT_LAST_LAYERS"
    k: int = Field(default=2, gt=0)
    """How many blocks from the top are trained."""


@methods.register("last_layers")
class LastLayers(Method[LastLayersConfig]):
    """The top blocks."""

    family: ClassVar[Family] = "selective"
    config_class = LastLayersConfig
    learning_rate = 3e-4

    def parameters(
        self,
        model: nn.Module,
        names: Sequence[str],
        sites: Sequence[Site],
        config: LastLayersConfig,
    ) -> list[str]:
        """All parameters from the first trained block on, in module order."""
        k = config.k
        blocks = list(dict(find_blocks(model)))
        stack = [b for b in blocks if b.rpartition(".")[0] == blocks[-1].rpartition(".")[0]]
        if not stack:
            raise ConfigError(f"{type(model).__name__} has no stack of blocks to count from.")
        if k > len(stack):
            raise ConfigError(f"k is {k}, but {type(model).__name__} has {len(stack)} blocks.")
        first = next(i for i, name in enumerate(names) if name.startswith(f"{stack[-k]}."))
        # A matrix as large as the vocabulary that is not the head of this task, such as the
        # output embedding of a language model, is not a layer.
        output = output_embeddings(model)
        spared = {id(parameter) for parameter in output.parameters()} if output else set()
        by_name = dict(model.named_parameters())
        return [n for n in names[first:] if id(by_name.get(n)) not in spared]

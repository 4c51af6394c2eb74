r"""LoRA: a low-rank update beside each frozen weight.

.. math:: h = W_0 x + b + s B A x, \qquad s = \alpha / r

``W_0 (d_out, d_in)`` is frozen, ``A (r, d_in)`` and ``B (d_out, r)`` are trained. ``B = 0``
at the start, so training starts exactly at the base model. Hu et al. 2021, arXiv
2106.09685, equation 3. With ``use_rslora`` the scale is ``alpha / sqrt(r)`` (Kalajdzievski
2023, arXiv 2312.03732). ``use_dora`` adds a trained length to each row (``dora.py``).

Some initialisations start from a non-zero product: ``pissa`` (Meng et al. 2024, arXiv
2404.02948), ``olora`` (Buyukakyuz 2024, arXiv 2406.01775). PEFT subtracts the product
``s B_0 A_0`` from the base weight in place. Here the base is never edited: the start is
kept as a frozen *origin* and subtracted in the forward pass,
``h = W_0 x + b + s (B A - B_0 A_0) x``. That is the same function; it is exact in every
dtype, several such adapters can share one base, and what is saved is an ordinary LoRA of
rank ``2r``, ``[B, -B_0] [A; A_0]``, which fits the unmodified base everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from torch import nn

from lorafit.errors import ConfigError, TargetError
from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, Family, Method
from lorafit.methods.lora.config import LoraConfig
from lorafit.methods.lora.dora import DoraLinear
from lorafit.methods.lora.embedding import LoraEmbedding
from lorafit.methods.lora.linear import LoraLinear
from lorafit.methods.lora.parameter import LoraParameters, parameter_sites
from lorafit.methods.lora.tokens import TokenRows, token_sites
from lorafit.model import expressions
from lorafit.model.sites import Site
from lorafit.model.targets import ALL_LINEAR, inside_modules, select


@methods.register("lora")
class Lora(Method[LoraConfig]):
    """Low-rank adaptation of linear layers, ``Conv1D`` and embeddings."""

    family: ClassVar[Family] = "reparametrization"
    config_class = LoraConfig
    recommended: ClassVar[Mapping[str, object]] = {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ALL_LINEAR,
        "lora_dropout": 0.05,
    }

    @classmethod
    def starting_from(cls, given: Mapping[str, object]) -> dict[str, object]:
        """No dropout beside ``target_parameters``: the input of such weights is nobody's to drop.

        PEFT refuses the two together, so 0 holds for the layers too.
        """
        found = super().starting_from(given)
        return found | ({"lora_dropout": 0.0} if given.get("target_parameters") else {})

    def select(self, model: nn.Module, sites: Sequence[Site], config: LoraConfig) -> list[Site]:
        """Resolves the patterns; every pattern has to match something."""
        targets: Collection[str] | str = config.target_modules or ALL_LINEAR
        if config.target_modules is not None and not config.target_parameters:
            targets = config.target_modules
        chosen: list[Site] = []
        if config.target_modules or not config.target_parameters:
            chosen = select(
                model,
                sites,
                target_modules=targets,
                exclude_modules=config.exclude_modules,
                layers_to_transform=config.layers_to_transform,
                layers_pattern=config.layers_pattern,
                modules_to_save=config.modules_to_save,
            )
        if config.use_dora and any(s.kind == "embedding" for s in chosen):
            raise TargetError(
                "use_dora is for weight matrices; take the embeddings off the targets."
            )
        beside = self._beside_layers(model, sites, chosen, config)
        own = {name.rpartition(".")[2] for name in config.target_parameters or []}
        weights = [f"{s.path}.{name}" for s in beside if s.kind == "parameter" for name in own]
        for setting in ("rank_pattern", "alpha_pattern"):
            for pattern in getattr(config, setting):
                paths = [s.path for s in chosen] + weights
                if not any(expressions.names(pattern, path) for path in paths):
                    names = sorted({s.name for s in chosen})
                    raise TargetError(
                        f'{setting}: "{pattern}" matches none of the targets: {", ".join(names)}.'
                    )
        return chosen + beside

    def _beside_layers(
        self, model: nn.Module, sites: Sequence[Site], chosen: Sequence[Site], config: LoraConfig
    ) -> list[Site]:
        """Weights that are no layers, and rows of embeddings, that a configuration names."""
        beside: list[Site] = []
        if config.target_parameters:
            beside += parameter_sites(model, config.target_parameters)
        if config.trainable_token_indices:
            beside += token_sites(model, sites, config.trainable_token_indices)
        taken = {site.path for site in chosen}
        for site in beside:
            if site.path in taken:
                raise TargetError(f"{site.path} is named twice: in target_modules as well.")
            if config.modules_to_save and inside_modules(site.path, config.modules_to_save):
                raise TargetError(f"{site.path} is named twice: in modules_to_save as well.")
        self._model = model
        return beside

    def parameters(
        self, model: nn.Module, names: Sequence[str], sites: Sequence[Site], config: LoraConfig
    ) -> list[str]:
        """The biases that ``bias`` asks for."""
        which = config.bias
        if which == "none":
            return []
        biases = [name for name in names if name.split(".")[-1] == "bias"]
        if which == "lora_only":
            own = {f"{site.path}.bias" for site in sites}
            biases = [name for name in biases if name in own]
        if not biases:
            raise ConfigError(f'bias="{which}": the model has no such biases.')
        return biases

    def saved_name(self, name: str, sites: Sequence[Site]) -> str:
        """As PEFT does: below ``base_layer`` where the layer is adapted."""
        path, _, key = name.rpartition(".")
        return f"{path}.base_layer.{key}" if any(s.path == path for s in sites) else name

    def wrap(self, layer: nn.Module, site: Site) -> AdapterLayer:
        """Wraps a linear layer, a ``Conv1D``, an embedding, or what `_beside_layers` found."""
        if site.kind == "parameter":
            return LoraParameters(layer)
        if site.kind == "tokens":
            words = self._model.get_input_embeddings()  # type: ignore[operator]
            tied = layer is not words and layer.weight is words.weight
            return TokenRows(layer, main=words if tied else None)
        return LoraEmbedding(layer) if site.kind == "embedding" else LoraLinear(layer, site)

    def add(self, layer: AdapterLayer, name: str, config: LoraConfig, site: Site) -> None:
        """The first adapter with ``use_dora`` makes a layer one that computes either kind."""
        if config.use_dora and isinstance(layer, LoraLinear):
            # In place, as torch's lazy modules become what they are: the layer may have
            # plain adapters already, and hooks, and it stays the module that others hold.
            layer.__class__ = DoraLinear
        super().add(layer, name, config, site)

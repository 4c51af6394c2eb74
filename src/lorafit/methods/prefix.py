r"""Prefix tuning: trained keys and values before each layer's own; the model is frozen.

.. math:: \mathrm{head}_l = \mathrm{Attn}(Q_l,\; [P^K_l;\, K_l],\; [P^V_l;\, V_l])

Li and Liang 2021, arXiv 2101.00190; for encoders Liu et al. 2022 (P-tuning v2), arXiv
2110.07602. The ``n`` virtual tokens of ``P`` are a cache that the model is given: it has to
take ``past_key_values``, as decoders and some encoders do (BERT, RoBERTa, not DistilBERT).
This is tried on a token before anything is trained. Encoder-decoders get the prefix in the
decoder's self-attention.

By default a prefix starts as the keys and values of random tokens, which the trial computes
anyway (the paper's "real words"). In any case attention is shared with the virtual tokens,
so training does not start exactly at the base. With ``prefix_projection`` the prefix is
trained through a small MLP; only the prefix is saved. It cannot be merged.

On disk this is PEFT's ``PREFIX_TUNING``: ``prompt_embeddings (n, 2 l d)``, for each token
keys and values of all layers. Where we differ from PEFT:

- ``init_weights: vocab`` is ours. PEFT's random start (standard deviation 1) is ``null``.
- The shape of keys and values is read off the model's cache and not its configuration.
- In an encoder-decoder every decoder layer has entries of its own. In PEFT layer ``i`` reads
  those of layer ``2 i mod l``, so half of them may be unused; such files are refused, and PEFT
  cannot use ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import model_validator
from torch import nn
from transformers import Cache, DynamicCache, EncoderDecoderCache

from lorafit.errors import AdapterError, ConfigError
from lorafit.methods import methods
from lorafit.methods.base import CallLayer
from lorafit.methods.parts.virtual_tokens import VirtualTokens, VirtualTokensConfig, input_embedding
from lorafit.model.modes import evaluating
from lorafit.model.sites import Site

# What a model raises that takes no cache, or one of another kind.
_REFUSALS = (TypeError, ValueError, AttributeError, RuntimeError, IndexError, KeyError)


class PrefixConfig(VirtualTokensConfig):
    """Settings of prefix tuning, with PEFT's names."""

    peft_type: str = "PREFIX_TUNING"
    init_weights: Literal["vocab", "zero"] | None = None
    """Start from the keys and values of random tokens, from zeros, or (``null``) random."""
    prefix_projection: bool = False
    """Train the prefix through a two-layer MLP."""
    encoder_hidden_size: int | None = None
    """Width of the MLP; ``null``: that of a layer's keys."""

    @model_validator(mode="after")
    def _start(self) -> Self:
        if self.prefix_projection and self.init_weights == "vocab":
            raise ValueError("prefix_projection starts random or at zero: set init_weights to that")
        return self


@methods.register("prefix")
class Prefix(VirtualTokens[PrefixConfig]):
    """Trained keys and values."""

    config_class = PrefixConfig
    recommended: ClassVar[Mapping[str, object]] = {"init_weights": "vocab"}
    learning_rate = 3e-3

    def select(self, model: nn.Module, sites: Sequence[Site], config: PrefixConfig) -> list[Site]:
        """The input embedding, which carries the prefix and computes what it always does."""
        site = input_embedding(model, sites, "prefix")
        if config.num_transformer_submodules == 2:
            raise ConfigError(
                "this prefix for an encoder-decoder was made by PEFT, whose layers share entries "
                "(num_transformer_submodules is 2); use it with PEFT."
            )
        self._backbone = backbone(model)
        trial = keys_and_values(self._backbone, torch.zeros(1, 1, dtype=torch.long))
        self._layers, self._heads, self._width = trial.shape[0] // 2, trial.shape[1], trial.shape[3]
        return [site]

    def wrap(self, layer: nn.Module, site: Site) -> PrefixLayer:
        """Wraps the input embedding."""
        return PrefixLayer(layer, self._backbone)

    def resolved(
        self, model: nn.Module, sites: Sequence[Site], names: Sequence[str], config: PrefixConfig
    ) -> PrefixConfig:
        """Fills in what PEFT wants to know of the model."""
        found = {
            "token_dim": self._heads * self._width,
            "num_layers": self._layers,
            "num_attention_heads": self._heads,
            "num_transformer_submodules": 1,
            "encoder_hidden_size": config.encoder_hidden_size or self._heads * self._width,
        }
        return config.model_copy(update=found)


class PrefixLayer(CallLayer[PrefixConfig]):
    """The input embedding, carrying trained keys and values that the backbone is given."""

    adapter_layer_names: ClassVar[tuple[str, ...]] = ("prompt_embeddings", "prefix_encoder")
    unmergeable: ClassVar[str] = "a prefix is a part of what attention reads, not of a weight"

    def __init__(self, base_layer: nn.Module, backbone: nn.Module) -> None:
        super().__init__(base_layer)
        self.prompt_embeddings = nn.ParameterDict()
        self.prefix_encoder = nn.ModuleDict()
        self._shapes: dict[str, tuple[int, int]] = {}
        # Not a submodule: it has this layer inside.
        self._backbone = (backbone,)
        self._starting = False

    def called(self, model: nn.Module) -> nn.Module:
        """The backbone, which takes the cache."""
        return self._backbone[0]

    def add_adapter(self, name: str, config: PrefixConfig, site: Site) -> None:
        """Adds a prefix."""
        assert config.num_layers is not None
        assert config.token_dim is not None
        assert config.num_attention_heads is not None
        n, width = config.num_virtual_tokens, 2 * config.num_layers * config.token_dim
        self._shapes[name] = (2 * config.num_layers, config.num_attention_heads)
        device = self.weight.device
        if config.prefix_projection and not config.inference_mode:
            self.prefix_encoder[name] = PrefixEncoder(config, width).to(device)
            return
        if config.inference_mode or config.init_weights == "zero":
            start = torch.zeros(n, width)
        elif config.init_weights == "vocab":
            ids = torch.randint(0, len(self.weight), (1, n))
            self._starting = True
            start = keys_and_values(self._backbone[0], ids).permute(2, 0, 1, 3).reshape(n, width)
            self._starting = False
        else:
            start = torch.randn(n, width)
        self.prompt_embeddings[name] = nn.Parameter(start.to(device, torch.float32))

    def delete_adapter(self, name: str) -> None:
        """Forgets one adapter."""
        super().delete_adapter(name)
        self._shapes.pop(name, None)

    def prefix(self, name: str) -> torch.Tensor:
        """Keys and values of all layers ``(n, 2 l d)``."""
        if name in self.prefix_encoder:
            encoded: torch.Tensor = self.prefix_encoder[name]()
            return encoded
        prefix: torch.Tensor = self.prompt_embeddings[name]
        return prefix

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """The prefix itself, also where an MLP makes it."""
        return {"prompt_embeddings": self.prefix(name).detach()}

    def load_adapter_state(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        """Copies the prefix; it takes the place of an MLP, which it does not tell."""
        if name in self.prefix_encoder:
            trains = any(p.requires_grad for p in self.prefix_encoder[name].parameters())
            start = self.prefix(name).detach().clone()
            del self.prefix_encoder[name]
            self.prompt_embeddings[name] = nn.Parameter(start, requires_grad=trains)
        super().load_adapter_state(name, tensors)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """What the embedding computes."""
        base: torch.Tensor = self.base_layer(x, *args, **kwargs)
        return base

    @property
    def positions(self) -> int:
        """The virtual tokens of the active prefixes."""
        return sum(len(self.prefix(name)) for name in self._running())

    def before_call(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Puts the prefix into the cache, and extends what goes with it."""
        names = [] if self._starting else self._running()
        if not names:
            return kwargs
        model, kwargs = self._backbone[0], dict(kwargs)
        if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            raise AdapterError("a prefix is a cache, which gradient checkpointing does not keep.")
        role = "decoder_" if takes_encoder(model) else ""
        inputs = (kwargs.get(f"{role}{kind}") for kind in ("input_ids", "inputs_embeds"))
        batch = len(next(x for x in inputs if x is not None))
        cache = kwargs.get("past_key_values")
        cache = new_cache(model) if cache is None else cache
        if cache.get_seq_length() == 0:  # later steps of `generate` come with a full one
            self._fill(own_cache(cache), names, batch)
        kwargs["past_key_values"] = cache
        n = self.positions
        mask, positions = kwargs.get(f"{role}attention_mask"), kwargs.get("position_ids")
        if mask is not None and mask.ndim != 2:
            raise AdapterError(f"with a prefix attention_mask is (b, t), got {tuple(mask.shape)}.")
        if mask is not None:
            ones = mask.new_ones((len(mask), n))
            kwargs[f"{role}attention_mask"] = torch.cat([ones, mask], dim=1)
        if positions is not None:
            kwargs["position_ids"] = positions + n
        return kwargs

    def after_call(self, output: Any) -> Any:
        """Nothing: the virtual tokens have no outputs."""
        return output

    def _fill(self, cache: Cache, names: Sequence[str], batch: int) -> None:
        dtype = self.weight.dtype
        parts = []
        for name in names:
            flat = self.prefix(name)
            entries = flat.view(len(flat), *self._shapes[name], -1)
            parts.append(entries.permute(1, 2, 0, 3).to(dtype))
        # (2 l, b, heads, n, width)
        whole = torch.cat(parts, dim=2).unsqueeze(1).expand(-1, batch, -1, -1, -1)
        for layer in range(len(whole) // 2):
            cache.update(whole[2 * layer], whole[2 * layer + 1], layer)


class PrefixEncoder(nn.Module):
    """PEFT's MLP: ``n`` trained vectors ``(n, d)`` to the prefix ``(n, 2 l d)``."""

    def __init__(self, config: PrefixConfig, width: int) -> None:
        super().__init__()
        d, hidden = config.token_dim, config.encoder_hidden_size
        assert d is not None
        assert hidden is not None
        self.embedding = nn.Parameter(torch.randn(config.num_virtual_tokens, d))
        last = nn.Linear(hidden, width)
        if config.init_weights == "zero":
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.transform = nn.Sequential(nn.Linear(d, hidden), nn.Tanh(), last)

    def forward(self) -> torch.Tensor:
        """The prefix."""
        prefix: torch.Tensor = self.transform(self.embedding)
        return prefix


def backbone(model: nn.Module) -> nn.Module:
    """The model without its head, if it has one."""
    inner: nn.Module = getattr(model, "base_model", model)
    return inner


def takes_encoder(model: nn.Module) -> bool:
    """Whether a model is an encoder-decoder."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def new_cache(model: nn.Module) -> Cache:
    """An empty cache for a model."""
    if takes_encoder(model):
        return EncoderDecoderCache(DynamicCache(), DynamicCache())
    return DynamicCache()


def own_cache(cache: Cache) -> Cache:
    """The cache of a decoder's self-attention."""
    return cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache


def keys_and_values(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """What a model caches for some tokens.

    Args:
        model: A model without head.
        ids: Tokens ``(1, n)``.

    Returns:
        ``(2 l, heads, n, width)``: the keys, then the values of each of the ``l`` layers.

    Raises:
        ConfigError: The model has no such cache.
    """
    name = type(model).__name__
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise ConfigError(
            f"prefix does not fit {name}: its attention takes no past keys and values "
            "(past_key_values). prompt puts its virtual tokens into the input instead."
        )
    ids = ids.to(next(model.parameters()).device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs |= {"decoder_input_ids": ids} if takes_encoder(model) else {}
    cache = new_cache(model)
    try:
        with evaluating(model):
            model(**inputs, past_key_values=cache)
    except _REFUSALS as error:
        raise ConfigError(f"prefix does not fit {name}: {error}") from error
    pairs = [
        (getattr(layer, "keys", None), getattr(layer, "values", None))
        for layer in own_cache(cache).layers
    ]
    found = [tensor for pair in pairs for tensor in pair if tensor is not None]
    if not found or len(found) < 2 * len(pairs) or len({tensor.shape for tensor in found}) > 1:
        shapes = sorted({str(tuple(tensor.shape)) for tensor in found})
        raise ConfigError(
            f"prefix needs keys and values of one shape in every layer; {name} caches "
            f"{' and '.join(shapes) or 'none'}."
        )
    return torch.cat(found)

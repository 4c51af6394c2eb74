r"""Prompt tuning: trained vectors in front of the input's embeddings; the model is frozen.

.. math:: h_0 = [\,P;\; E(x)\,], \qquad P\ (n, d) \text{ trained}

Lester et al. 2021, arXiv 2104.08691. The ``n`` virtual tokens take ``n`` of the model's
positions, so inputs may be that much shorter. They start as the embeddings of sampled
tokens, of a text, or random; in any case the model then computes something else than the
base, so, unlike other methods, training does not start exactly there. An encoder that
classifies by its first position (BERT) reads that of the first virtual token. A soft prompt
is input and not a change of a weight: it cannot be merged.

On disk this is PEFT's ``PROMPT_TUNING``: ``prompt_embeddings (n, d)``. Where we differ:

- The model is still given token ids, with stand-ins for the virtual tokens, so models that
  look for the last token that is not padding (GPT-2, Llama) find it. PEFT passes embeddings,
  and such models then take the last position, padding or not; unpadded inputs agree.
- ``RANDOM`` draws with the standard deviation of the embedding table, PEFT with 1.
- Per-token outputs lose the virtual tokens' positions again. Text is generated without a
  cache (``use_cache=False``).
- Encoder-decoders are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import model_validator
from torch import nn
from transformers import AutoTokenizer

from lorafit import hub
from lorafit.errors import AdapterError, ConfigError
from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, CallLayer
from lorafit.methods.parts.virtual_tokens import VirtualTokens, VirtualTokensConfig, input_embedding
from lorafit.model.sites import Site
from lorafit.paths import resolve


class PromptConfig(VirtualTokensConfig):
    """Settings of prompt tuning, with PEFT's names."""

    peft_type: str = "PROMPT_TUNING"
    prompt_tuning_init: Literal["SAMPLE_VOCAB", "TEXT", "RANDOM"] = "RANDOM"
    """Start from the embeddings of random tokens, of a text's tokens, or from random numbers."""
    prompt_tuning_init_text: str | None = None
    """The text, for ``TEXT``; repeated or cut to the number of virtual tokens."""
    tokenizer_name_or_path: str | None = None
    """Its tokenizer; ``None``: the base model's."""

    @model_validator(mode="after")
    def _text(self) -> Self:
        if (self.prompt_tuning_init == "TEXT") != (self.prompt_tuning_init_text is not None):
            raise ValueError(
                "prompt_tuning_init TEXT and prompt_tuning_init_text belong together; set both"
            )
        return self


@methods.register("prompt")
class Prompt(VirtualTokens[PromptConfig]):
    """A soft prompt."""

    config_class = PromptConfig
    recommended: ClassVar[Mapping[str, object]] = {"prompt_tuning_init": "SAMPLE_VOCAB"}
    learning_rate = 1e-2

    def select(self, model: nn.Module, sites: Sequence[Site], config: PromptConfig) -> list[Site]:
        """The input embedding."""
        settings: Any = getattr(model, "config", None)
        if getattr(settings, "is_encoder_decoder", False):
            raise ConfigError(
                f"prompt does not fit {type(model).__name__}: an encoder-decoder has two inputs."
            )
        site = input_embedding(model, sites, "prompt")
        special = {getattr(settings, f"{kind}_token_id", None) for kind in ("pad", "eos", "sep")}
        self._stand_in = next(i for i in range(site.d_in) if i not in special)
        return [site]

    def wrap(self, layer: nn.Module, site: Site) -> AdapterLayer:
        """Wraps the input embedding."""
        return PromptLayer(layer, self._stand_in)

    def resolved(
        self, model: nn.Module, sites: Sequence[Site], names: Sequence[str], config: PromptConfig
    ) -> PromptConfig:
        """Fills in what PEFT wants to know of the model."""
        settings: Any = getattr(model, "config", None)
        settings = settings.get_text_config() if settings is not None else None
        tokenizer = config.tokenizer_name_or_path
        if config.prompt_tuning_init == "TEXT":
            tokenizer = tokenizer or config.base_model_name_or_path
            if tokenizer is None:
                raise ConfigError("prompt_tuning_init TEXT needs tokenizer_name_or_path.")
        found = {
            "token_dim": sites[0].d_out,
            "num_layers": getattr(settings, "num_hidden_layers", None),
            "num_attention_heads": getattr(settings, "num_attention_heads", None),
            "num_transformer_submodules": 1,
            "tokenizer_name_or_path": tokenizer,
        }
        return config.model_copy(update=found)


class PromptLayer(CallLayer[PromptConfig]):
    """The input embedding, with trained vectors before what it looks up."""

    adapter_layer_names: ClassVar[tuple[str, ...]] = ("prompt_embeddings",)
    unmergeable: ClassVar[str] = "a soft prompt is a part of the input, not a change of a weight"

    def __init__(self, base_layer: nn.Module, stand_in: int) -> None:
        super().__init__(base_layer)
        self.prompt_embeddings = nn.ParameterDict()
        self.stand_in = stand_in
        # Of the call that is running: stand-ins the embedding still has to replace, and
        # positions to take off the output again, if it has this length.
        self._virtual = self._cut = self._length = 0

    def add_adapter(self, name: str, config: PromptConfig, site: Site) -> None:
        """Adds a prompt."""
        table, n = self.weight.detach(), config.num_virtual_tokens
        if config.inference_mode:  # about to be loaded
            start = torch.zeros(n, site.d_out)
        elif config.prompt_tuning_init == "RANDOM":
            start = torch.randn(n, site.d_out) * float(table.float().std())
        elif config.prompt_tuning_init == "SAMPLE_VOCAB":
            start = table[torch.randint(0, len(table), (n,)).to(table.device)]
        else:
            start = table[_text_ids(config).to(table.device)]
        self.prompt_embeddings[name] = nn.Parameter(start.to(table.device, torch.float32).clone())

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Token ids ``(b, n + t)`` to ``(b, n + t, d)``, the first ``n`` from the prompt."""
        base: torch.Tensor = self.base_layer(x, *args, **kwargs)
        n, self._virtual = self._virtual, 0
        if n == 0:
            return base
        prompt = torch.cat([self.prompt_embeddings[name] for name in self._running()])
        prompt = prompt.to(base.dtype).expand(base.shape[0], -1, -1)
        return torch.cat([prompt, base[:, n:]], dim=1)

    @property
    def positions(self) -> int:
        """The virtual tokens of the active prompts."""
        return sum(len(self.prompt_embeddings[name]) for name in self._running())

    def before_call(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Puts stand-ins before the token ids, and extends what goes with them."""
        n = self.positions
        self._virtual = self._cut = self._length = 0
        if n == 0:
            return kwargs
        ids = kwargs.get("input_ids")
        if ids is None:
            raise AdapterError("with a soft prompt the model has to be called with input_ids.")
        if kwargs.get("past_key_values") is not None:
            # `generate` counts tokens in its cache, and would count the virtual ones.
            raise AdapterError("with a soft prompt, generate without a cache: use_cache=False.")
        kwargs = dict(kwargs)
        if kwargs.get("attention_mask") is not None:
            kwargs["attention_mask"] = _before(kwargs["attention_mask"], 1, n)
        if kwargs.get("position_ids") is not None:
            positions = kwargs["position_ids"] + n
            own = torch.arange(n, device=positions.device).expand(len(positions), -1)
            kwargs["position_ids"] = torch.cat([own, positions], dim=1)
        kwargs["input_ids"] = _before(ids, self.stand_in, n)
        if kwargs.get("token_type_ids") is not None:
            kwargs["token_type_ids"] = _before(kwargs["token_type_ids"], 0, n)
        labels = kwargs.get("labels")
        if labels is not None and labels.shape == ids.shape:
            kwargs["labels"] = _before(labels, -100, n)
        self._virtual = self._cut = n
        self._length = n + ids.shape[1]  # `logits_to_keep` returns fewer
        return kwargs

    def after_call(self, output: Any) -> Any:
        """Takes the virtual tokens off per-token logits."""
        logits = getattr(output, "logits", None)
        if logits is not None and logits.ndim == 3 and logits.shape[1] == self._length:
            output.logits = logits[:, self._cut :]
        self._virtual = self._cut = self._length = 0
        return output


def _before(tensor: torch.Tensor, value: int, n: int) -> torch.Tensor:
    """A tensor ``(b, t)`` with ``n`` columns of one value before it."""
    return torch.cat([tensor.new_full((len(tensor), n), value), tensor], dim=1)


def _text_ids(config: PromptConfig) -> torch.Tensor:
    """The tokens of the text, repeated or cut to ``(n,)``."""
    name = config.tokenizer_name_or_path
    assert name is not None  # filled in
    local = resolve(name)
    with hub.asked(local is None):
        tokenizer = AutoTokenizer.from_pretrained(str(local or name))
    ids = tokenizer(config.prompt_tuning_init_text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ConfigError("prompt_tuning_init_text has no tokens.")
    n = config.num_virtual_tokens
    return torch.tensor((ids * (n // len(ids) + 1))[:n])

"""Some rows of an embedding trained beside LoRA: new tokens (PEFT's trainable tokens).

The rows *replace* those of the table, they are not added to them: a vocabulary that was
resized has random rows at every load, and what was trained holds whatever they are.
Output embeddings that are tied to the table follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import nn

from lorafit.errors import AdapterError, ConfigError, TargetError
from lorafit.methods.base import AdapterLayer
from lorafit.methods.lora.config import LoraConfig
from lorafit.model.sites import Site, output_embeddings
from lorafit.model.targets import matches

TokenIndices = list[int] | dict[str, list[int]]


def token_sites(model: nn.Module, sites: Sequence[Site], indices: TokenIndices) -> list[Site]:
    """The embeddings whose rows are meant, and what is tied to the input embeddings.

    Args:
        model: The model, perhaps with adapters on it already.
        sites: All adaptable layers.
        indices: Rows of the input embeddings, or rows by the name of a layer: embeddings, or
            output embeddings.

    Raises:
        TargetError: There is no such embedding.
        ConfigError: There is no such row, or a row twice.
    """
    embeddings = [site for site in sites if site.kind == "embedding"]
    words = getattr(model, "get_input_embeddings", lambda: None)()
    output = output_embeddings(model)
    own = next((s for s in embeddings if _at(model, s.path) is words), None)
    if isinstance(indices, dict):
        wanted: dict[Site, list[int]] = {}
        for name, rows in indices.items():
            hits = [s for s in sites if matches(s.path, [name])]
            if not hits or not (hits[0].kind == "embedding" or _at(model, hits[0].path) is output):
                there = ", ".join(s.path for s in embeddings)
                raise TargetError(
                    f'trainable_token_indices: no embedding is called "{name}"; there is {there}.'
                )
            if own is not None and hits[0] is not own and _is_tied(model, hits[0], words):
                raise TargetError(
                    f"trainable_token_indices: {hits[0].path} is tied to {own.path} and has its "
                    "rows; name those alone."
                )
            wanted |= dict.fromkeys(hits, rows)
    elif own is None:
        raise TargetError(
            "trainable_token_indices: the model does not say what its input embeddings are; name "
            'them: {"embed_tokens": [...]}.'
        )
    else:
        wanted = {own: indices}
    found = []
    for site, rows in wanted.items():
        count = site.d_in if site.kind == "embedding" else site.d_out
        if not rows or len(set(rows)) < len(rows) or not all(0 <= i < count for i in rows):
            raise ConfigError(
                f"trainable_token_indices: rows of {site.path} are different numbers from 0 to "
                f"{count - 1}, got {rows!s:.60}. New tokens are added with --add-tokens; in a "
                "script, call `model.resize_token_embeddings(len(tokenizer))` first."
            )
        found.append(_tokens(site))
        if site is own:
            found += [_tokens(s) for s in sites if s is not own and _is_tied(model, s, words)]
    return list(dict.fromkeys(found))


def _is_tied(model: nn.Module, site: Site, words: Any) -> bool:
    """Whether a layer has the input embeddings' table for its weight."""
    module = _at(model, site.path)
    return module is not None and getattr(module, "weight", None) is _weight(words)


def rows_of(config: LoraConfig, path: str) -> list[int]:
    """The rows that a configuration trains of an embedding."""
    indices = config.trainable_token_indices or []
    if not isinstance(indices, Mapping):
        return list(indices)
    return next((list(rows) for name, rows in indices.items() if matches(path, [name])), [])


def _tokens(site: Site) -> Site:
    return Site(site.path, "tokens", site.d_in, site.d_out, site.role, site.block)


def _at(model: nn.Module, path: str) -> nn.Module | None:
    """A module by its plain path, wrapped or not; ``None``: its parents are wrapped."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _weight(module: Any) -> nn.Parameter:
    weight: nn.Parameter = module.weight
    return weight


class TokenRows(AdapterLayer[LoraConfig]):
    """Trained rows in place of an embedding's own: ``(rows, dim)`` float32 for each adapter.

    Args:
        base_layer: An embedding, or the output embeddings.
        main: For a layer that is tied to an embedding the one around that, which has the rows.
    """

    adapter_layer_names: ClassVar[tuple[str, ...]] = ("trainable_tokens_delta",)

    def __init__(self, base_layer: nn.Module, main: TokenRows | None = None) -> None:
        super().__init__(base_layer)
        self._main = [main] if main is not None else []  # in a list: no part of this module
        if main is None:
            self.token_adapter = nn.Module()
            self.token_adapter.trainable_tokens_delta = nn.ParameterDict()
            self._indices: dict[str, list[int]] = {}

    @property
    def trainable_tokens_delta(self) -> nn.ParameterDict:
        """The rows by adapter; PEFT's name."""
        if self._main:
            return self._main[0].trainable_tokens_delta
        return cast(nn.ParameterDict, self.token_adapter.trainable_tokens_delta)

    @property
    def token_indices(self) -> dict[str, list[int]]:
        """Which rows they are, by adapter; PEFT's name."""
        return self._main[0].token_indices if self._main else self._indices

    def add_adapter(self, name: str, config: LoraConfig, site: Site) -> None:
        """Adds an adapter; its rows start as those of the table."""
        if self._main:
            return
        rows = rows_of(config, site.path)
        self.token_indices[name] = rows
        self.trainable_tokens_delta[name] = nn.Parameter(self.weight.detach()[rows].float())

    def delete_adapter(self, name: str) -> None:
        """Forgets one adapter."""
        super().delete_adapter(name)
        self.token_indices.pop(name, None)

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """The rows; tied output embeddings have none of their own."""
        if self._main or name not in self.trainable_tokens_delta:
            return {}
        key = f"token_adapter.trainable_tokens_delta.{name}"
        return {key: self.trainable_tokens_delta[name]}

    def saved_names(self, name: str) -> dict[str, str]:
        """PEFT's name."""
        return {key: key.removesuffix(f".{name}") for key in self.parameters_of(name)}

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Token ids ``(...)`` to ``(..., dim)``; tied: hidden states to scores of tokens."""
        result: torch.Tensor = self.base_layer(x, *args, **kwargs)
        names = self._running()
        self._check_different(names)
        for name in names:
            rows = self.trainable_tokens_delta[name].to(result.dtype)
            index = torch.tensor(self.token_indices[name], device=rows.device)
            if isinstance(self.base_layer, nn.Embedding):
                scale = getattr(self.base_layer, "embed_scale", None)
                if isinstance(scale, torch.Tensor):  # Gemma's; BART's is a number
                    scale = scale.to(rows.dtype)
                rows = rows if scale is None else rows * scale
                hit = x.unsqueeze(-1) == index.to(x.device)
                replaced = F.embedding(hit.to(torch.uint8).argmax(-1), rows)
                result = torch.where(hit.any(-1, keepdim=True), replaced, result)
            else:
                bias = None if self.bias is None else self.bias[index]
                result = result.index_copy(-1, index, F.linear(x, rows, bias).to(result.dtype))
        return result

    @torch.no_grad()
    def delta_weight(self, name: str) -> torch.Tensor:
        """The change of the table, ``(vocab, dim)``: zero but in the rows."""
        weight = self.pristine_weight.float()
        delta = torch.zeros_like(weight)
        rows = self.token_indices[name]
        delta[rows] = self.trainable_tokens_delta[name].float() - weight[rows]
        return delta

    def merged_values(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """The table with the rows."""
        self._check_different(names)
        weight = self.pristine_weight.float().clone()
        for name in names:
            weight[self.token_indices[name]] = self.trainable_tokens_delta[name].to(weight)
        return {"weight": weight}

    def merge(self, safe_merge: bool = False, adapter_names: Sequence[str] | None = None) -> None:
        """Puts the rows into the table; what was tied to it stays tied."""
        super().merge(safe_merge, adapter_names)
        for main in self._main:
            if self.merged and main.merged_adapters == self.merged_adapters:
                self.base_layer.weight = main.base_layer.weight

    def _check_different(self, names: Sequence[str]) -> None:
        indices = [row for name in names for row in self.token_indices[name]]
        if len(set(indices)) < len(indices):
            raise AdapterError(
                f"{' and '.join(names)} have rows for the same tokens; only one of them can be "
                "active."
            )

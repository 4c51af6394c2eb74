r"""What does a model lose of what it knew? Base and tuned model read the same general text.

A model with a language-modelling head (causal or masked) is asked for its predictions:

- ``kl``: mean :math:`\mathrm{KL}(p_{base} \Vert p_{tuned})` in nats per token;
- ``loss_change``: change of the loss in nats per token.

Of a masked model the same tokens are hidden for everybody. A tuned classifier is asked
through the base model's own head, put on its hidden states.

A model without such a head is compared by its representations of the texts, the mean over
tokens of each layer:

- ``cka_distance``: mean over layers of 1 - linear CKA (Kornblith et al. 2019, arXiv
  1905.00414, equation 4);
- ``neighbours_lost``: share of the ten nearest texts (by the cosine, last layer) that are
  others after tuning.

Zero means that nothing changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Required, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutputWithPast

from lorafit.adapt import Adapters
from lorafit.errors import DataError
from lorafit.model.modes import evaluating
from lorafit.model.sites import output_embeddings
from lorafit.tasks.parts.control import read

MOST_TEXTS = 400
LONGEST = 64
"""Tokens that are read of each text."""
BATCH = 16
MASKED = 0.15
NEIGHBOURS = 10


def general_text(path: str | Path | None = None) -> list[str]:
    """Texts that have nothing to do with the task, one a line.

    Args:
        path: A file; ``None``: the sentences that come with the package.

    Raises:
        DataError: The file cannot be read or has fewer than two texts.
    """
    try:
        if path is None:
            source = resources.files("lorafit.evaluation") / "general.txt"
            content = source.read_text(encoding="utf-8")
        else:
            content = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f'the general text "{path}" is not UTF-8; save it as UTF-8.') from error
    except OSError as error:
        raise DataError(f'cannot read the general text "{path}": {error.strerror}.') from error
    texts = [line.strip() for line in content.splitlines() if line.strip()]
    if len(texts) < 2:
        raise DataError(f'"{path}" has {len(texts)} texts; it should have two or more, one a line.')
    return texts[:MOST_TEXTS]


@dataclass
class Probe:
    """The text as a model reads it, and how to ask the model.

    Attributes:
        batches: The arguments of the model.
        targets: For each batch the tokens to predict ``(b, t)``, -100 elsewhere; empty for a
            comparison of representations.
        head: From the model's output and input ids to logits; ``None``: representations.
        reason: Why representations are compared, where they are.
    """

    batches: list[dict[str, Tensor]]
    targets: list[Tensor]
    head: Callable[[Any, Tensor], Tensor] | None
    reason: str = ""

    @property
    def kind(self) -> str:
        """``language`` or ``representation``."""
        return "representation" if self.head is None else "language"


def make_probe(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    length: int = LONGEST,
    language_model: PreTrainedModel | None = None,
) -> Probe:
    """Prepares the text for a model.

    Args:
        model: The base model, without adapters.
        tokenizer: Its tokenizer.
        texts: General text.
        length: Tokens read of each text.
        language_model: The same base with its language-modelling head, where it has one;
            ``None``: the model itself if it is one, else representations are compared.
    """
    language_model = language_model or (model if has_language_head(model) else None)
    if getattr(model.config, "is_encoder_decoder", False):
        language_model = None
    rows = read(tokenizer, texts, truncation=True, max_length=length)["input_ids"]
    rows = sorted((row for row in rows if len(row) > 2), key=len)
    batches = [_padded(rows[i : i + BATCH], tokenizer) for i in range(0, len(rows), BATCH)]
    if language_model is None:
        return Probe(batches, [], None, "the model has no language-modelling head")
    causal = _is_causal(language_model)
    if causal:
        targets = [_next_tokens(batch) for batch in batches]
    elif tokenizer.mask_token_id is None:
        return Probe(batches, [], None, "the tokenizer has no mask token")
    else:
        targets = _mask(batches, tokenizer)
    if language_model is model:
        return Probe(batches, targets, lambda output, _: output.logits)
    head = BorrowedHead(language_model)
    probe = Probe(batches, targets, head)
    if not _agrees(model, language_model, head, batches[0]):
        return Probe(batches, [], None, "its last hidden states are not what the head reads")
    return probe


class BorrowedHead:
    """A language model's head on hidden states that another model computed."""

    def __init__(self, language_model: PreTrainedModel) -> None:
        self.model = language_model
        self.prefix = language_model.base_model_prefix

    def __call__(self, output: Any, ids: Tensor) -> Tensor:
        """The output of a model with hidden states, and its tokens ``(b, t)``, to logits."""
        hidden = _hidden(output)[-1][:, -ids.shape[1] :]
        own = getattr(self.model, self.prefix)
        setattr(self.model, self.prefix, _Given(hidden.to(self.model.dtype)))
        try:
            logits: Tensor = self.model(input_ids=ids).logits
        finally:
            setattr(self.model, self.prefix, own)
        return logits


class _Given(nn.Module):
    """Stands where a backbone stood and returns given hidden states."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self._hidden = hidden

    def forward(self, *_args: Any, **_kwargs: Any) -> BaseModelOutputWithPast:
        """The hidden states, whatever the input."""
        return BaseModelOutputWithPast(last_hidden_state=self._hidden)


class Forgotten(TypedDict, total=False):
    """How far a model's reading of general text moved.

    Attributes:
        kind: ``language`` or ``representation``.
        forgetting: The headline: ``kl`` or ``cka_distance``.
        kl: KL divergence from the base model, nats a token.
        loss_change: Of the text, nats a token.
        tokens: How many were compared.
        cka_distance: 1 - CKA, mean over the layers.
        cka_distance_by_layer: The same of each.
        neighbours_lost: Share of each text's nearest ones that are others now.
        texts: How many were compared.
        reason: Why not as a language model.
    """

    kind: Required[str]
    forgetting: Required[float]
    kl: float
    loss_change: float
    tokens: int
    cka_distance: float
    cka_distance_by_layer: list[float]
    neighbours_lost: float
    texts: int
    reason: str | None


def measure(adapters: Adapters, probe: Probe) -> Forgotten:
    """Compares the adapted model with its base; see the module for the numbers.

    Returns:
        ``kind``, ``forgetting`` (the headline: ``kl`` or ``cka_distance``) and the numbers.
    """
    model = adapters.model
    with evaluating(model):
        if probe.head is not None:
            return _language(adapters, probe)
        with adapters.disabled():
            base = [_pooled(model, batch) for batch in probe.batches]
        tuned = [_pooled(model, batch) for batch in probe.batches]
    return {**compare_layers(_stack(base), _stack(tuned)), "reason": probe.reason}


def compare_layers(base: list[np.ndarray], tuned: list[np.ndarray]) -> Forgotten:
    """Compares representations.

    Args:
        base: For each layer ``(texts, width)``.
        tuned: The same texts, read by the other model.
    """
    # Rounding may leave the CKA of a layer with itself a little above one.
    distances = [max(0.0, 1.0 - linear_cka(x, y)) for x, y in zip(base, tuned, strict=True)]
    return {
        "kind": "representation",
        "forgetting": float(np.mean(distances)),
        "cka_distance": float(np.mean(distances)),
        "cka_distance_by_layer": distances,
        "neighbours_lost": 1.0 - neighbour_overlap(base[-1], tuned[-1]),
        "texts": len(base[0]),
    }


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA of two representations ``(n, d)`` and ``(n, e)`` of the same examples."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    # By Gram matrices (n, n): there are fewer texts than features.
    k, l = x @ x.T, y @ y.T  # noqa: E741  (the paper's letters)
    scale = float(np.linalg.norm(k) * np.linalg.norm(l))
    return float((k * l).sum()) / scale if scale > 0 else 1.0


def neighbour_overlap(x: np.ndarray, y: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Share of each example's ``k`` nearest by the cosine that are the same in both."""
    k = min(k, len(x) - 1)
    near = []
    for values in (x, y):
        unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, -np.inf)
        near.append(np.argsort(-cosine, axis=1, kind="stable")[:, :k])
    shared = [len(np.intersect1d(a, b)) for a, b in zip(*near, strict=True)]
    return float(np.mean(shared)) / k


def _language(adapters: Adapters, probe: Probe) -> Forgotten:
    model = adapters.model
    kl = change = 0.0
    tokens = 0
    for batch, target in zip(probe.batches, probe.targets, strict=True):
        with adapters.disabled():
            base = _log_probabilities(model, probe, batch)
        tuned = _log_probabilities(model, probe, batch)
        chosen = target != -100
        p, q, right = base[chosen], tuned[chosen], target[chosen]
        kl += float((p.exp() * (p - q)).sum())
        losses = [F.nll_loss(x, right, reduction="sum") for x in (p, q)]
        change += float(losses[1] - losses[0])
        tokens += len(right)
    return {
        "kind": "language",
        "forgetting": kl / tokens,
        "kl": kl / tokens,
        "loss_change": change / tokens,
        "tokens": tokens,
    }


def _log_probabilities(model: nn.Module, probe: Probe, batch: dict[str, Tensor]) -> Tensor:
    assert probe.head is not None
    output = model(**batch, output_hidden_states=isinstance(probe.head, BorrowedHead))
    return F.log_softmax(probe.head(output, batch["input_ids"]).float(), dim=-1)


def _pooled(model: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
    """Mean over tokens of each layer's output ``(b, d)``."""
    mask = batch["attention_mask"].unsqueeze(-1).float()
    t = mask.shape[1]
    # Virtual tokens stand in front.
    layers = [h[:, -t:].float() for h in _hidden(model(**batch, output_hidden_states=True))]
    return [(h * mask).sum(1) / mask.sum(1) for h in layers[1:]]


def _hidden(output: Any) -> tuple[Tensor, ...]:
    own: tuple[Tensor, ...] | None = getattr(output, "hidden_states", None)
    hidden: tuple[Tensor, ...] = output.encoder_hidden_states if own is None else own
    return hidden


def _stack(parts: list[list[Tensor]]) -> list[np.ndarray]:
    return [torch.cat(layer).double().cpu().numpy() for layer in zip(*parts, strict=True)]


def _padded(rows: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    length = max(map(len, rows))
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def _next_tokens(batch: dict[str, Tensor]) -> Tensor:
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    target = torch.full_like(ids, -100)
    target[:, :-1] = torch.where(mask[:, 1:], ids[:, 1:], -100)
    return target


def _mask(batches: list[dict[str, Tensor]], tokenizer: PreTrainedTokenizerBase) -> list[Tensor]:
    """Hides the same tokens whoever asks, in place; returns what they were."""
    generator = torch.Generator().manual_seed(0)
    special = torch.tensor(tokenizer.all_special_ids)
    targets = []
    for batch in batches:
        ids = batch["input_ids"]
        plain = batch["attention_mask"].bool() & ~torch.isin(ids, special)
        hidden = (torch.rand(ids.shape, generator=generator) < MASKED) & plain
        # A text of which nothing is hidden would tell nothing.
        hidden |= plain & (plain.int().cumsum(1) == 1) & ~hidden.any(1, keepdim=True)
        targets.append(torch.where(hidden, ids, -100))
        batch["input_ids"] = torch.where(hidden, tokenizer.mask_token_id, ids)
    return targets


def has_language_head(model: nn.Module) -> bool:
    """Whether a model predicts tokens."""
    return output_embeddings(model) is not None


def _is_causal(model: PreTrainedModel) -> bool:
    return "MaskedLM" not in type(model).__name__


def _agrees(
    model: PreTrainedModel, whole: PreTrainedModel, head: BorrowedHead, batch: dict[str, Tensor]
) -> bool:
    """Whether the head on this model's hidden states says what the language model says."""
    with evaluating(model), evaluating(whole):
        expected = whole(**batch).logits
        found = head(model(**batch, output_hidden_states=True), batch["input_ids"])
    chosen = batch["attention_mask"].bool()
    return torch.allclose(found[chosen], expected[chosen].to(found), rtol=1e-3, atol=1e-3)

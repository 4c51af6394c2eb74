"""The head of a language model in the generic tier: loss only where there is a label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorafit.engine.frozen import FrozenLinear
from lorafit.engine.lm_loss import IGNORED, head_loss, labelled, token_losses
from lorafit.model.modes import evaluating
from lorafit.model.sites import output_embeddings


def label_count(labels: list[int]) -> int:
    """How many losses an example has: every label but the first token's."""
    return sum(label != IGNORED for label in labels[1:])


class LanguageHead:
    """Computes the loss of a causal language model.

    When the logits are nothing but the frozen output embedding times the last hidden state,
    they are computed for labelled positions only, in chunks. Models that scale or cap their
    logits (Gemma, Granite), or train the head, go through their own logits (in parts where they are
    many: `lorafit.engine.own_head`).

    Args:
        model: The adapted model, on the CPU.
        dtype: Type of the product with the output embedding.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.model = model
        whole: Any = model
        self.head = (
            FrozenLinear([whole.get_output_embeddings()], dtype)
            if _is_plain_product(model)
            else None
        )

    def loss(self, inputs: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, int]:
        """Summed loss in nats, and over how many labels; `Interception` is open around it."""
        model: Any = self.model
        if self.head is not None:
            return head_loss(model.base_model(**inputs).last_hidden_state, self.head, labels)
        logits = model(**inputs).logits[:, :-1].float()
        target = labels[:, 1:]
        loss = F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), reduction="sum", ignore_index=IGNORED
        )
        return loss, int((target != IGNORED).sum())

    def token_losses(
        self, inputs: dict[str, Tensor], labels: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Loss of each label, and whether the likeliest token is it; ``None``: needs logits."""
        if self.head is None:
            return None
        model: Any = self.model
        chosen, targets = labelled(model.base_model(**inputs).last_hidden_state, labels)
        return token_losses(chosen, self.head, targets)


def _is_plain_product(model: Any) -> bool:
    head = output_embeddings(model)
    if type(head) is not nn.Linear or any(p.requires_grad for p in head.parameters()):
        return False
    if model.base_model is model:
        return False
    low = head.weight.shape[0] // 2
    ids = torch.arange(low, low + 5)[None] % head.weight.shape[0]
    with evaluating(model):
        try:
            expected = model(input_ids=ids).logits.float()
            hidden = model.base_model(input_ids=ids).last_hidden_state
        except (RuntimeError, ValueError, TypeError, AttributeError):
            return False
        found = F.linear(hidden, head.weight, head.bias).float()
    return bool(torch.allclose(found, expected, rtol=1e-4, atol=1e-5))

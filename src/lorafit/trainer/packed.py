"""One batch of a Trainer computed by an engine, wherever that is shown to be the same.

Before the first step the model's own loss and gradient on that batch, without dropout, are
compared with the engine's; before the first prediction its loss and logits. A model that
computes its loss in another way is found there, whatever the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lorafit.engine.base import Batch, Engine
from lorafit.engine.choose import AGREEMENT, Computing, choose_engine
from lorafit.engine.decoder.engine import FastDecoder
from lorafit.engine.support import Unsupported
from lorafit.errors import DataError
from lorafit.tasks.base import Task
from lorafit.trainer.objective import Objective, head_of
from lorafit.trainer.padded import Padded, take_apart
from lorafit.trainer.refusals import base_model_of

log = logging.getLogger(__name__)

GRADIENT_AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 0.2}
"""How far the gradients may lie apart, relative to their size."""

_APART = 3
"""The loss is asked for with this many times the batch's own number of labels, to see whether
the model divides by it."""

ModelLoss = Callable[[dict[str, object], int], Tensor]
"""The parent's loss of a batch, divided by a number of labels."""


@dataclass(frozen=True)
class Computed:
    """What a batch came to.

    Attributes:
        loss: As the parent returns it; ``None``: there are no labels.
        logits: As the parent returns them; ``None``: not wanted.
    """

    loss: Tensor | None
    logits: Tensor | None


class Packed:
    """An engine for one model of a Trainer, in the state it is in.

    Args:
        model: What the Trainer trains: a transformers model or a ``PeftModel`` around one.
        bf16: Whether the Trainer computes in bfloat16 where torch holds it safe.

    Raises:
        Unsupported: No engine computes it; the message is the reason.
    """

    def __init__(self, model: nn.Module, *, bf16: bool) -> None:
        self.model = model
        base = base_model_of(model)
        self.head = head_of(base)
        self.objective = Objective(base, self.head)
        stored = next(base.parameters()).dtype
        self.dtype = torch.bfloat16 if bf16 else stored
        # What an engine calls of a task and of a tokenizer is all here.
        task, tokenizer = cast(Task, self.objective), cast(PreTrainedTokenizerBase, self.objective)
        computing = Computing(torch.device("cpu"), dtype=self.dtype)
        engine = choose_engine("auto", base, task, tokenizer, computing)
        if engine.name == "eager":
            raise Unsupported(engine.reason)
        self.engine: Engine = engine
        pad = getattr(self.objective.config, "pad_token_id", None)
        self._pad = pad if isinstance(pad, int) else None
        self._by_labels: bool | None = None
        """Whether the loss is divided by the labels of the whole step; ``None``: not compared."""
        self._predicts = False
        self._predicted_by_labels = False

    def taken_apart(self, inputs: Mapping[str, Any]) -> Padded:
        """The examples of a batch.

        Raises:
            Unsupported: The engine cannot compute such a batch.
        """
        left = isinstance(self.engine, FastDecoder)  # rotary positions are relative
        return take_apart(inputs, self.head, self._pad, padded_left=left)

    def _collated(self, batch: Padded) -> Batch:
        try:
            return self.engine.collate(batch.examples)
        except DataError as refusal:
            raise Unsupported(str(refusal)) from refusal

    # --- training ------------------------------------------------------------------------

    def step(self, batch: Padded, labels: float | None, divisor: float) -> Tensor:
        """Adds the gradient of a batch's loss to every trainable ``.grad``.

        Args:
            batch: With labels.
            labels: How many labels the whole step has; ``None``: not counted.
            divisor: What the gradient is divided by beyond that.

        Returns:
            The loss, a float32 scalar, not divided by ``divisor``.

        Raises:
            Unsupported: The batch cannot be computed; no gradient was added.
        """
        units = self._units(batch)
        by = labels if self._by_labels and labels is not None else units
        collated = self._collated(batch)
        result = self.engine.forward_backward(collated, 1.0 / (by * divisor))
        return result.loss_sum / by

    def _units(self, batch: Padded) -> int:
        if batch.labels is None:
            raise Unsupported("the batch has no labels")
        units = int(self.objective.units(batch.labels).sum())
        if not units:
            raise Unsupported("no example of the batch has a label")
        return units

    def compare_steps(self, inputs: Mapping[str, Any], batch: Padded, loss_of: ModelLoss) -> None:
        """Compares loss and gradient of a batch with the model's own; only the first time.

        Raises:
            Unsupported: They differ.
        """
        if self._by_labels is not None:
            return
        units = self._units(batch)
        with _without_dropout(self.model), _own_gradients(self.model) as gradients:
            with torch.enable_grad():
                expected = loss_of(dict(inputs), _APART * units)
                torch.autograd.backward(expected)
            theirs = gradients()
            collated = self._collated(batch)
            result = self.engine.forward_backward(collated, 1.0 / units)
            ours = gradients()
        if not bool(expected.isfinite()):
            raise Unsupported("the loss of the first batch is not finite")
        loss, found = float(expected.detach()), float(result.loss_sum)
        tolerance = AGREEMENT[self.dtype] * abs(loss) + 1e-7
        by_labels = abs(found / (_APART * units) - loss) <= tolerance
        if not by_labels and abs(found / units - loss) > tolerance:
            raise Unsupported(
                f"on the first batch its loss is {loss:.6g} and the engine's {found / units:.6g}"
            )
        scale = 1.0 / _APART if by_labels else 1.0
        error = sum(
            float((a * scale - b).square().sum()) for a, b in zip(ours, theirs, strict=True)
        )
        size = sum(float(b.square().sum()) for b in theirs)
        if not error**0.5 <= GRADIENT_AGREEMENT[self.dtype] * size**0.5 + 1e-9:
            raise Unsupported(
                "on the first batch its gradient differs from the engine's by "
                f"{(error / max(size, 1e-30)) ** 0.5:.1%}"
            )
        self._by_labels = by_labels

    # --- prediction ----------------------------------------------------------------------

    @property
    def predicts(self) -> bool:
        """Whether predictions were compared, and agree."""
        return self._predicts

    def predict(self, batch: Padded, labels: float | None, *, logits: bool) -> Computed:
        """Loss and logits of a batch in evaluation mode.

        Args:
            batch: With labels or without.
            labels: How many of them the parent counts; ``None``: it does not count.
            logits: Whether they are wanted.

        Raises:
            Unsupported: The batch cannot be computed.
        """
        if batch.labels is None:
            found = self._placed(batch, self.engine.logits(self._collated(batch)))
            return Computed(None, found)
        units = self._units(batch)
        by = labels if self._predicted_by_labels and labels is not None else units
        collated = self._collated(batch)
        if self.head == "next_token" and not logits:
            answers = self.engine.answers(collated)
            return Computed(torch.tensor(float(answers.losses.sum()) / by), None)
        found = self._placed(batch, self.engine.logits(collated))
        loss = self.objective.losses(found, batch.labels).sum() / by
        return Computed(loss, found if logits else None)

    def _placed(self, batch: Padded, logits: Tensor) -> Tensor:
        return logits if self.head == "sequence" else batch.scattered(logits)

    def compare_predictions(
        self, batch: Padded, labels: float | None, loss: Tensor | None, logits: object
    ) -> None:
        """Compares with what the parent says of the same batch.

        Args:
            batch: The batch.
            labels: As for `predict`.
            loss: The parent's; ``None``: it has none.
            logits: The parent's predictions.

        Raises:
            Unsupported: They differ.
        """
        if not isinstance(logits, Tensor):
            raise Unsupported("the model returns more than logits")
        ours = self.predict(batch, labels, logits=True)
        assert ours.logits is not None
        if ours.logits.shape != logits.shape:
            raise Unsupported(
                f"the model's predictions have the shape {tuple(logits.shape)} and the engine's "
                f"{tuple(ours.logits.shape)}"
            )
        real = batch.mask if self.head != "sequence" else slice(None)
        a, b = ours.logits[real], logits[real].float()
        limit = AGREEMENT[self.dtype]
        error = float((a - b).norm() / b.norm().clamp_min(1e-6))
        if not error <= limit:
            raise Unsupported(f"predictions differ from the engine's by {error:.1%}")
        if (loss is None) != (ours.loss is None):
            raise Unsupported("the model computes a loss without labels")
        if loss is not None and ours.loss is not None:
            theirs, found, units = float(loss), float(ours.loss), self._units(batch)
            tolerance = limit * abs(theirs) + 1e-7
            # The parent's count of a causal model's labels may have the first tokens', too.
            counted = found if labels is None else found * units / labels
            self._predicted_by_labels = abs(counted - theirs) <= tolerance
            if not self._predicted_by_labels and not abs(found - theirs) <= tolerance:
                raise Unsupported(
                    f"in evaluation its loss is {theirs:.6g} and the engine's {found:.6g}"
                )
        self._predicts = True


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients; modes and torch's generator are put back."""
    training = [module for module in model.modules() if module.training]
    random = torch.get_rng_state()
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
        torch.set_rng_state(random)


@contextmanager
def _own_gradients(model: nn.Module) -> Iterator[Callable[[], list[Tensor]]]:
    """Takes the gradients away for a moment; what it yields hands over those made since."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    before = [p.grad for p in parameters]

    def taken() -> list[Tensor]:
        found = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in parameters]
        for p in parameters:
            p.grad = None
        return found

    taken()
    try:
        yield taken
    finally:
        for p, grad in zip(parameters, before, strict=True):
            p.grad = grad

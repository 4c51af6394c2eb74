"""`Trainer` and `TrainerMixin`: the parent's loop around our forward and backward pass."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import transformers
from torch import Tensor, nn

from lorafit.engine.base import Engine
from lorafit.engine.support import Unsupported
from lorafit.trainer.packed import Packed
from lorafit.trainer.padded import Padded
from lorafit.trainer.refusals import check_model, check_trainer, state_of

if TYPE_CHECKING:
    _Base = transformers.Trainer
else:
    _Base = object

log = logging.getLogger(__name__)

Predictions = tuple[Tensor | None, Any, Any]
"""Loss, logits and labels, as ``prediction_step`` returns them."""


class TrainerMixin(_Base):
    """Computes the steps of a ``transformers.Trainer`` on lorafit's engines.

    Put it before the Trainer: ``class Fast(lorafit.TrainerMixin, SomeTrainer): ...``. A batch
    that an engine cannot compute, or would compute differently, runs as the parent runs it;
    one line of the log (logger ``lorafit.trainer``) says why.
    """

    skips_compute_loss: ClassVar[bool] = False
    """For a parent whose own ``compute_loss``, ``training_step`` or ``prediction_step`` only
    adds to the model's loss what may be missing, such as the entropy and token accuracy that
    TRL's ``SFTTrainer`` logs: true computes the steps without calling them."""

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        num_items_in_batch: Tensor | int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """One forward and backward pass.

        Returns:
            The loss of the batch, as the parent returns it.
        """
        try:
            loss = self._packed_step(model, inputs, num_items_in_batch)
        except Unsupported as reason:
            self._say("a training step", reason)
            result: Tensor = super().training_step(
                model, inputs, num_items_in_batch, *args, **kwargs
            )
            return result
        return loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Predictions:
        """Loss, logits and labels of one batch in evaluation mode, as the parent returns them.

        Logits of every token are zero at padding.
        """
        theirs: Predictions | None = None
        try:
            packed = self._packed(model, "prediction_step", ignore_keys)
            prepared = self._prepare_inputs(inputs)
            batch = packed.taken_apart(prepared)
            counted = self._labels_counted(prepared)
            if packed.predicts:
                found = packed.predict(batch, counted, logits=not prediction_loss_only)
                if prediction_loss_only:
                    return found.loss, None, None
                return found.loss, found.logits, batch.labels
            theirs = super().prediction_step(model, inputs, False, ignore_keys)
            loss, logits, _ = theirs
            packed.compare_predictions(batch, counted, loss, logits)
        except Unsupported as reason:
            if theirs is not None:
                self._refused["prediction_step"] = str(reason)
            self._say("a prediction", reason)
        if theirs is None:
            theirs = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        return (theirs[0], None, None) if prediction_loss_only else theirs

    # --- how a batch is computed ---------------------------------------------------------

    def _packed_step(
        self, model: nn.Module, inputs: Mapping[str, Any], labels: Tensor | int | None
    ) -> Tensor:
        packed = self._packed(model, "training_step")
        model.train()
        optimizer: Any = self.optimizer
        if callable(getattr(optimizer, "train", None)):
            optimizer.train()
        prepared = self._prepare_inputs(dict(inputs))
        batch = packed.taken_apart(prepared)
        self._compare(packed, prepared, batch)
        counted = None if labels is None else float(labels)
        divided = getattr(self, "loss_is_scaled_for_ga", None)
        if divided is None:
            divided = bool(self.model_accepts_loss_kwargs and labels is not None)
        parts = 1 if divided else self.current_gradient_accumulation_steps
        loss = packed.step(batch, counted, parts * self.accelerator.gradient_accumulation_steps)
        return loss / parts

    def _compare(self, packed: Packed, inputs: Mapping[str, Any], batch: Padded) -> None:
        model: Any = self.model

        def loss_of(given: dict[str, object], labels: int) -> Tensor:
            loss: Any = transformers.Trainer.compute_loss(
                self, model, given, num_items_in_batch=torch.tensor(labels)
            )
            result: Tensor = loss
            return result

        try:
            packed.compare_steps(inputs, batch, loss_of)
        except Unsupported as reason:
            self._refused["training_step"] = str(reason)
            raise

    def _labels_counted(self, inputs: Mapping[str, Any]) -> float | None:
        """The labels of a batch as the parent counts them for its loss in evaluation."""
        # Read at transformers 5.23; where it is missing the mean over the labels is compared.
        counting: Any = getattr(self, "_get_num_items_in_batch", None)
        count = counting([inputs], self.args.device) if counting is not None else None
        return None if count is None else float(count)

    @property
    def lorafit_engine(self) -> Engine | None:
        """The engine of the last step; ``None``: there was none, or the parent computes."""
        packed: Packed | None = self.__dict__.get("_lorafit_packed")
        return None if packed is None else packed.engine

    def _packed(self, model: nn.Module, call: str, ignored: Sequence[str] | None = None) -> Packed:
        """The engine for the model as it is now.

        Raises:
            Unsupported: There is none, or the parent has to compute this call.
        """
        own = self.__dict__
        state = (id(model), state_of(model))
        if own.get("_lorafit_state") != state:
            own["_lorafit_state"] = state
            own["_lorafit_packed"] = None
            own["_lorafit_refused"] = {}
            try:
                own["_lorafit_packed"] = self._chosen(model)
            except Unsupported as reason:
                own["_lorafit_refused"] = dict.fromkeys(
                    ("training_step", "prediction_step"), str(reason)
                )
        if "logits" in (ignored or ()):
            raise Unsupported("the logits are to be ignored")
        if call in self._refused:
            raise Unsupported(self._refused[call])
        self._check_parent(call)
        packed: Packed = own["_lorafit_packed"]
        return packed

    def _chosen(self, model: nn.Module) -> Packed:
        check_trainer(self, model)
        check_model(model)
        return Packed(model, bf16=self.accelerator.mixed_precision == "bf16")

    def _check_parent(self, call: str) -> None:
        """Refuses to pass by a step that another class above us has changed."""
        order = type(self).__mro__
        after = order[order.index(TrainerMixin) + 1 :]
        owner = next(one for one in after if call in vars(one))
        if owner is not transformers.Trainer and not self.skips_compute_loss:
            raise Unsupported(f"{owner.__name__} has a {call} of its own")

    @property
    def _refused(self) -> dict[str, str]:
        refused: dict[str, str] = self.__dict__.setdefault("_lorafit_refused", {})
        return refused

    def _say(self, what: str, reason: Unsupported) -> None:
        said: set[str] = self.__dict__.setdefault("_lorafit_said", set())
        if str(reason) not in said:
            said.add(str(reason))
            log.warning("%s runs as transformers' Trainer computes it: %s", what, reason)


class Trainer(TrainerMixin, transformers.Trainer):
    """``transformers.Trainer`` whose training steps and predictions run on lorafit's engines.

    Takes what the parent takes: a transformers model, trained whole, or with PEFT's own
    adapters (``from peft import get_peft_model``) or `lorafit.peft`'s. Same loop, arguments,
    callbacks, logs, checkpoints and metrics. On the CPU, without padding; a step that the
    engines cannot compute runs as the parent runs it, and one line of the log says why.
    """

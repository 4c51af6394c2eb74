"""From a language model's last hidden states to its logits, some tokens at a time.

Logits of every token and word of a batch are its largest matrix by far: 4,096 tokens of 250,000
words are 4 GB in float32, and their gradient is as large. What turns hidden states into logits is
the model's own code behind its body: a product with the output embeddings, which may be trained or
adapted, and perhaps a factor (Granite, Cohere), a soft cap (Gemma) or a bias (BART). So the body is
computed once, and then the model is called with given hidden states in the body's place, some
tokens at a time. Whether that gives the model's logits is tried before it is relied on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lorafit.engine.autograd import apply
from lorafit.engine.lm_loss import IGNORED
from lorafit.model.modes import evaluating
from lorafit.model.sites import output_embeddings
from lorafit.tasks.base import Task

_TRIED = 8
"""Tokens on which it is tried."""
_AGREEMENT = {torch.float32: 1e-4, torch.float64: 1e-8}
_COARSE = 2e-2
"""The same in formats of 16 bits."""
_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError)


SHIFTS = {"next_token": 1, "target": 0}
"""Positions between the logits that predict a label and the label, by what is learned."""


class _Reached(Exception):
    """The output embeddings are about to be multiplied by."""


class _Output(Protocol):
    """What a part of a model returns."""

    last_hidden_state: Tensor


class OwnHead:
    """What a model does behind its body, apart from it.

    Args:
        model: A language model, adapted or not.
        shift: Positions between the logits that predict a label and the label.
    """

    at_once: ClassVar[int] = 1 << 24
    """Logits that are alive at a time (64 MB in float32); as many or fewer are computed whole."""

    def __init__(self, model: nn.Module, shift: int) -> None:
        self.model = model
        self.shift = shift
        self._works: bool | None = None
        self._outputs: dict[str, _Output] = {}
        self._body = ""

    @classmethod
    def of(cls, model: nn.Module, task: Task) -> OwnHead | None:
        """That of a task whose labels are tokens; ``None``: they are not."""
        shift = SHIFTS.get(task.supervision)
        return None if shift is None else cls(model, shift)

    # Whether it is used ---------------------------------------------------------------------

    def wanted(self, inputs: Mapping[str, Tensor], labels: Tensor) -> bool:
        """Whether the logits of a batch are too many at once, and can be had in parts."""
        if labels.numel() * self._words() <= self.at_once:
            return False
        if self._works is None:
            self._works = self._agrees(inputs)
        return self._works

    def _agrees(self, inputs: Mapping[str, Tensor]) -> bool:
        """Whether it gives the model's logits of the first few tokens."""
        first = {name: x[:1, :_TRIED] if x.ndim > 1 else x[:1] for name, x in inputs.items()}
        try:
            with evaluating(self.model):
                whole: Tensor = cast(Any, self.model)(**first).logits
                hidden = self.hidden(first, whole.shape[1])
                found = self.logits(hidden.flatten(0, 1), first)
        except _ERRORS:
            return False
        expected = whole.flatten(0, 1)
        if expected.shape != found.shape:
            return False
        near = _AGREEMENT.get(hidden.dtype, _COARSE) * max(float(expected.abs().max()), 1e-3)
        return bool((expected - found).abs().max() <= near)

    # Its two halves -------------------------------------------------------------------------

    def hidden(self, inputs: Mapping[str, Tensor], length: int) -> Tensor:
        """The body's last hidden states ``(n, length, width)``; what a prompt adds is left out."""
        head = output_embeddings(self.model)
        parts = self._parts()
        if head is None or not parts:
            raise ValueError("the model has no body apart from its output embeddings")
        outputs: dict[str, _Output] = {}

        def stop(_module: nn.Module, _args: Any) -> None:
            raise _Reached

        def noting(name: str) -> Callable[..., None]:
            def note(_module: nn.Module, _args: Any, output: Any) -> None:
                outputs.pop(name, None)
                outputs[name] = output

            return note

        hooks = [head.register_forward_pre_hook(stop)]
        hooks += [part.register_forward_hook(noting(name)) for name, part in parts.items()]
        try:
            self.model(**inputs)
        except _Reached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        self._body = next(reversed(outputs))
        states: Tensor = outputs[self._body].last_hidden_state
        self._outputs = {name: _without_graph(output) for name, output in outputs.items()}
        return states[:, states.shape[1] - length :]

    def logits(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Hidden states ``(tokens, width)`` to logits ``(tokens, words)``, after `hidden`."""
        # A row a token: a soft prompt cuts its positions off the second dimension.
        first = {name: x[:1, :1] if x.ndim > 1 else x[:1] for name, x in inputs.items()}
        with self._given(hidden[:, None]):
            found: Tensor = cast(Any, self.model)(**first).logits
        return found[:, 0]

    def _parts(self) -> dict[str, nn.Module]:
        """The body, or an encoder and a decoder."""
        return {
            name: part
            for name, part in self.model.named_children()
            if isinstance(part, PreTrainedModel)
        }

    @contextmanager
    def _given(self, hidden: Tensor) -> Iterator[None]:
        """The parts of the model return what they returned, the body given hidden states."""
        outputs = self._outputs | {self._body: _with(self._outputs[self._body], hidden)}
        own = {name: self.model.get_submodule(name) for name in outputs}
        try:
            for name, output in outputs.items():
                setattr(self.model, name, _Given(own[name], output))
            yield
        finally:
            for name, part in own.items():
                setattr(self.model, name, part)

    # What is asked of it --------------------------------------------------------------------

    def loss(self, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, int]:
        """Summed loss of a batch in nats, and over how many labels.

        The gradient of each part's logits is made at once, and is gone before the next.

        Args:
            inputs: The model's arguments.
            labels: ``(n, length)``; -100: not learned.
        """
        chosen, targets = self._labelled(inputs, labels)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        step = max(1, self.at_once // self._words())

        def logits(part: Tensor) -> Tensor:
            return self.logits(part, inputs)

        total = apply(_Loss, chosen, targets, logits, step, *trained)
        self._outputs = {}
        return total, len(targets)

    @torch.no_grad()
    def token_losses(self, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each label in nats, and whether the likeliest token is it, without gradients."""
        chosen, targets = self._labelled(inputs, labels)
        losses = torch.zeros(len(chosen), device=chosen.device)
        right = torch.zeros(len(chosen), dtype=torch.bool, device=chosen.device)
        for at in _slices(len(chosen), max(1, self.at_once // self._words())):
            logits = self.logits(chosen[at], inputs).float()
            losses[at] = F.cross_entropy(logits, targets[at], reduction="none")
            right[at] = logits.argmax(dim=-1) == targets[at]
        self._outputs = {}
        return losses, right

    def _words(self) -> int:
        config: Any = self.model.config
        return int(config.get_text_config(decoder=True).vocab_size)

    def _labelled(self, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """States that have a token to predict ``(tokens, width)``, and these tokens."""
        hidden = self.hidden(inputs, labels.shape[1])
        labels = labels[:, self.shift :]
        wanted = labels != IGNORED
        return hidden[:, : labels.shape[1]][wanted], labels[wanted]


class _Given(nn.Module):
    """Stands where a part of a model stood and returns what is given.

    What else is asked of it (its settings, its embeddings) the part answers.
    """

    def __init__(self, part: nn.Module, output: Any) -> None:
        super().__init__()
        self._instead = (part,)  # not a submodule
        self._output = output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_instead"][0], name)

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        """The output, whatever the input."""
        return self._output


class _Loss(torch.autograd.Function):
    """Summed loss of hidden states, with their gradient and that of what the head trains."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        logits: Callable[[Tensor], Tensor],
        step: int,
        *trained: Tensor,
    ) -> Tensor:
        """Makes the gradients on the way, of ``step`` tokens at a time."""
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad = torch.zeros_like(hidden)
        grads: list[Tensor | None] = [None] * len(trained)
        for at in _slices(len(hidden), step):
            part = hidden[at].detach().requires_grad_()
            with torch.enable_grad():
                loss = F.cross_entropy(logits(part).float(), targets[at], reduction="sum")
            with torch.autocast(hidden.device.type, enabled=False):
                own, *others = torch.autograd.grad(loss, [part, *trained], allow_unused=True)
            grad[at] = own
            for number, other in enumerate(others):
                if other is not None:
                    before = grads[number]
                    grads[number] = other if before is None else before + other
            total += loss.detach()
        ctx.gradients = (grad, *grads)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Scales the gradients that were made."""
        found = [None if one is None else one * grads[0].to(one.dtype) for one in ctx.gradients]
        return (found[0], None, None, None, *found[1:])


def _slices(count: int, step: int) -> Iterator[slice]:
    yield from (slice(at, at + step) for at in range(0, count, step))


def _with(output: Any, hidden: Tensor) -> Any:
    """The output of a body with other hidden states."""
    return type(output)(**{**output, "last_hidden_state": hidden})


def _without_graph(output: Any) -> Any:
    """What of a part's output the rest of the model reads, on its own."""
    return type(output)(last_hidden_state=output.last_hidden_state.detach())

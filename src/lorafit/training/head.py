"""A new head begins as the best linear layer on what the model says before any training.

A head that is drawn at random spends a good part of a short training on what the untrained model
knows already, and what it sends back meanwhile bends the features (linear probing, then
fine-tuning: Kumar et al. 2022, https://arxiv.org/abs/2202.10054). So the model reads some of the
training examples once, and the last layer of the head is solved for on what reaches it, by the
task's own loss. How strongly its weights are held back is chosen on the validation examples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn

from lorafit.config import Config
from lorafit.data.batches import evaluation_order, fetch, lengths
from lorafit.engine.base import Batch
from lorafit.engine.halving import Halving
from lorafit.evidence import Choice
from lorafit.evidence.measurements import Evidence
from lorafit.training.learner import Learner
from lorafit.training.steps import StepPlan

SHARE = 0.1
"""Of a plain run's operations: what reading the examples may cost."""
LEAST = 256
"""Examples that are read, however short the run is."""
MOST = 1 << 15
"""Tokens that are read where each of them is answered."""
EACH = 2
"""Examples for each number that the layer answers with, or it is left as it is."""
SOLVING = 0.02
"""Of a plain run's operations: what solving may cost."""
HELD_BACK = tuple(0.25**power for power in range(-2, 6))
"""Weight decays, of the loss of a layer that answers the same always: strong ones first."""
DROPPED = 0.1
"""Share of its inputs that a head's dropout usually leaves out: the least noise to reckon with."""
DRAWS = 8
"""Directions in which the loss is looked at for how sharply it bends."""
ITERATIONS = 25
"""Of L-BFGS, for each weight decay; each goes on from the one before."""
PASSES = 100
"""Passes over the features that solving takes, about."""


@dataclass(frozen=True)
class HeadStart:
    """How a head began.

    Attributes:
        weights: The layer's parameters by their names among the trainable ones; empty: it stays
            as it is.
        reason: Why it is so, in one plain sentence.
        loss_before: Of the head as it was, on the validation examples, nats a unit.
        loss: Of the solved one; infinite where nothing was solved.
        examples: Training examples that it was solved on.
        tokens: That were read, forward only.
        time_s: Seconds.
    """

    weights: Mapping[str, Tensor]
    reason: str
    loss_before: float = float("nan")
    loss: float = float("inf")
    examples: int = 0
    tokens: int = 0
    time_s: float = 0.0

    @property
    def choice(self) -> Choice:
        """What ``choices.json`` has of it."""
        measured = {"loss_before": self.loss_before, "loss": self.loss}
        evidence: Evidence = {"examples": self.examples}
        if all(map(math.isfinite, measured.values())):
            evidence |= {"loss_before": self.loss_before, "loss": self.loss}
        return Choice("probe" if self.weights else "random", self.reason, evidence)


@dataclass(frozen=True)
class _Features:
    """What reaches the layer, and what it should answer, in batches of one shape each.

    Attributes:
        inputs: ``(n, d)``, or ``(n, length, d)`` where every token is answered.
        labels: As the task collates them.
        loss: Of the layer as it is, summed, and its units.
    """

    inputs: list[Tensor]
    labels: list[Tensor]
    loss: float
    units: int


class NoLayerError(Exception):
    """The logits are not the answers of one linear layer."""


def wanted(learner: Learner, config: Config, new: Sequence[str]) -> bool:
    """Whether a head is to begin so: it is new, and the task has one.

    Args:
        learner: What will be trained.
        config: Of the run.
        new: Paths of the modules that are new.
    """
    return (
        config.model.head_init == "probe"
        and learner.task.supervision in ("example", "token")
        and bool(_layers(learner, new))
    )


def reading(
    train: Dataset, validation: Dataset, config: Config, each: bool = False
) -> tuple[list[int], list[int]]:
    """The examples to read, of the training and of the validation split: drawn by the seed.

    Args:
        train: Encoded.
        validation: Encoded.
        config: Of the run; its steps say what reading may cost.
        each: Whether every token is answered, so that there is more to keep of an example.
    """
    plan, sizes = StepPlan(train, config), np.asarray(lengths(train))
    trained = plan.total_steps / plan.steps_per_epoch * float(sizes.sum())
    order = np.random.default_rng([config.seed, 7]).permutation(len(sizes))
    # A frozen model takes 4 operations for a parameter and token trained, and 2 for one read.
    most = min(2 * SHARE * trained, MOST if each else np.inf)
    paid = int((np.cumsum(sizes[order]) <= most).sum())
    rows = order[: max(LEAST, paid)].tolist()
    held = np.random.default_rng([config.seed, 8]).permutation(len(validation))
    return rows, held[: max(LEAST, len(rows) // 2)].tolist()


def tokens_read(learner: Learner, config: Config, new: Sequence[str]) -> int:
    """Tokens that the model reads for its head, once; 0 where that is left as it is drawn."""
    if not wanted(learner, config, new):
        return 0
    splits = (learner.train, learner.validation)
    chosen = reading(*splits, config, learner.task.supervision == "token")
    sizes = [lengths(split) for split in splits]
    return sum(own[i] for own, rows in zip(sizes, chosen, strict=True) for i in rows)


def begin(learner: Learner, config: Config, new: Sequence[str]) -> HeadStart:
    """Solves for the last layer of the head and puts it in its place, if it is better.

    Args:
        learner: With the head as it was drawn. Neither its generators nor other weights change.
        config: Of the run.
        new: Paths of the modules that are new.
    """
    began = time.perf_counter()
    each = learner.task.supervision == "token"
    rows, held = reading(learner.train, learner.validation, config, each)
    batch = config.train.per_device_eval_batch_size
    found = learner.train.select(rows), learner.validation.select(held)
    tokens = sum(sum(lengths(split)) for split in found)
    start = HeadStart({}, "", examples=len(rows), tokens=tokens)
    try:
        layer, train = _read(learner, found[0], batch, _layers(learner, new))
        _, validation = _read(learner, found[1], batch, {"": layer})
        start = replace(start, loss_before=validation.loss / validation.units)
        train = _bounded(train, layer, learner, config)
    except NoLayerError as error:
        return replace(start, reason=str(error), time_s=time.perf_counter() - began)
    solved, loss = _solve(layer, train, validation, learner)
    start = replace(start, loss=loss, time_s=time.perf_counter() - began)
    solved_layer = f"the best linear layer on the base model's features of {len(rows):,} examples"
    if not loss < start.loss_before:
        told = f"validation loss {start.loss_before:.4f} before any training"
        return replace(start, reason=f"{told}; {solved_layer} has {loss:.4f}")
    names = {id(parameter): name for name, parameter in learner.trainable.items()}
    weights = {
        names[id(parameter)]: value.to(parameter.dtype)
        for parameter, value in zip(layer.parameters(), solved, strict=True)
    }
    put(learner.trainable, weights)
    told = f"validation loss {loss:.4f} before any training, {start.loss_before:.4f} if random"
    return replace(start, weights=weights, reason=f"{solved_layer}: {told}")


def put(trainable: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    """Puts a solved layer into parameters of these names."""
    with torch.no_grad():
        for name, value in weights.items():
            trainable[name].copy_(value)


def _layers(learner: Learner, new: Sequence[str]) -> dict[str, nn.Linear]:
    """The linear layers of new modules that are trained whole, by path."""
    own = {id(parameter) for parameter in learner.trainable.values()}
    inside = tuple(f"{path}." for path in new)
    return {
        path: module
        for path, module in learner.model.named_modules()
        if f"{path}.".startswith(inside)
        and type(module) is nn.Linear
        and all(id(parameter) in own for parameter in module.parameters())
    }


@contextmanager
def _watching(
    layers: Mapping[str, nn.Linear],
) -> Iterator[list[tuple[nn.Linear, Tensor, Tensor]]]:
    """While open, the calls of these layers are kept: layer, input, output."""
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def note(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        calls.append((module, args[0].detach(), output.detach()))

    handles = [layer.register_forward_hook(note) for layer in layers.values()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _read(
    learner: Learner, split: Dataset, size: int, layers: Mapping[str, nn.Linear]
) -> tuple[nn.Linear, _Features]:
    """Has the model read a split; the layer whose answers the logits are, and what reaches it.

    Raises:
        NoLayerError: There is none.
    """
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    loss, units = 0.0, 0
    found: list[nn.Linear] = []

    def read(indices: list[int]) -> tuple[nn.Linear, Tensor, Tensor, float, int]:
        rows = fetch(split, indices)
        batch = learner.engine.collate(rows)
        with _watching(layers) as calls:
            logits = learner.engine.logits(batch)
        layer, features = _last(calls, logits, [len(row["input_ids"]) for row in rows])
        answers = torch.as_tensor(batch["labels"])
        loss = float(learner.task.losses(logits.float(), answers).sum())
        return layer, features.float().cpu(), answers.cpu(), loss, _units(learner, batch)

    halving = Halving()
    for indices in evaluation_order(lengths(split), size).batches:
        for _, (layer, features, answers, said, counted) in halving.of(indices, read):
            loss, units = loss + said, units + counted
            found.append(layer)
            inputs.append(features)
            labels.append(answers)
    if inputs[0].ndim == 2:
        inputs, labels = [torch.cat(inputs)], [torch.cat(labels)]
    return found[-1], _Features(inputs, labels, loss, units)


def _units(learner: Learner, batch: Batch) -> int:
    return int(learner.task.units(torch.as_tensor(batch["labels"])).sum())


def _last(
    calls: Sequence[tuple[nn.Linear, Tensor, Tensor]], logits: Tensor, counts: Sequence[int]
) -> tuple[nn.Linear, Tensor]:
    """The call whose answers are the logits, and its input in their order.

    Args:
        calls: Layer, input and output of each.
        logits: ``(n, c)`` or ``(n, length, c)``.
        counts: Tokens of each example.

    Raises:
        NoLayerError: There is none.
    """
    for layer, given, said in reversed(calls):
        if said.shape[-1] != logits.shape[-1]:
            continue
        aligned = _aligned(given, said.float(), logits.float(), counts)
        if aligned is not None:
            return layer, aligned
    raise NoLayerError("the head stays as it is: its answers are not those of one linear layer")


def _aligned(given: Tensor, said: Tensor, logits: Tensor, counts: Sequence[int]) -> Tensor | None:
    """What stood in for each logit, where a layer's answers are the logits; ``None``: nowhere."""
    n = len(counts)
    if said.ndim == 3 and len(said) == n and said.shape[1] == 1:
        given, said = given[:, 0], said[:, 0]
    if said.shape == logits.shape:
        return given if torch.equal(said, logits) else None
    if said.ndim == 2 and len(said) >= sum(counts):  # packed, token after token
        pad = nn.utils.rnn.pad_sequence
        given = pad(list(torch.split(given[: sum(counts)], list(counts))), batch_first=True)
        said = pad(list(torch.split(said[: sum(counts)], list(counts))), batch_first=True)
        if said.shape == logits.shape:
            return given if torch.equal(said, logits) else None
    if said.ndim == 3 and logits.ndim == 2 and len(said) == n:  # one token speaks for the text
        same = (said == logits[:, None]).all(dim=-1)
        if bool(same.any(dim=1).all()):
            return given[torch.arange(n), same.float().argmax(dim=1)]
    return None


def _bounded(features: _Features, layer: nn.Linear, learner: Learner, config: Config) -> _Features:
    """As many of the features as can be solved on.

    Raises:
        NoLayerError: Those are too few.
    """
    plan = StepPlan(learner.train, config)
    trained = plan.total_steps / plan.steps_per_epoch * sum(lengths(learner.train))
    parameters = sum(p.numel() for p in learner.model.parameters())
    paid = SOLVING * 4 * parameters * trained / (6 * layer.weight.numel() * PASSES)
    kept, places = 0, 0
    for inputs in features.inputs:
        if places >= max(paid, LEAST) and kept:
            break
        places, kept = places + inputs.shape[:-1].numel(), kept + 1
    if len(features.inputs) == 1 and places > max(paid, LEAST):
        places = int(max(paid, LEAST))  # evenly, for they are sorted by their length
        chosen = torch.linspace(0, len(features.inputs[0]) - 1, places).long()
        inputs, labels = features.inputs[0][chosen], features.labels[0][chosen]
        features = _Features([inputs], [labels], features.loss, features.units)
    if places < EACH * layer.out_features:
        raise NoLayerError(
            f"the head stays as it is: {places:,} examples are too few, or too many are too dear, "
            f"to solve for {layer.out_features:,} answers"
        )
    return _Features(features.inputs[:kept], features.labels[:kept], features.loss, features.units)


def _solve(
    layer: nn.Linear, train: _Features, validation: _Features, learner: Learner
) -> tuple[list[Tensor], float]:
    """The layer's weights (and bias) with the lowest validation loss, and that loss."""
    flat = torch.cat([x.reshape(-1, x.shape[-1]) for x in train.inputs])
    mean, size = flat.mean(dim=0), flat.square().mean(dim=0).sqrt()
    size = torch.where(size > 1e-6 * size.max(), size, 1.0)
    W = torch.zeros(layer.out_features, layer.in_features, requires_grad=True)
    b = torch.zeros(layer.out_features, requires_grad=layer.bias is not None)
    if layer.bias is None:
        mean = torch.zeros_like(mean)
    task = learner.task
    counted = [int(task.units(labels).sum()) for labels in train.labels]

    def loss_of(features: _Features) -> Tensor:
        parts = [
            task.losses(nn.functional.linear((x - mean) / size, W, b), labels).sum()
            for x, labels in zip(features.inputs, features.labels, strict=True)
        ]
        return torch.stack(parts).sum()

    with torch.no_grad():
        scale = float(loss_of(train)) / sum(counted)
        # What dropout adds to the loss, to second order, of weights in units of their inputs' size.
        bend = _bend(lambda: float(loss_of(train)) / sum(counted), b, 0.1 * math.sqrt(scale))
        noise = DROPPED / (1 - DROPPED) * bend
    best: tuple[float, list[Tensor]] = (float("inf"), [])
    for decay in _decays(scale, noise):
        optimizer = torch.optim.LBFGS(
            [p for p in (W, b) if p.requires_grad],
            max_iter=ITERATIONS,
            line_search_fn="strong_wolfe",
        )

        def objective(decay: float = decay, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            value = loss_of(train) / sum(counted) + decay * W.square().sum() / 2
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(objective)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            held = float(loss_of(validation)) / max(validation.units, 1)
            if not held < best[0]:
                break
            weight = W / size
            bias = [b - weight @ mean] if layer.bias is not None else []
            best = (held, [weight.clone(), *bias])
    return best[1], best[0]


def _decays(scale: float, noise: float) -> list[float]:
    """Weight decays from strong to weak, none below what dropout comes to."""
    wanted = [share * scale for share in HELD_BACK]
    return [decay for decay in wanted if decay > noise] + [noise] * (min(wanted) <= noise)


def _bend(mean_loss: Callable[[], float], b: Tensor, apart: float) -> float:
    """The mean second derivative of the loss by an answer, where all answers are ``b``.

    Hutchinson's estimate of the trace: differences along random signs.

    Args:
        mean_loss: At the ``b`` of the moment.
        b: ``(c,)``; comes back as it is.
        apart: Distance of the points that are looked at.
    """
    start, generator = b.clone(), torch.Generator().manual_seed(0)
    middle, bent = mean_loss(), 0.0
    for _ in range(DRAWS):
        signs = torch.randint(0, 2, b.shape, generator=generator) * 2.0 - 1.0
        for side in (signs, -signs):
            b.copy_(start + apart * side)
            bent += (mean_loss() - middle) / (apart**2 * DRAWS * len(b))
    b.copy_(start)
    return max(bent, 0.0)

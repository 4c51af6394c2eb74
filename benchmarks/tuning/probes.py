"""What a search might do otherwise, measured in one training of a pair that it would make itself.

    python -m benchmarks.tuning.probes --pair many --seeds 0 1 [--data FOLDER] [--cuts] --out FILE

Three questions, a line of JSON for every pair and seed:

averages
    Every rate that was tried goes on to where the finalists end and decays there, as theirs do.
    Beside the loss after the decay: that of the state as it is, and of the mean of the factors over
    the last steps at the constant rate, which costs an evaluation only.
late
    The mean of the factors over the last tenth and fifth of the steps, beside the best late state.
cuts
    The trained adapter at rank 1, 2, 4, 8: as the search cuts it, by the energy of the outputs, and
    by what the loss makes of them (`weights`).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tuning.pairs import PAIRS, Pair
from benchmarks.tuning.trial import measured
from lorafit import pipeline
from lorafit.data.batches import fetch
from lorafit.engine.eager import EagerEngine
from lorafit.methods.lora import LoraLinear
from lorafit.model.modes import evaluating
from lorafit.pipeline.job import Job
from lorafit.settings import from_keywords, resolve
from lorafit.training.progress import QuietProgress
from lorafit.tune import search
from lorafit.tune.bench.bench import Bench, Scored, Trained, spread
from lorafit.tune.bench.journal import Entry, Journal
from lorafit.tune.bench.state import State
from lorafit.tune.bench.truncation import pairs
from lorafit.tune.decide import gain
from lorafit.tune.rise import rates, strategy
from lorafit.tune.rise.trunk import BRANCH, Trunk, advance, begun, branch

SHARES = (0.1, 0.2)
"""Of the steps at the end, over which the factors are averaged."""
EXAMPLES, BATCH = 128, 32
"""Training examples whose gradients weigh the directions, and how many at a time."""
DAMPING = 0.05
"""Share of the present weights in the others: gradients of few examples are noise."""


class Mean:
    """The mean of weights over steps."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, weights: dict[str, Tensor]) -> None:
        """Counts the weights of one more step."""
        self.count += 1
        for name, weight in weights.items():
            self._sums[name] = self._sums.get(name, 0.0) + weight.double()

    def of(self, state: State) -> State:
        """The state with the means for weights."""
        means = {f"weight/{name}": total / self.count for name, total in self._sums.items()}
        changed = {name: mean.to(state.tensors[name]) for name, mean in means.items()}
        return replace(state, tensors=state.tensors | changed)


class Keeping(Journal):
    """A journal that lets go of nothing."""

    def forget(self, entry: Entry) -> None:
        """The states are still looked at."""


class Probed(Bench):
    """A bench that averages the weights of each training on its way.

    Attributes:
        means: By training, over its second half and over all of it.
        late: By share of the steps at the end of the run.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        journal = Keeping(None)
        journal.begin(self.budget)
        self.journal = journal
        self.means: dict[str, tuple[Mean, Mean]] = {}
        self.late = {share: Mean() for share in SHARES}

    def train(
        self,
        name: str,
        phase: str,
        state: State,
        until: int,
        rate: Callable[[int], float],
        **about: Any,
    ) -> Trained:
        half, whole = self.means.setdefault(name, (Mean(), Mean()))
        seen = state.step

        # The schedule asks for the rate of the next step when a step is done.
        def watched(step: int) -> float:
            nonlocal seen
            if step > seen:
                seen = step
                weights = {n: p.detach() for n, p in self.tunable.trainable().items()}
                whole.add(weights)
                if step > (state.step + until) / 2:
                    half.add(weights)
                for share, mean in self.late.items():
                    if phase == "trunk" and step > (1 - share) * self.total_steps:
                        mean.add(weights)
            return rate(step)

        return super().train(name, phase, state, until, watched, **about)


def probe(pair: Pair, model: str, data: Any, seed: int, with_cuts: bool) -> dict[str, Any]:
    """One training of a pair with all questions; JSON values."""
    common = {name: value for name, value in pair.settings.items() if name != "eval_steps"}
    given = {"model.name_or_path": model, "data.path": "(passed beside)", "seed": seed}
    settings = resolve(from_keywords(given | common))
    problem = pipeline.pose(data, settings.config)
    subject = pipeline.prepare(problem, settings.config)
    job = Job(problem, subject, settings)
    wish = search.wanted(job)
    assert wish is not None
    bench = Probed(job, wish.names, wish.budget, QuietProgress())
    bench.tunable.begin_with(16, strategy.SCALING)
    start = bench.start()
    untuned = bench.score("untuned", "start", start)
    found = rates.choose(bench, start)
    facts: dict[str, Any] = {"seed": seed, "learning_rate": found.choice.value}
    bench.budget = math.inf
    facts["averages"] = averages(bench, start, found)
    trunk = begun(bench, found.state, found.choice.value, found.trunk)
    for point in range(bench.late_from + 1, bench.total_steps + 1):
        if bench.plan.evaluates(point):
            advance(bench, trunk, point)
            trunk.judge(trunk.state, bench.score(f"late-{point}", "decay", trunk.state))
    assert trunk.best is not None
    whole = trunk.best.scored
    facts["gained"] = gain(untuned.losses, whole.losses).mean

    def tested(state: State) -> Any:
        bench.tunable.load(state)
        return measured(pair, subject, problem, settings.config.train.per_device_eval_batch_size)

    facts["best"] = tested(trunk.best.state) | {"step": trunk.best.state.step}
    facts["late"] = {str(share): tested(mean.of(trunk.state)) for share, mean in bench.late.items()}
    if with_cuts:
        facts["cuts"] = cuts(bench, trunk, whole)
    return facts


def averages(bench: Probed, start: State, found: rates.Rate) -> list[dict[str, Any]]:
    """Of each rate: loss as it is, of the means, after a decay; paired gains over the first."""
    tried = [line for line in found.choice.evidence["tried"] if not line.get("decayed")]
    short, reached = tried[0]["steps"], found.choice.evidence["best_after"]["steps"]
    long = reached - bench.steps(BRANCH)
    lines: list[dict[str, Any]] = []
    scored: list[dict[str, Scored]] = []
    for line in tried:
        rate = line["learning_rate"]
        level = rates.warmed(rate, rates.warmup(bench, short))
        piece = bench.train(f"lr-{rate:.3g}-{short}", "learning rate", start, short, level)
        if piece.state is None:
            continue
        name = f"lr-{rate:.3g}-{long}"
        piece = bench.train(name, "learning rate", piece.state, long, level)
        if piece.state is None:
            continue
        _, decayed = branch(bench, f"lr-{rate:.3g}-decayed", "learning rate", piece.state, rate)
        if decayed is None:
            continue
        half, whole = bench.means[name]
        ways = {"as it is": piece.state, "half": half.of(piece.state), "all": whole.of(piece.state)}
        scored.append(
            {way: bench.score(f"{name}-{way}", "probe", state) for way, state in ways.items()}
            | {"decayed": decayed}
        )
        lines.append(
            {
                "learning_rate": rate,
                "prequential": line["loss"],
                "loss": {way: one.nll for way, one in scored[-1].items()},
                "over_first": {
                    way: gain(scored[0][way].losses, one.losses).to_dict()
                    for way, one in scored[-1].items()
                }
                if len(scored) > 1
                else {},
            }
        )
    return lines


# Cuts


def cuts(bench: Probed, trunk: Trunk, whole: Scored) -> dict[str, Any]:
    """By way of weighing and rank: the paired gain over the whole adapter, at its temperature."""
    assert trunk.best is not None
    state, share = trunk.best.state, bench.scale_share
    ways = weights(bench, state)
    wide = bench.score_made("probe-whole", "probe", lambda: state, share, whole.sharpness)
    return {
        way: {
            str(r): gain(
                wide.losses,
                bench.score_made(
                    f"probe-{way}-{r}",
                    "probe",
                    partial(cut, bench, state, found, r),
                    share,
                    whole.sharpness,
                ).losses,
            ).to_dict()
            for r in (1, 2, 4, 8)
        }
        for way, found in ways.items()
    }


Weights = dict[str, tuple[Tensor, Tensor]]
"""By path: of the outputs of ``A`` and of the gradients there, both ``(r, r)``."""


def weights(bench: Bench, state: State) -> dict[str, Weights]:
    """The ways to weigh an update's directions.

    With ``z = A x`` and ``g`` the gradient of the loss by ``z``, ``g = B^T dL/dy``, a projection
    ``T`` of ``z`` changes the loss by ``g^T (T - 1) z`` for a token. The mean square of that is
    what is made small, ``tr(M (1 - T) G (1 - T)^T)`` where the weights are a Kronecker product.

    outputs
        ``M = B^T B, G = E[z z^T]``: the energy of the outputs, the present cut.
    kfac
        ``M = E[g g^T]``, as if gradients and inputs were independent (Martens and Grosse 2015,
        arXiv 1503.05671).
    examples
        The same of the sums ``D = sum g z^T`` over an example, for few of its tokens may have
        gradients: ``M = E[D D^T], G = E[D^T D]``.
    mixed
        The mean of ``outputs`` and ``kfac``, each with trace 1.

    The labels are drawn from the model's answers: then the mean square of the gradient is the
    curvature of the loss (Fisher's information).
    """
    bench.tunable.load(state)
    task, model = bench.task, bench.subject.model
    engine = EagerEngine(model, task, bench.subject.tokenizer)
    adapters = bench.tunable.adapters
    layers = {
        site.path: layer
        for site in adapters.sites["default"]
        if isinstance(layer := adapters.model.get_submodule(site.path), LoraLinear)
    }
    sums: dict[str, Weights] = {way: {} for way in ("outputs", "kfac", "examples")}
    draw = torch.Generator().manual_seed(0)
    rows = spread(len(bench.train_set), min(1.0, EXAMPLES / len(bench.train_set)))
    for first in range(0, len(rows), BATCH):
        batch = engine.collate(fetch(bench.train_set, rows[first : first + BATCH]))
        with evaluating_with_gradients(model), seen(layers) as passed:
            logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
            drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=draw)[:, 0]
            task.losses(logits, drawn).sum().backward()
        for path, (x, dy) in passed.items():
            A, B = (factor.detach() for factor in layers[path].factors("default"))
            z, g = (x @ A.T).double(), (dy @ B).double()
            if z.dim() == 2:  # of the pooled token
                z, g, real = z[:, None], g[:, None], torch.ones(len(z), 1, dtype=torch.bool)
            else:
                real = batch["attention_mask"].bool()
            D = torch.einsum("bti,btj->bij", g, z)
            z, g, B = z[real], g[real], B.double()
            for way, G, M in (
                ("outputs", z.T @ z, B.T @ B * len(z)),
                ("kfac", z.T @ z, g.T @ g),
                ("examples", (D.mT @ D).sum(0), (D @ D.mT).sum(0)),
            ):
                before = sums[way].get(path, (0.0, 0.0))
                sums[way][path] = (before[0] + G, before[1] + M)
    model.zero_grad(set_to_none=True)
    plain = sums["outputs"]
    shares = {"outputs": ("outputs", 1.0), "mixed": ("kfac", 0.5)}
    shares |= {way: (way, DAMPING) for way in ("kfac", "examples")}
    return {
        way: {
            path: (damped(G, plain[path][0], share), damped(M, plain[path][1], share))
            for path, (G, M) in sums[source].items()
        }
        for way, (source, share) in shares.items()
    }


def damped(moment: Tensor, plain: Tensor, share: float) -> Tensor:
    """A moment with a share of another one, both with trace 1."""
    return (1 - share) * moment / moment.trace() + share * plain / plain.trace()


@contextmanager
def evaluating_with_gradients(model: torch.nn.Module) -> Iterator[None]:
    """No dropout, but gradients."""
    with evaluating(model), torch.enable_grad():
        yield


@contextmanager
def seen(layers: dict[str, LoraLinear]) -> Iterator[dict[str, list[Tensor]]]:
    """While open: inputs and gradients of the outputs of layers, ``(batch, length, d)``."""
    found: dict[str, list[Tensor]] = {}
    handles = []
    for path, layer in layers.items():

        def note(_module: Any, args: Any, output: Tensor, path: str = path) -> None:
            found[path] = [args[0].detach()]
            output.register_hook(lambda grad: found[path].append(grad.detach()))

        handles.append(layer.register_forward_hook(note))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def cut(bench: Bench, state: State, found: Weights, r: int) -> State:
    """The state at rank ``r``: ``B T A`` with the best ``T`` of that rank for the weights.

    ``T = M^(-1/2) U_k U_k^T M^(1/2)`` with ``U_k`` the first left singular vectors of
    ``M^(1/2) G^(1/2)``.
    """
    small = bench.tunable.cut(state, {}, r)
    tensors = dict(small.tensors)
    for pair in pairs(state, {}):
        if pair.path not in found:
            continue
        (A, B), (G, M) = pair.updates[0], found[pair.path]
        root, inverse = powers(M, 0.5), powers(M, -0.5)
        U = torch.linalg.svd(root @ powers(G, 0.5))[0][:, :r]
        for name, factor in zip(pair.names, (U.T @ root @ A, B @ inverse @ U), strict=True):
            name = f"weight/{name}"
            tensors[name] = factor.to(tensors[name]).contiguous()
    return replace(small, tensors=tensors)


def powers(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    least = values.max() * 1e-12
    found: Tensor = (vectors * values.clamp(min=least) ** exponent) @ vectors.T
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", required=True, choices=sorted(PAIRS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cuts", action="store_true", help="also cut the trained adapter")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pair = PAIRS[options.pair]
    model, data = pair.load(options.data)
    for seed in options.seeds:
        line = {"pair": options.pair} | probe(pair, model, data, seed, options.cuts)
        with options.out.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

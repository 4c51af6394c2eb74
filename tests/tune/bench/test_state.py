"""Growing a factor changes nothing but what can be learned; new rows begin like any first step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from lorafit.training.generators import generator_states
from lorafit.tune.bench.adamw import RowAdamW
from lorafit.tune.bench.state import Shape, State, capture, grown, put_back

A, B = "layer.lora_A.default.weight", "layer.lora_B.default.weight"


def factors(r: int, seed: int, zero: bool = False) -> dict[str, Parameter]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(r, 6, generator=generator)
    b = torch.zeros(5, r) if zero else torch.randn(5, r, generator=generator)
    return {A: Parameter(a), B: Parameter(b)}


def train(
    parameters: dict[str, Parameter],
    optimizer: RowAdamW,
    scaling: float,
    steps: int,
    first: int = 0,
) -> None:
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(100 + step)
        x = torch.randn(32, 6, generator=generator)
        target = torch.randn(32, 5, generator=generator)
        y = scaling * x @ parameters[A].T @ parameters[B].T
        optimizer.zero_grad()
        (y - target).square().mean().backward()
        optimizer.step()


def state(parameters: dict[str, Parameter], optimizer: RowAdamW, r: int) -> State:
    return State.of(3, Shape({"r": r}), capture(parameters, optimizer), generator_states()[0])


def adam(parameters: dict[str, Parameter], lr: float = 0.01) -> RowAdamW:
    return RowAdamW([{"params": list(parameters.values())}], lr=lr)


def test_with_one_counter_it_is_torchs_adamw() -> None:
    torch.manual_seed(0)
    ours, data = nn.Linear(4, 3), torch.randn(20, 4)
    theirs = copy.deepcopy(ours)
    groups = [{"params": list(ours.parameters()), "weight_decay": 0.1}]
    one = RowAdamW(groups, lr=0.01, betas=(0.9, 0.99), eps=1e-7)
    other = torch.optim.AdamW(
        theirs.parameters(), lr=0.01, betas=(0.9, 0.99), eps=1e-7, weight_decay=0.1
    )
    for _ in range(25):
        for model, optimizer in ((ours, one), (theirs, other)):
            optimizer.zero_grad()
            model(data).square().mean().backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_growth_leaves_the_function_unchanged(scale: float) -> None:
    small = factors(2, 0)
    optimizer = adam(small)
    train(small, optimizer, 2.0, 3)
    fresh = {name: p.detach() for name, p in factors(8, 1).items()}
    big = grown(state(small, optimizer, 2), fresh, Shape({"r": 8}), scale).of_kind("weight")
    before = 2.0 * small[B] @ small[A]
    after = (2.0 / scale) * big[B] @ big[A]
    torch.testing.assert_close(after, before.detach(), rtol=1e-6, atol=1e-6)
    assert big[A].shape == (8, 6)
    assert not big[B][:, 2:].any()
    assert torch.equal(big[A][2:], fresh[A][2:])


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_old_rows_go_on_and_new_rows_take_first_steps(scale: float) -> None:
    small = factors(2, 0)
    optimizer = adam(small)
    train(small, optimizer, 2.0, 40)
    fresh = {name: p.detach() for name, p in factors(8, 1).items()}
    found = grown(state(small, optimizer, 2), fresh, Shape({"r": 8}), scale)
    big = {name: Parameter(t.clone()) for name, t in found.of_kind("weight").items()}
    other = adam(big)
    put_back(found, big, other)
    start = {name: p.detach().clone() for name, p in big.items()}
    before = small[A].detach().clone()
    train(small, optimizer, 2.0, 1, first=40)
    train(big, other, 2.0 / scale, 1, first=40)
    # The first step's gradient is that of the small factors: old rows of A move as if alone.
    moved, alone = big[A].detach()[:2] - start[A][:2], small[A].detach() - before
    torch.testing.assert_close(moved, alone, rtol=1e-4, atol=1e-7)
    # Adam's very first update is the learning rate times the sign.
    first = (big[B].detach()[:, 2:] - start[B][:, 2:]).abs()
    assert float(first.max()) <= 1.1 * 0.01
    assert float(first.min()) > 0.5 * 0.01


def test_a_shared_counter_would_take_far_larger_steps() -> None:
    """The fault that the counters for each row mend, planted."""
    small = factors(2, 0)
    optimizer = adam(small)
    train(small, optimizer, 2.0, 400)
    fresh = {name: p.detach() for name, p in factors(8, 1).items()}
    found = grown(state(small, optimizer, 2), fresh, Shape({"r": 8}), 1.0)
    shared = dict(found.tensors)
    for name in (A, B):
        shared[f"step/{name}"] = found.tensors[f"step/{name}"].max().expand(1)
    planted = State.of(found.step, found.shape, shared, generator_states()[0])
    big = {name: Parameter(t.clone()) for name, t in planted.of_kind("weight").items()}
    other = adam(big)
    put_back(planted, big, other)
    train(big, other, 2.0, 1, first=400)
    assert float(big[B].detach()[:, 2:].abs().max()) > 1.5 * 0.01


@pytest.mark.parametrize("s", [0.25, 4.0])
def test_scaling_is_a_learning_rate_and_a_start(s: float) -> None:
    """(s, lr, std of A) and (1, sqrt(s) lr, sqrt(s) std) train alike under Adam."""

    def losses(scaling: float, lr: float, std: float) -> Tensor:
        torch.manual_seed(0)
        a = Parameter(std * torch.randn(3, 6, dtype=torch.float64))
        b = Parameter(torch.zeros(5, 3, dtype=torch.float64))
        x, y = torch.randn(32, 6, dtype=torch.float64), torch.randn(32, 5, dtype=torch.float64)
        optimizer = RowAdamW([{"params": [a, b]}], lr=lr, eps=1e-30)
        found = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = (scaling * x @ a.T @ b.T - y).square().mean()
            loss.backward()
            optimizer.step()
            found.append(loss.detach())
        return torch.stack(found)

    one = losses(s, 0.01, 1.0)
    other = losses(1.0, s**0.5 * 0.01, s**0.5)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=0.0)

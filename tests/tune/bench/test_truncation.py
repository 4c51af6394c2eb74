"""A state at a smaller rank computes the best approximation, whatever its scaling and layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lorafit.methods.lora.truncate import directions, truncated
from lorafit.training.generators import generator_states
from lorafit.tune.bench.state import Shape, Stack, State
from lorafit.tune.bench.truncation import cut, energies, kept_share

A, B = "a.lora_A.default.weight", "a.lora_B.default.weight"
R, D_IN, D_OUT = 4, 9, 7


def state(weights: dict[str, Tensor], r: int = R) -> State:
    tensors = {f"weight/{name}": weight for name, weight in weights.items()}
    tensors |= {f"exp_avg/{name}": weight for name, weight in weights.items()}
    return State.of(5, Shape({"r": r, "lora_alpha": r}), tensors, generator_states()[0])


@pytest.fixture
def one() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {A: torch.randn(R, D_IN), B: torch.randn(D_OUT, R), "head.weight": torch.randn(2, D_OUT)}


def moment(weight: Tensor) -> Tensor:
    x = torch.randn(200, D_IN, dtype=torch.float64) * torch.logspace(0, -2, D_IN)
    z = x @ weight.double().T
    return z.T @ z


def shape(r: int) -> Shape:
    return Shape({"r": r, "lora_alpha": r})


def test_it_is_the_truncation_of_each_layer(one: dict[str, Tensor]) -> None:
    G = moment(one[A])
    small = cut(state(one), {"a": G}, shape(2), 1.0)
    expected = truncated(one[A], one[B], 2, directions(one[A], one[B], G))
    torch.testing.assert_close(small.of_kind("weight")[A], expected[0])
    torch.testing.assert_close(small.of_kind("weight")[B], expected[1])
    assert small.shape.settings["r"] == 2
    assert small.factors == 2 * (D_IN + D_OUT)
    assert torch.equal(small.of_kind("weight")["head.weight"], one["head.weight"])
    assert not small.of_kind("exp_avg")


def test_another_scaling_is_made_up_for(one: dict[str, Tensor]) -> None:
    """Where ``lora_alpha`` stays, ``alpha / r`` grows as the rank falls."""
    kept, scaled = (cut(state(one), {}, shape(2), scale).of_kind("weight") for scale in (1.0, 0.5))
    torch.testing.assert_close(scaled[B] @ scaled[A], 0.5 * kept[B] @ kept[A])


def test_at_its_own_rank_it_computes_the_same(one: dict[str, Tensor]) -> None:
    whole = cut(state(one), {"a": moment(one[A])}, shape(R), 1.0).of_kind("weight")
    torch.testing.assert_close(whole[B] @ whole[A], one[B] @ one[A], rtol=1e-4, atol=1e-5)


def test_each_matrix_of_a_stack_is_cut_by_itself() -> None:
    torch.manual_seed(1)
    matrices = [(torch.randn(R, D_IN), torch.randn(D_OUT, R)) for _ in range(3)]
    stacked = {
        A: Stack(0, 3).together(torch.stack([a for a, _ in matrices])),
        B: Stack(1, 3).together(torch.stack([b for _, b in matrices], dim=2)),
    }
    small = cut(state(stacked), {}, shape(2), 1.0).of_kind("weight")
    As, Bs = Stack(0, 3).apart(small[A]), Stack(1, 3).apart(small[B])
    for i, (a, b) in enumerate(matrices):
        expected_a, expected_b = truncated(a, b, 2, directions(a, b))
        torch.testing.assert_close(
            Bs[:, :, i] @ As[i], expected_b @ expected_a, rtol=1e-4, atol=1e-5
        )


def test_embeddings_are_cut_too(one: dict[str, Tensor]) -> None:
    names = {A: "e.lora_embedding_A.default", B: "e.lora_embedding_B.default"}
    table = {name: one[old] for old, name in names.items()}
    small = cut(state(table), {}, shape(1), 1.0).of_kind("weight")
    assert [small[name].shape for name in names.values()] == [(1, D_IN), (D_OUT, 1)]


def test_the_energies_add_up_to_that_of_the_update(one: dict[str, Tensor]) -> None:
    G = moment(one[A])
    found = energies(state(one), {"a": G})
    B64 = one[B].double()
    assert sum(found["a"]) == pytest.approx(float((B64 @ G @ B64.T).trace()))
    shares = [kept_share(found, r) for r in range(R + 1)]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[R] == pytest.approx(1.0)


def test_without_an_update_all_of_it_is_kept() -> None:
    assert kept_share({}, 1) == 1.0

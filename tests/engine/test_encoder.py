"""The fast encoder against autograd through transformers' modules and peft's layers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers as hf

from lorafit.engine.kernels import checked as kernels
from lorafit.errors import DataError
from tests.engine import helpers

LENGTHS = [5, 1, 27, 33, 11]
FP32 = 2e-6
"""Relative: what two orders of float32 summation differ by."""


def subsets(family: str) -> dict[str, list[str]]:
    q, k, v, o, up, down = helpers.ALL[family]
    return {
        "qv": [q, v],
        "k": [k],
        "o": [o],
        "up": [up],
        "down": [down],
        "all": [q, k, v, o, up, down],
    }


def assert_same_gradients(adapted, dtype=torch.float32, rows=None, tolerance=FP32):
    rows = rows or helpers.examples(LENGTHS)
    adapted.train()
    loss, expected = helpers.autograd_gradients(adapted, rows, scale=0.3)
    fast = helpers.engine(adapted, dtype)
    result = fast.forward_backward(fast.collate(rows), 0.3)
    got = helpers.gradients(adapted)
    assert float(result.loss_sum) == pytest.approx(loss, rel=5 * tolerance)
    assert result.units == len(rows)
    assert result.tokens == sum(len(row["input_ids"]) for row in rows)
    assert helpers.distance(got, expected) < tolerance
    whole = sum(grad.double().square().sum() for grad in expected.values()) ** 0.5
    for name in expected:  # also each for itself, so that a small one cannot hide
        if expected[name].norm() < 1e-4 * whole:
            continue  # rounding alone, e.g. of a query that has one key to choose from
        one = helpers.distance({name: got[name]}, {name: expected[name]})
        assert one < 10 * tolerance, name


@pytest.mark.parametrize("family", helpers.ALL)
@pytest.mark.parametrize("subset", ["qv", "k", "o", "up", "down", "all"])
def test_gradients_are_those_of_peft(family, subset):
    assert_same_gradients(helpers.adapt(helpers.model(family), subsets(family)[subset]))


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_gradients_of_every_target_in_one_block_only(family):
    for block in range(3):
        for target in helpers.ALL[family]:
            adapted = helpers.adapt(
                helpers.model(family), [target], layers_to_transform=[block],
                layers_pattern="layer",
            )  # fmt: skip
            assert_same_gradients(adapted)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
def test_gradients_of_token_classification(family):
    base = helpers.model(family, auto=hf.AutoModelForTokenClassification)
    adapted = helpers.adapt(base, subsets(family)["all"], task_type="TOKEN_CLS")
    assert_same_gradients(adapted, rows=helpers.examples(LENGTHS, per_token=True))


def test_gradients_with_token_types():
    assert_same_gradients(
        helpers.adapt(helpers.model("bert"), ["query", "value"]),
        rows=helpers.examples(LENGTHS, pairs=True),
    )


def test_gradients_with_several_active_adapters_and_ranks():
    adapted = helpers.adapt(
        helpers.model("bert"), ["query", "value"], rank_pattern={"value": 40}, use_rslora=True
    )
    assert_same_gradients(adapted)


@pytest.mark.parametrize("activation", ["gelu_new", "relu", "silu"])
def test_gradients_with_other_activations(activation):
    adapted = helpers.adapt(helpers.model("bert", hidden_act=activation), subsets("bert")["all"])
    assert_same_gradients(adapted)


@pytest.mark.parametrize("lengths", [[1], [60], [1, 1, 1], [58] + [1] * 20])
def test_extreme_lengths(lengths):
    adapted = helpers.adapt(helpers.model("bert"), subsets("bert")["all"])
    assert_same_gradients(adapted, rows=helpers.examples(lengths), tolerance=4e-6)


def test_gradients_on_the_twins_and_every_instruction_set(implementation):
    assert_same_gradients(helpers.adapt(helpers.model("bert"), subsets("bert")["all"]))


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_bfloat16_error_is_that_of_autocast(family):
    """Over seeds: our distance to float32 against autocast's."""
    ours, autocasts = [], []
    for seed in range(4):
        adapted = helpers.adapt(helpers.model(family, seed=seed), subsets(family)["all"], seed)
        rows = helpers.examples([9, 17, 30, 25, 12, 3], seed)
        _, exact = helpers.autograd_gradients(adapted, rows)
        _, cast = helpers.autograd_gradients(adapted, rows, autocast=True)
        fast = helpers.engine(adapted, torch.bfloat16)
        fast.forward_backward(fast.collate(rows), 1.0)
        ours.append(helpers.distance(helpers.gradients(adapted), exact))
        autocasts.append(helpers.distance(cast, exact))
    assert sum(ours) < 1.2 * sum(autocasts), (ours, autocasts)


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra"])
@pytest.mark.parametrize("per_token", [False, True], ids=["pooled", "per token"])
def test_directional_derivative_with_dropout(family, per_token):
    """With every dropout on, the loss changes along the gradient as the gradient says."""
    auto = hf.AutoModelForTokenClassification if per_token else None
    extra: dict[str, Any] = {"auto": auto} if auto else {}
    adapted = helpers.adapt(
        helpers.model(family, dropout=0.1, **extra), subsets(family)["all"], lora_dropout=0.15,
        task_type="TOKEN_CLS" if per_token else "SEQ_CLS",
    ).train()  # fmt: skip
    rows = helpers.examples([20, 31, 8], per_token=per_token)
    fast = helpers.engine(adapted)

    def loss() -> float:
        torch.manual_seed(5)
        result = fast.forward_backward(fast.collate(rows), 1.0)
        return float(result.loss_sum.double())

    loss()
    grads = helpers.gradients(adapted)
    parameters = dict(adapted.named_parameters())
    for part in ("lora_A", "lora_B"):
        chosen = {n: g for n, g in grads.items() if part in n}
        norm = sum(g.double().square().sum() for g in chosen.values()) ** 0.5
        step = 1e-2

        def move(amount, chosen=chosen, norm=norm):
            with torch.no_grad():
                for name, grad in chosen.items():
                    parameters[name].add_(grad / norm, alpha=amount)

        move(step)
        above = loss()
        move(-2 * step)
        below = loss()
        move(step)
        adapted.zero_grad()
        assert (above - below) / (2 * step) == pytest.approx(float(norm), rel=5e-3)


def test_dropout_is_on_in_training_and_off_in_evaluation():
    adapted = helpers.adapt(helpers.model("bert", dropout=0.3), ["query"], lora_dropout=0.3)
    fast = helpers.engine(adapted)
    batch = fast.collate(helpers.examples(LENGTHS))
    adapted.train()
    losses = {float(fast.forward_backward(batch, 1.0).loss_sum) for _ in range(3)}
    assert len(losses) == 3
    assert torch.equal(fast.logits(batch), fast.logits(batch))
    assert adapted.training
    adapted.eval()
    assert len({float(fast.forward_backward(batch, 1.0).loss_sum) for _ in range(3)}) == 1


@pytest.mark.parametrize("family", helpers.ALL)
def test_logits_are_the_models(family):
    adapted = helpers.adapt(helpers.model(family, dropout=0.1), subsets(family)["all"]).eval()
    rows = helpers.examples(LENGTHS)
    batch = helpers.PlainTask().collate(rows, helpers.PlainTokenizer())
    batch.pop("labels")
    with torch.no_grad():
        expected = adapted(**batch).logits
    fast = helpers.engine(adapted)
    torch.testing.assert_close(fast.logits(fast.collate(rows)), expected, rtol=1e-4, atol=2e-6)


def test_merged_disabled_and_edited_weights_are_followed():
    adapted = helpers.adapt(helpers.model("bert"), subsets("bert")["all"]).eval()
    fast = helpers.engine(adapted)
    batch = fast.collate(helpers.examples(LENGTHS))
    layers = [m for m in adapted.modules() if hasattr(m, "lora_A")]
    live = fast.logits(batch)
    for layer in layers:
        layer.merge()
    torch.testing.assert_close(fast.logits(batch), live, rtol=1e-4, atol=1e-5)
    for layer in layers:
        layer.unmerge()
        layer.enable_adapters(False)
    base = fast.logits(batch)
    assert not torch.allclose(base, live, atol=1e-3)
    for layer in layers:
        layer.enable_adapters(True)
    torch.testing.assert_close(fast.logits(batch), live, rtol=1e-4, atol=1e-5)


def test_examples_do_not_see_each_other():
    adapted = helpers.adapt(helpers.model("bert"), ["query", "value"]).eval()
    fast = helpers.engine(adapted)
    rows = helpers.examples(LENGTHS)
    together = fast.logits(fast.collate(rows))
    alone = torch.cat([fast.logits(fast.collate([row])) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


def test_gradients_add_up_over_micro_batches():
    adapted = helpers.adapt(helpers.model("bert"), ["query", "value"]).train()
    fast = helpers.engine(adapted)
    rows = helpers.examples(LENGTHS)
    fast.forward_backward(fast.collate(rows), 0.5)
    whole = helpers.gradients(adapted)
    for part in (rows[:2], rows[2:]):
        fast.forward_backward(fast.collate(part), 0.5)
    assert helpers.distance(helpers.gradients(adapted), whole) < FP32


def test_head_alone_trains_without_adapters():
    base = helpers.model("bert").train()
    base.requires_grad_(False)
    base.classifier.requires_grad_(True)
    assert_same_gradients(base)


def test_frozen_adapter_takes_no_gradient_but_passes_one_on():
    adapted = helpers.adapt(helpers.model("bert"), subsets("bert")["all"])
    for name, parameter in adapted.named_parameters():
        if "layer.1." in name or "value.lora_A" in name:
            parameter.requires_grad_(False)
    assert_same_gradients(adapted)


def test_nan_weight_gives_a_nan_loss():
    adapted = helpers.adapt(helpers.model("bert"), ["query", "value"]).train()
    with torch.no_grad():
        next(p for n, p in adapted.named_parameters() if "lora_B" in n)[0, 0] = float("nan")
    fast = helpers.engine(adapted)
    result = fast.forward_backward(fast.collate(helpers.examples(LENGTHS)), 1.0)
    assert result.loss_sum.isnan()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "or none"),
        ([{"input_ids": [], "labels": 0}], "empty"),
        ([{"input_ids": [5] * 61, "labels": 0}], "61 tokens.*60 positions"),
    ],
)
def test_impossible_batches_are_refused(rows, message):
    fast = helpers.engine(helpers.adapt(helpers.model("bert"), ["query"]))
    with pytest.raises(DataError, match=message):
        fast.collate(rows)


def test_token_outside_the_vocabulary_is_an_error_not_a_crash():
    fast = helpers.engine(helpers.adapt(helpers.model("bert"), ["query"]))
    batch = fast.collate([{"input_ids": [5, 101], "labels": 0}])
    with pytest.raises(IndexError):
        fast.logits(batch)


def test_comparison_notices_a_fault_of_one_percent(monkeypatch):
    adapted = helpers.adapt(helpers.model("bert"), ["query", "value"])
    original = kernels.attention_forward

    def faulty(q, *rest):
        return original(q * 1.01, *rest)

    monkeypatch.setattr(kernels, "attention_forward", faulty)
    with pytest.raises(AssertionError):
        assert_same_gradients(adapted)


def test_same_seed_gives_the_same_bits():
    adapted = helpers.adapt(helpers.model("bert", dropout=0.1), ["query", "value"]).train()
    fast = helpers.engine(adapted)
    batch = fast.collate(helpers.examples(LENGTHS))

    def step():
        torch.manual_seed(9)
        fast.forward_backward(batch, 1.0)
        return helpers.gradients(copy.copy(adapted))

    one, two = step(), step()
    assert all(torch.equal(one[name], two[name]) for name in one)

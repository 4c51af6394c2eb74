from typing import Any

import pytest
import torch

from lorafit.engine.eager import EagerEngine
from lorafit.model.modes import evaluating
from tests.training import toy


@pytest.fixture
def model():
    model = toy.bert(dropout=0.0)
    toy.train_some(model)
    return model


def rows(n, seed=0):
    return toy.examples(n, seed).to_list()


def gradients(model):
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def test_gradient_is_scale_times_that_of_the_summed_loss(model):
    engine = toy.engine(model)
    batch = engine.collate(rows(5))
    result = engine.forward_backward(batch, scale=0.25)
    ours = gradients(model)
    model.zero_grad()
    output = model(**{name: value for name, value in batch.items() if name != "labels"})
    loss = torch.nn.functional.cross_entropy(output.logits, batch["labels"], reduction="sum")
    (loss * 0.25).backward()
    theirs = gradients(model)
    assert set(ours) == set(theirs) == {n for n, p in model.named_parameters() if p.requires_grad}
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name])
    torch.testing.assert_close(result.loss_sum, loss.detach())


def test_gradients_add_up(model):
    engine = toy.engine(model)
    batch = engine.collate(rows(5))
    engine.forward_backward(batch, 1.0)
    once = gradients(model)
    engine.forward_backward(batch, 1.0)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, 2 * once[name])


def test_result_counts_losses_and_real_tokens(model):
    engine = toy.engine(model)
    examples = rows(7)
    result = engine.forward_backward(engine.collate(examples), 1.0)
    assert result.units == engine.units(examples) == 7
    assert result.tokens == sum(len(row["input_ids"]) for row in examples)
    assert not result.loss_sum.requires_grad
    assert result.loss_sum.dtype == torch.float32


def test_logits_are_those_of_evaluation_and_the_modes_come_back():
    model: Any = toy.bert(dropout=0.5)
    engine = toy.engine(model)
    model.train()
    model.bert.pooler.eval()
    batch = engine.collate(rows(4))
    first, second = engine.logits(batch), engine.logits(batch)
    assert torch.equal(first, second)
    assert first.shape == (4, 2)
    assert not first.requires_grad
    assert model.training
    assert model.bert.encoder.training
    assert not model.bert.pooler.training


def test_modes_come_back_after_an_error(model):
    model.train()
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert model.training
    assert torch.is_grad_enabled()


def test_order_of_the_examples_is_kept_whatever_their_lengths(model):
    engine = toy.engine(model)
    examples = rows(6)
    together = engine.logits(engine.collate(examples))
    alone = torch.cat([engine.logits(engine.collate([row])) for row in examples])
    torch.testing.assert_close(together, alone)


def test_autocast_computes_in_bfloat16_and_keeps_float32_gradients(model):
    plain, fast = toy.engine(model), toy.engine(model, autocast=True)
    batch = plain.collate(rows(8))
    exact, rough = plain.logits(batch), fast.logits(batch)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(exact, rough.float(), rtol=0.05, atol=0.02)
    result = fast.forward_backward(batch, 1.0)
    assert result.loss_sum.dtype == torch.float32
    assert all(gradient.dtype == torch.float32 for gradient in gradients(model).values())


def test_engines_with_and_without_autocast_live_in_one_process(model):
    before = model.forward
    tokenizer: Any = None
    EagerEngine(model, toy.ToyTask(), tokenizer, autocast=True)
    EagerEngine(model, toy.ToyTask(), tokenizer, autocast=False)
    assert model.forward == before

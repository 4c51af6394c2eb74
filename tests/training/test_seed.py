import random

import numpy as np
import pytest
import torch

from lorafit.training.seed import seed_everything
from tests.training import toy


def test_same_seed_gives_the_same_draws_everywhere():
    def draw(seed):
        seed_everything(seed)
        return random.random(), float(np.random.rand()), torch.rand(2).tolist()

    assert draw(1) == draw(1)
    assert all(a != b for a, b in zip(draw(1), draw(2), strict=True))


def test_same_seed_gives_the_same_new_weights():
    def head(seed):
        seed_everything(seed)
        return torch.nn.Linear(4, 2).weight

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


@pytest.fixture
def _switch():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_switch")
def test_deterministic_kernels_are_switched_on_and_off():
    seed_everything(0, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    model = toy.bert()
    toy.train_some(model)
    engine = toy.engine(model)
    engine.forward_backward(engine.collate(toy.examples(4).to_list()), 1.0)
    seed_everything(0)
    assert not torch.are_deterministic_algorithms_enabled()

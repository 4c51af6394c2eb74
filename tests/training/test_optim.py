import pytest
import torch
from torch.nn import Parameter

from lorafit.config import TrainConfig
from lorafit.training.optim import decays, make_optimizer


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("layer.0.query.lora_A.default.weight", (8, 16), True),
        ("classifier.weight", (2, 16), True),
        ("classifier.bias", (2,), False),
        ("encoder.LayerNorm.weight", (16,), False),
        ("encoder.norm.weight", (4, 16), False),
        ("query.lora_magnitude_vector.default.weight", (16,), False),
        ("odd.bias", (2, 2), False),
    ],
)
def test_biases_norms_and_vectors_have_no_weight_decay(name, shape, expected):
    assert decays(name, Parameter(torch.zeros(shape))) is expected


def test_settings_reach_the_optimizer():
    trainable = {"a.weight": Parameter(torch.ones(2, 2)), "a.bias": Parameter(torch.ones(2))}
    settings = TrainConfig(
        learning_rate=0.1, weight_decay=0.5, adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-6
    )
    optimizer = make_optimizer(trainable, settings)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert optimizer.defaults["betas"] == (0.8, 0.9)
    assert optimizer.defaults["eps"] == 1e-6
    assert optimizer.defaults["lr"] == 0.1
    for parameter in trainable.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(trainable["a.weight"].data, torch.full((2, 2), 0.95))
    torch.testing.assert_close(trainable["a.bias"].data, torch.ones(2))


def test_fused_step_is_the_plain_step():
    def after(fused):
        torch.manual_seed(0)
        parameter = Parameter(torch.randn(4, 3))
        settings = TrainConfig(weight_decay=0.1)
        optimizer = make_optimizer({"w": parameter}, settings)
        assert optimizer.defaults["fused"]
        if not fused:
            betas = (settings.adam_beta1, settings.adam_beta2)
            optimizer = torch.optim.AdamW([parameter], lr=2e-3, betas=betas, weight_decay=0.1)
        for _ in range(5):
            parameter.grad = torch.randn(4, 3)
            optimizer.step()
        return parameter.detach()

    torch.testing.assert_close(after(True), after(False), rtol=1e-6, atol=1e-7)

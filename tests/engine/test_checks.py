"""No bad call reaches compiled code: each is refused with a `ValueError`."""

from typing import Any

import pytest
import torch

from lorafit.engine.kernels import checked as kernels
from lorafit.engine.kernels.counter import Drop
from lorafit.engine.kernels.shapes import Heads, Residual
from lorafit.engine.packing import Packing

X = torch.randn(6, 8)
ONE = torch.ones(8)
PACK = Packing.of([4, 2])
HEADS = Heads(2, 2, 4, 0.5)


def lora(**changed):
    call = {
        "dy": torch.randn(6, 5),
        "x": X,
        "a": torch.randn(2, 8),
        "b": torch.randn(5, 2),
        "u": torch.randn(6, 2),
        "scaling": 1.0,
        "drop": Drop(),
        "grad_a": torch.zeros(2, 8),
        "grad_b": torch.zeros(5, 2),
        "dx": torch.zeros(6, 8),
    }
    kernels.lora_backward(**{**call, **changed})


def backward(**changed):
    call: dict[str, Any] = {"dout": X, "q": X, "k": X, "v": X, "lse": torch.zeros(6, 2)}
    call |= {"packing": PACK, "heads": HEADS, "drop": Drop(), "grads": (X, X, X)}
    kernels.attention_backward(**{**call, **changed})


BAD = {
    "unknown activation": lambda: kernels.activation("swish2", X),
    "activation of a view": lambda: kernels.activation("gelu", X.t()),
    "gradient of another size": lambda: kernels.activation_backward("gelu", X, X[:5]),
    "gradient of another type": lambda: kernels.activation_backward("gelu", X, X.bfloat16()),
    "residual too short": lambda: kernels.norm_forward(X, Residual(X[:5]), ONE, ONE, 1, Drop()),
    "gamma too short": lambda: kernels.norm_forward(X, Residual(X), ONE[:7], ONE, 1, Drop()),
    "three dimensions": lambda: kernels.norm_forward(X[None], Residual(X), ONE, ONE, 1, Drop()),
    "rstd too short": lambda: kernels.norm_backward(
        X.clone(), None, X, ONE, ONE[:5], Drop(), X.dtype
    ),
    "extra of another type": lambda: kernels.norm_backward(
        X.clone(), X, X, ONE, ONE[:6], Drop(), torch.bfloat16
    ),
    "A of another width": lambda: kernels.lora_down(X, torch.randn(2, 7), Drop()),
    "A transposed": lambda: kernels.lora_down(X, torch.randn(8, 2).t(), Drop()),
    "u too short": lambda: kernels.lora_up(torch.randn(5, 2), torch.randn(8, 2), 1.0, X.clone()),
    "rows of x overlap": lambda: kernels.lora_down(
        torch.randn(20).as_strided((6, 8), (1, 1)), torch.randn(2, 8), Drop()
    ),
    "dy too short": lambda: lora(dy=torch.randn(5, 5)),
    "x of another type": lambda: lora(x=X.bfloat16()),
    "gradient of A too small": lambda: lora(grad_a=torch.zeros(1, 8)),
    "gradient of B too small": lambda: lora(grad_b=torch.zeros(4, 2)),
    "dx too short": lambda: lora(dx=torch.zeros(5, 8)),
    "q too short": lambda: kernels.attention_forward(X[:5], X, X, PACK, HEADS, Drop()),
    "v too narrow": lambda: kernels.attention_forward(X, X, X[:, :7], PACK, HEADS, Drop()),
    "k and v with two strides": lambda: kernels.attention_forward(
        X, torch.randn(6, 9)[:, :8], X, PACK, HEADS, Drop()
    ),
    "lse too small": lambda: backward(lse=torch.zeros(6, 1)),
    "dq with another stride": lambda: backward(grads=(torch.randn(6, 9)[:, :8], X, X)),
    "target past the classes": lambda: kernels.softmax_loss(X.clone(), torch.tensor([8] * 6)),
    "negative target": lambda: kernels.softmax_loss(X.clone(), torch.tensor([-1] * 6)),
    "too few targets": lambda: kernels.softmax_loss(X.clone(), torch.tensor([1] * 5)),
    "no sequence": lambda: Packing.of([]),
    "empty sequence": lambda: Packing.of([3, 0]),
    "heads that do not divide": lambda: Heads(3, 2, 4, 1.0),
    "more tokens than 32 bits": lambda: Packing.of([2**30, 2**30]),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_call_is_refused(bad):
    with pytest.raises(ValueError, match=r"\w"):
        BAD[bad]()


def test_no_tokens_is_no_work():
    empty = torch.empty(0, 8)
    assert kernels.activation("gelu", empty).shape == (0, 8)
    assert kernels.lora_down(empty, torch.randn(2, 8), Drop(0.1)).shape == (0, 2)

from __future__ import annotations

import pytest
import torch

from lorafit.adapt import Adapters
from lorafit.adapt.combine import COMBINATION_TYPES
from lorafit.adapt.weighted import WeightedSum, add_weighted
from lorafit.errors import AdapterError, ConfigError
from lorafit.methods.lora import LoraConfig
from tests import tiny
from tests.pair import logits, two_adapters


@pytest.mark.parametrize("combination_type", ["cat", "svd"])
def test_exact_combinations_are_the_weighted_sum(combination_type: str) -> None:
    adapters = two_adapters()
    wanted = [2.0 * x.delta_weight("a") - 0.5 * x.delta_weight("b") for x in adapters.layers()]
    add_weighted(
        adapters, "mix", WeightedSum(["a", "b"], [2.0, -0.5], combination_type, svd_rank=8)
    )
    assert adapters.active == ["a"]
    for layer, delta in zip(adapters.layers(), wanted, strict=True):
        torch.testing.assert_close(layer.delta_weight("mix"), delta, rtol=1e-4, atol=1e-5)


def test_a_combination_keeps_the_one_head_its_parts_have() -> None:
    model = tiny.classifier("distilbert")
    adapters = Adapters(model)
    adapters.add(LoraConfig(modules_to_save=["classifier"]), "a")
    adapters.add(LoraConfig(), "b")
    with torch.no_grad():
        for parameter in adapters.parameters_of("a").values():
            parameter.add_(0.1)
    adapters.set("a")
    live = logits(adapters)
    add_weighted(adapters, "mix", WeightedSum(["a", "b"], [1.0, 1.0], "cat"))
    adapters.set("mix")
    torch.testing.assert_close(logits(adapters), live, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("combination_type", COMBINATION_TYPES)
def test_every_combination_type_gives_a_finite_adapter(combination_type: str) -> None:
    adapters = two_adapters()
    add_weighted(
        adapters, "mix", WeightedSum(["a", "b"], [1.0, 0.5], combination_type, density=0.5)
    )
    adapters.set("mix")
    assert torch.isfinite(logits(adapters)).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"combination_type": "svdd"}, ConfigError, 'Did you mean "svd"'),
        ({"combination_type": "ties"}, ConfigError, "takes a density"),
        ({"names": ["a", "c"]}, AdapterError, 'no adapter "c"'),
        ({"weights": [1.0]}, ConfigError, "as many weights"),
        ({"new": "a"}, AdapterError, "already"),
        ({"new": "a.b"}, AdapterError, "cannot be the name"),
    ],
)
def test_a_wrong_combination_is_refused_and_changes_nothing(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    adapters = two_adapters()
    before = list(adapters.model.state_dict())
    values = {"new": "mix", "names": ["a", "b"], "weights": [1.0, 1.0]} | arguments
    new = str(values.pop("new"))
    with pytest.raises(error, match=message):
        add_weighted(adapters, new, WeightedSum(**values))  # type: ignore[arg-type]
    assert list(adapters.model.state_dict()) == before

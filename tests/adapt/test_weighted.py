from __future__ import annotations

from typing import Any

import pytest
import torch

from lorafit.adapt import Adapters
from lorafit.adapt.combine import COMBINATION_TYPES
from lorafit.adapt.weighted import add_weighted
from lorafit.errors import AdapterError, ConfigError
from lorafit.methods.lora import LoraConfig
from tests import tiny
from tests.pair import logits, two_adapters


@pytest.mark.parametrize("combination_type", ["cat", "svd"])
def test_exact_combinations_are_the_weighted_sum(combination_type: str) -> None:
    adapters = two_adapters()
    wanted = [2.0 * x.delta_weight("a") - 0.5 * x.delta_weight("b") for x in adapters.layers()]
    add_weighted(adapters, "mix", ["a", "b"], [2.0, -0.5], combination_type, svd_rank=8)
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
    add_weighted(adapters, "mix", ["a", "b"], [1.0, 1.0], "cat")
    adapters.set("mix")
    torch.testing.assert_close(logits(adapters), live, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize("start", [True, "pissa"])
@pytest.mark.parametrize("combination_type", COMBINATION_TYPES)
def test_one_adapter_combined_with_weight_one_is_itself_whatever_its_ranks(
    combination_type: str, start: bool | str, rank: int
) -> None:
    adapters = two_adapters(
        rank_pattern={"v_lin": rank, "lin2": 3}, alpha_pattern={"q_lin": 2}, init_lora_weights=start
    )
    add_weighted(adapters, "copy", ["a"], [1.0], combination_type, density=0.5)
    for layer in adapters.layers():
        expected = layer.delta_weight("a")
        torch.testing.assert_close(layer.delta_weight("copy"), expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_combined_leaves_nothing_behind() -> None:
    adapters = two_adapters()
    before = list(adapters.model.state_dict())
    last: Any = list(adapters.layers())[-1]
    with torch.no_grad():
        last.lora_A["b"].weight[0, 0] = torch.nan
    with pytest.raises(AdapterError, match="not finite"):
        add_weighted(adapters, "mix", ["a", "b"], [1.0, 1.0])
    assert list(adapters.model.state_dict()) == before
    for x, rank in (("c", 2), ("d", 3)):
        adapters.add(LoraConfig(r=4, target_modules={"q_lin"}, rank_pattern={"q_lin": rank}), x)
    before = list(adapters.model.state_dict())
    with pytest.raises(ConfigError, match="equal, got 2, 3"):
        add_weighted(adapters, "mix", ["c", "d"], [1.0, 1.0], "linear")
    assert list(adapters.model.state_dict()) == before
    assert list(adapters.configs) == ["a", "b", "c", "d"]
    assert adapters.active == ["a"]


@pytest.mark.parametrize("combination_type", COMBINATION_TYPES)
def test_every_combination_type_gives_a_finite_adapter(combination_type: str) -> None:
    adapters = two_adapters()
    add_weighted(adapters, "mix", ["a", "b"], [1.0, 0.5], combination_type, density=0.5)
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
    with pytest.raises(error, match=message):
        add_weighted(adapters, **values)  # type: ignore[arg-type]
    assert list(adapters.model.state_dict()) == before

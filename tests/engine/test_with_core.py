"""The engines under lorafit's own adapters: training, switching off, merging."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorafit.adapt import Adapters
from lorafit.engine.choose import Computing, choose_engine
from lorafit.methods.lora import LoraConfig
from tests.engine import helpers, test_decoder

LENGTHS = [9, 4, 17, 23]


def subject(family: str, **settings: Any) -> tuple[Any, Adapters]:
    if family == "llama":
        made = test_decoder.model("llama", causal=False)
        targets = {"q_proj", "v_proj", "down_proj"}
    else:
        made = helpers.model(family)
        targets = {*helpers.ALL[family][:3], helpers.ALL[family][4]}
    adapters = Adapters(made)
    head = ["score"] if family == "llama" else ["classifier"]
    torch.manual_seed(3)
    adapters.add(LoraConfig(target_modules=targets, modules_to_save=head, r=4, **settings))
    return made, adapters


def engine(setting: Any, made: Any, dtype: torch.dtype = torch.float32) -> Any:
    task: Any = helpers.PlainTask()
    tokenizer: Any = helpers.PlainTokenizer()
    return choose_engine(setting, made, task, tokenizer, Computing(dtype=dtype))


def train(setting: str, family: str, steps: int = 5, **settings: Any) -> Adapters:
    made, adapters = subject(family, **settings)
    chosen = engine(setting, made)
    assert chosen.name == setting
    trainable = adapters.trainable()
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-3, eps=1e-4)
    made.train()
    for step in range(steps):
        rows = helpers.examples(LENGTHS, seed=step)
        optimizer.zero_grad()
        chosen.forward_backward(chosen.collate(rows), 1 / len(rows))
        optimizer.step()
    return adapters


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama"])
@pytest.mark.parametrize("init", [True, "pissa"])
def test_every_engine_trains_the_same_adapter(family, init):
    trained = {
        setting: train(setting, family, init_lora_weights=init).state_dict("default")
        for setting in ("eager", "generic", "fast")
    }
    start = subject(family, init_lora_weights=init)[1].state_dict("default")
    for name, expected in trained["eager"].items():
        moved = (expected - start[name]).norm()
        assert moved > 0
        for setting in ("generic", "fast"):
            assert (trained[setting][name] - expected).norm() < 2e-3 * moved, (setting, name)


@pytest.mark.parametrize("setting", ["generic", "fast"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_disabled_merged_and_live_are_followed(family, setting):
    adapters = train("eager", family)
    made: Any = adapters.model
    ours, eager = engine(setting, made), engine("eager", made)
    rows = helpers.examples(LENGTHS)

    def same() -> torch.Tensor:
        got, expected = (e.logits(e.collate(rows)) for e in (ours, eager))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        assert isinstance(got, torch.Tensor)
        return got

    live = same()
    with adapters.disabled():
        assert not torch.allclose(same(), live)
    adapters.merge()
    torch.testing.assert_close(same(), live, rtol=1e-4, atol=1e-5)
    adapters.unmerge()
    torch.testing.assert_close(same(), live, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_bfloat16_learns_as_float32_does(family):
    losses = {}
    for dtype in (torch.float32, torch.bfloat16):
        made, adapters = subject(family)
        chosen = engine("fast", made, dtype)
        optimizer = torch.optim.AdamW(adapters.trainable().values(), lr=2e-2)
        made.train()
        rows = helpers.examples(LENGTHS)
        for _ in range(15):
            optimizer.zero_grad()
            result = chosen.forward_backward(chosen.collate(rows), 1 / len(rows))
            optimizer.step()
        losses[dtype] = float(result.loss_sum) / len(rows)
    assert losses[torch.float32] < 0.3
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], abs=0.05)

"""The fast decoder against autograd through transformers' modules and peft's layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from lorafit.engine.decoder.engine import FastDecoder
from lorafit.engine.decoder.layout import find_layout
from lorafit.engine.lm_loss import IGNORED
from lorafit.engine.support import Unsupported
from lorafit.errors import DataError
from tests.engine import helpers

Q, K, V, O, GATE, UP, DOWN = (  # noqa: E741
    *("q_proj", "k_proj", "v_proj", "o_proj"),
    *("gate_proj", "up_proj", "down_proj"),
)
SUBSETS = {"qv": [Q, V], "k": [K], "o": [O], "gate": [GATE], "up": [UP], "down": [DOWN]}
SUBSETS["all"] = [Q, K, V, O, GATE, UP, DOWN]
LENGTHS = [5, 2, 27, 33, 11]
CONFIGS = {
    **{"llama": hf.LlamaConfig, "mistral": hf.MistralConfig},
    **{"qwen2": hf.Qwen2Config, "qwen3": hf.Qwen3Config},
}


def config(family: str, **kwargs: Any) -> Any:
    # Qwen3's heads are wider than its hidden size has room for.
    own: dict[str, dict[str, Any]]
    own = {"mistral": {"sliding_window": None}, "qwen3": {"head_dim": 10}}
    return CONFIGS[family](
        **{"vocab_size": 101, "hidden_size": 36, "num_attention_heads": 6},
        **{"num_key_value_heads": 2, "num_hidden_layers": 3, "intermediate_size": 52},
        **{"max_position_embeddings": 60, "pad_token_id": 0, "num_labels": 3},
        **own.get(family, {}) | kwargs,
    )


def model(family: str, causal: bool, seed: int = 0, **kwargs: Any) -> Any:
    torch.manual_seed(seed)
    auto = hf.AutoModelForCausalLM if causal else hf.AutoModelForSequenceClassification
    made = auto.from_config(config(family, **kwargs))
    for name, parameter in made.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, mean=1.0, std=0.2)
        elif parameter.dim() == 2:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        else:
            nn.init.normal_(parameter, std=0.1)
    return made


def adapt(made: Any, targets: list[str], causal: bool, **kwargs: Any) -> Any:
    kwargs = {"task_type": "CAUSAL_LM" if causal else "SEQ_CLS", **kwargs}
    return helpers.adapt(made, targets, **kwargs)


def engine(adapted: Any, dtype: torch.dtype = torch.float32) -> FastDecoder:
    task: Any = helpers.PlainTask()
    tokenizer: Any = helpers.PlainTokenizer()
    return FastDecoder(adapted, find_layout(adapted), task, tokenizer, dtype=dtype)


def examples(lengths: list[int], causal: bool, seed: int = 2) -> list[Any]:
    rows = helpers.examples(lengths, seed)
    if causal:
        for i, row in enumerate(rows):
            row["labels"] = list(row["input_ids"])
            row["labels"][: len(row["labels"]) // 3 * (i % 2)] = [IGNORED] * (
                len(row["labels"]) // 3 * (i % 2)
            )
    return rows


def autograd(adapted: Any, rows: list[Any], causal: bool, autocast: bool = False):
    if not causal:
        return helpers.autograd_gradients(adapted, rows, autocast=autocast)
    batch = helpers.PlainTask().collate(rows, helpers.PlainTokenizer())
    labels = batch.pop("labels")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = adapted(**batch).logits
    loss = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="sum"
    )
    loss.backward()
    return float(loss.detach()), helpers.gradients(adapted)


def assert_same_gradients(
    adapted: Any, rows: list[Any], causal: bool, tolerance: float = 2e-6
) -> None:
    adapted.train()
    loss, expected = autograd(adapted, rows, causal)
    fast = engine(adapted)
    result = fast.forward_backward(fast.collate(rows), 1.0)
    got = helpers.gradients(adapted)
    assert float(result.loss_sum) == pytest.approx(loss, rel=5 * tolerance)
    assert result.units == fast.units(rows)
    assert result.tokens == sum(len(row["input_ids"]) for row in rows)
    assert helpers.distance(got, expected) < tolerance


@pytest.mark.parametrize("causal", [True, False], ids=["lm", "classifier"])
@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("subset", SUBSETS)
def test_gradients_are_those_of_peft(family, subset, causal):
    adapted = adapt(model(family, causal), SUBSETS[subset], causal)
    assert_same_gradients(adapted, examples(LENGTHS, causal), causal)


def test_gradients_of_every_target_in_one_block_only():
    for block in range(3):
        for target in SUBSETS["all"]:
            adapted = adapt(model("llama", True), [target], True, layers_to_transform=[block])
            assert_same_gradients(adapted, examples([9, 17], True), True)


def test_gradients_on_the_twins_and_every_instruction_set(implementation):
    assert_same_gradients(
        adapt(model("llama", True), SUBSETS["all"], True), examples(LENGTHS, True), True, 3e-6
    )


@pytest.mark.parametrize("lengths", [[2], [60], [2] * 9, [58] + [2] * 20, [1, 30, 1]])
def test_extreme_lengths(lengths):
    adapted = adapt(model("llama", True), SUBSETS["all"], True)
    assert_same_gradients(adapted, examples(lengths, True), True, tolerance=4e-6)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
        {
            **{"rope_type": "llama3", "factor": 8.0, "rope_theta": 10000.0},
            **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
            "original_max_position_embeddings": 20,
        },
    ],
)
def test_gradients_with_scaled_positions(rope):
    adapted = adapt(model("llama", True, rope_parameters=rope), [Q, V], True)
    assert_same_gradients(adapted, examples(LENGTHS, True), True)


def test_classifier_looks_at_the_last_token_that_is_not_padding():
    adapted = adapt(model("llama", False), [Q, V], False)
    rows = examples(LENGTHS, False)
    rows[2]["input_ids"][-3:] = [0, 7, 0]
    assert_same_gradients(adapted, rows, False)


@pytest.mark.parametrize("causal", [True, False], ids=["lm", "classifier"])
def test_bfloat16_error_is_that_of_autocast(causal):
    ours, autocasts = [], []
    for seed in range(12):
        adapted = adapt(model("llama", causal, seed), SUBSETS["all"], causal).train()
        rows = examples([9, 17, 30, 25], causal, seed)
        _, exact = autograd(adapted, rows, causal)
        _, cast = autograd(adapted, rows, causal, autocast=True)
        fast = engine(adapted, torch.bfloat16)
        fast.forward_backward(fast.collate(rows), 1.0)
        ours.append(helpers.distance(helpers.gradients(adapted), exact))
        autocasts.append(helpers.distance(cast, exact))
    assert sum(ours) < 1.2 * sum(autocasts), (ours, autocasts)


def test_directional_derivative_with_dropout():
    made = model("llama", True, attention_dropout=0.1)
    adapted = adapt(made, SUBSETS["all"], True, lora_dropout=0.2).train()
    fast = engine(adapted)
    batch = fast.collate(examples([20, 31, 8], True))

    def loss() -> float:
        torch.manual_seed(5)
        return float(fast.forward_backward(batch, 1.0).loss_sum.double())

    loss()
    grads = helpers.gradients(adapted)
    parameters = dict(adapted.named_parameters())
    norm = float(sum(g.double().square().sum() for g in grads.values()) ** 0.5)

    def move(amount: float) -> None:
        with torch.no_grad():
            for name, grad in grads.items():
                parameters[name].add_(grad / norm, alpha=amount)

    move(5e-3)
    above = loss()
    move(-1e-2)
    assert (above - loss()) / 1e-2 == pytest.approx(norm, rel=1e-2)


@pytest.mark.parametrize("causal", [True, False], ids=["lm", "classifier"])
@pytest.mark.parametrize("family", CONFIGS)
def test_logits_are_the_models(family, causal):
    adapted = adapt(model(family, causal), SUBSETS["all"], causal).eval()
    rows = examples(LENGTHS, causal)
    batch = helpers.PlainTask().collate(rows, helpers.PlainTokenizer())
    batch.pop("labels")
    with torch.no_grad():
        expected = adapted(**batch).logits
    fast = engine(adapted)
    got = fast.logits(fast.collate(rows))
    assert got.shape == expected.shape
    if causal:
        mask = batch["attention_mask"].bool()
        got, expected = got[mask], expected[mask]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_batch_without_a_label_is_no_work():
    adapted = adapt(model("llama", True), [Q], True).train()
    fast = engine(adapted)
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORED] * 3}, {"input_ids": [5], "labels": [5]}]
    result = fast.forward_backward(fast.collate(rows), 1.0)
    assert (float(result.loss_sum), result.units, fast.units(rows)) == (0.0, 0, 0)
    assert all(float(grad.norm()) == 0 for grad in helpers.gradients(adapted).values())


def test_rank_above_the_width_of_the_layer():
    assert_same_gradients(
        adapt(model("llama", True), [Q, DOWN], True, r=70), examples([9, 17], True), True
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_in_the_batch_change_nothing(dtype):
    adapted = adapt(model("qwen3", True), SUBSETS["all"], True).eval()
    fast = engine(adapted, dtype)
    rows = examples([13, 1, 40], True)
    together = fast.logits(fast.collate(rows))
    for i, row in enumerate(rows):
        others = examples([33, 7], True, seed=9)
        n = len(row["input_ids"])
        moved = fast.logits(fast.collate([others[0], row, others[1]]))[1, :n]
        torch.testing.assert_close(moved, together[i, :n], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_in_a_weight_is_a_nan_in_the_loss(dtype):
    made = model("llama", True)
    made.model.layers[1].mlp.up_proj.weight.data[3, 5] = float("nan")
    adapted = adapt(made, SUBSETS["all"], True).train()
    fast = engine(adapted, dtype)
    result = fast.forward_backward(fast.collate(examples([5, 20], True)), 1.0)
    assert result.loss_sum.isnan()


def test_example_longer_than_the_model_is_refused():
    with pytest.raises(DataError, match="61 tokens"):
        engine(adapt(model("llama", True), [Q], True)).collate(examples([61], True))


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"hidden_act": "gelu"}, "activation"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "dynamic",
        ),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(kwargs, reason):
    with pytest.raises(Unsupported, match=reason):
        find_layout(adapt(model("llama", True, **kwargs), [Q], True))


def test_sliding_window_is_refused():
    with pytest.raises(Unsupported, match="sliding window of 8"):
        find_layout(adapt(model("mistral", True, sliding_window=8), [Q], True))


def test_trained_or_adapted_head_is_refused():
    with pytest.raises(Unsupported, match="output embedding"):
        find_layout(adapt(model("llama", True), [Q, "lm_head"], True))
    with pytest.raises(Unsupported, match="embed"):
        find_layout(adapt(model("llama", True), [Q], True, modules_to_save=["lm_head"]))

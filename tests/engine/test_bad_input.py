"""Batches, ranks and weights at the edge, in every engine: right results, or a clear refusal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from lorafit.engine import choose
from lorafit.engine.eager import EagerEngine
from lorafit.errors import DataError
from tests.engine import helpers

ENGINES = ("eager", "generic", "fast")
MOST = 60
"""Positions of the tiny models."""


def engine(setting: Any, adapted: Any, dtype: torch.dtype = torch.float32) -> Any:
    task: Any = helpers.PlainTask()
    tokenizer: Any = helpers.PlainTokenizer()
    return choose.choose_engine(setting, adapted, task, tokenizer, choose.Computing(dtype=dtype))


def modernbert() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        **{"vocab_size": 101, "num_hidden_layers": 3, "max_position_embeddings": MOST},
        **{"hidden_size": 36, "num_attention_heads": 3, "intermediate_size": 52},
        **{"num_labels": 3, "pad_token_id": 0, "local_attention": 8, "bos_token_id": 1},
        **{"eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    }
    config = hf.ModernBertConfig(**sizes)
    return hf.AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")


def adapted_to(family: str, r: int = 5, **kwargs: Any) -> Any:
    if family == "modernbert":
        return helpers.adapt(modernbert(), ["Wqkv", "Wo", "Wi"], r=r)
    return helpers.adapt(helpers.model(family, **kwargs), helpers.ALL[family], r=r)


def difference(setting: str, adapted: Any, rows: list[Any], dtype: torch.dtype) -> float:
    """Distance of an engine's gradients from those of the model's own autograd."""
    adapted.train()
    _, expected = helpers.autograd_gradients(adapted, rows)
    ours = engine(setting, adapted, dtype)
    assert ours.name == setting
    adapted.train()
    ours.forward_backward(ours.collate(rows), 1.0)
    return helpers.distance(helpers.gradients(adapted), expected)


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [MOST], [MOST, *[1, 2] * 6]])
@pytest.mark.parametrize("setting", ENGINES)
def test_shortest_longest_and_one_giant_among_many_short(setting, lengths):
    adapted = adapted_to("bert")
    assert difference(setting, adapted, helpers.examples(lengths), torch.float32) < 2e-6


@pytest.mark.parametrize("setting", ENGINES)
def test_rank_above_the_layers_own(setting):
    adapted = adapted_to("bert", r=80)
    assert difference(setting, adapted, helpers.examples([7, 3]), torch.float32) < 2e-6


@pytest.mark.parametrize(("width", "heads"), [(33, 3), (34, 2), (35, 7), (5, 1)])
@pytest.mark.parametrize("setting", ["generic", "fast"])
def test_odd_widths_and_heads(setting, width, heads):
    sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": width + 10}
    rows = helpers.examples([9, 1, 4])
    adapted = adapted_to("bert", **sizes)
    assert difference(setting, adapted, rows, torch.float32) < 2e-6
    assert difference(setting, adapted, rows, torch.bfloat16) < 5e-2


@pytest.mark.parametrize("setting", ENGINES)
@pytest.mark.parametrize("rows", [[], [{"input_ids": [], "labels": 0}]])
def test_batches_of_nothing_are_refused(setting, rows):
    with pytest.raises(DataError, match="empty one, or none"):
        engine(setting, adapted_to("bert")).collate(rows)


@pytest.mark.parametrize("setting", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_in_a_frozen_weight_gives_a_nan_loss(setting, dtype):
    adapted = adapted_to("bert")
    with torch.no_grad():
        adapted.bert.encoder.layer[1].output.dense.base_layer.weight[3, 2] = float("nan")
    ours = engine(setting, adapted, dtype)
    assert ours.name == setting
    result = ours.forward_backward(ours.collate(helpers.examples([4, 9])), 1.0)
    assert result.loss_sum.isnan()


@pytest.mark.parametrize("family", ["electra", "roberta", "distilbert", "modernbert"])
def test_generic_engine_computes_every_encoder(family):
    rows = helpers.examples([11, 11, 3, 1])
    assert difference("generic", adapted_to(family), rows, torch.float32) < 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_modernbert_gets_the_generic_engine(dtype):
    ours = engine("auto", adapted_to("modernbert"), dtype)
    assert ours.name == "generic"
    eager = EagerEngine(ours.model, ours.task, ours.tokenizer)
    rows = helpers.examples([8, 2, 8])
    mine, theirs = ours.logits(ours.collate(rows)), eager.logits(eager.collate(rows))
    assert ((mine - theirs).norm() / theirs.norm()) < choose.AGREEMENT[dtype]

"""The generic tier against plain autograd, on architectures that have no fast engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn
from torch.nn import functional as F

from lorafit.engine.frozen import FrozenLinear
from lorafit.engine.generic import intercept
from lorafit.engine.generic.engine import GenericEngine
from lorafit.engine.generic.split import split_by_length
from lorafit.engine.kernels.counter import Seeds
from lorafit.engine.lm_loss import head_loss
from tests import tiny
from tests.engine import helpers

TARGETS = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama": ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "qwen2": ["q_proj", "k_proj", "v_proj"],
    "t5": ["q", "v", "wi", "wo"],
    "bert": ["query", "value", "dense"],
    "deberta": ["query_proj", "value_proj", "dense"],
}


def model(family: str, dropout: float = 0.0, **kwargs: Any) -> Any:
    if family == "deberta":
        torch.manual_seed(0)
        sizes: dict[str, Any] = {
            **{"vocab_size": 101, "hidden_size": 36, "num_hidden_layers": 2, "num_labels": 3},
            **{"num_attention_heads": 3, "intermediate_size": 52, "max_position_embeddings": 60},
            **{"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
        }
        made: Any = hf.DebertaV2ForSequenceClassification(hf.DebertaV2Config(**sizes))
    else:
        made = tiny.classifier(family)
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
        for name in ("dropout_prob", "attention_dropout", "drop_prob", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, dropout)
    kwargs |= {"fan_in_fan_out": family == "gpt2"}
    return helpers.adapt(made, TARGETS[family], **kwargs)


def engine(adapted: Any, dtype: torch.dtype = torch.float32) -> GenericEngine:
    task: Any = helpers.PlainTask()
    tokenizer: Any = helpers.PlainTokenizer()
    return GenericEngine(adapted, task, tokenizer, dtype=dtype, smallest=1)


def rows(lengths: list[int], family: str) -> list[Any]:
    made = helpers.examples(lengths)
    for row in made:
        # Ids below tiny.VOCAB; T5 takes the state at the end-of-sequence token.
        row["input_ids"] = [min(token, tiny.VOCAB - 1) for token in row["input_ids"]]
        row["input_ids"][-1] = 1
    if family == "t5":
        for row in made:
            row["input_ids"] = [2 + token % 90 for token in row["input_ids"][:-1]] + [1]
    return made


def assert_same_gradients(
    adapted: Any, family: str, lengths: list[int], tolerance: float = 2e-6
) -> None:
    adapted.train()
    batch = rows(lengths, family)
    loss, expected = helpers.autograd_gradients(adapted, batch, scale=0.3)
    fast = engine(adapted)
    result = fast.forward_backward(fast.collate(batch), 0.3)
    got = helpers.gradients(adapted)
    assert float(result.loss_sum) == pytest.approx(loss, rel=1e-5)
    assert result.tokens == sum(lengths)
    assert helpers.distance(got, expected) < tolerance


@pytest.mark.parametrize("family", TARGETS)
def test_gradients_are_those_of_peft(family):
    assert_same_gradients(model(family), family, [9, 9, 8, 7])


@pytest.mark.parametrize("family", TARGETS)
def test_gradients_of_dora_and_of_several_ranks(family):
    assert_same_gradients(model(family, use_dora=True), family, [9, 4])
    assert_same_gradients(model(family, r=3, rank_pattern={TARGETS[family][0]: 7}), family, [9, 4])


def test_gradients_when_the_batch_is_split():
    adapted = model("llama")
    lengths = [39, 2, 1, 3, 2, 30]
    assert len(split_by_length([n * 9 for n in lengths])) > 1
    assert_same_gradients(adapted, "llama", lengths)


def test_gradients_when_the_batch_is_split_in_three():
    adapted = model("bert")
    fast = engine(adapted)
    lengths = [39, 2, *[20] * 5, 1, *[2] * 5, 3]
    batch = rows(lengths, "bert")
    assert len(fast.collate(batch)["parts"]) > 2
    assert_same_gradients(adapted, "bert", lengths, tolerance=4e-6)
    adapted.eval()
    alone = torch.cat([fast.logits(fast.collate([row])) for row in batch])
    torch.testing.assert_close(fast.logits(fast.collate(batch)), alone, rtol=1e-4, atol=1e-5)
    assert fast.collate(batch)["labels"].tolist() == [row["labels"] for row in batch]


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "deberta"])
def test_bfloat16_error_is_that_of_autocast(family):
    adapted = model(family).train()
    batch = rows([20, 19, 18, 11], family)
    _, exact = helpers.autograd_gradients(adapted, batch)
    _, cast = helpers.autograd_gradients(adapted, batch, autocast=True)
    fast = engine(adapted, torch.bfloat16)
    fast.forward_backward(fast.collate(batch), 1.0)
    ours = helpers.distance(helpers.gradients(adapted), exact)
    assert ours < 1.2 * helpers.distance(cast, exact)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "deberta"])
def test_directional_derivative_with_dropout(family):
    adapted = model(family, dropout=0.1, lora_dropout=0.2).train()
    fast = engine(adapted)
    batch = fast.collate(rows([20, 19, 18], family))

    def loss() -> float:
        torch.manual_seed(4)
        return float(fast.forward_backward(batch, 1.0).loss_sum.double())

    first = loss()
    grads = helpers.gradients(adapted)
    adapted.eval()
    assert abs(loss() - first) > 1e-4, "dropout is off"
    adapted.train()
    adapted.zero_grad()
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


def test_torchs_own_dropout_is_not_called():
    adapted = model("gpt2", dropout=0.1, lora_dropout=0.1).train()
    fast = engine(adapted)
    state = torch.get_rng_state()
    fast.forward_backward(fast.collate(rows([20, 19], "gpt2")), 1.0)
    once = torch.get_rng_state()
    torch.set_rng_state(state)
    torch.randint(0, 2**32 - 1, (), dtype=torch.int64)
    assert torch.equal(torch.get_rng_state(), once), "only the seed of the pass is drawn"


def test_model_is_left_as_it_was():
    adapted = model("llama").train()
    fast = engine(adapted)
    before = {n: dict(vars(m)) for n, m in adapted.named_modules()}
    fast.forward_backward(fast.collate(rows([9, 4], "llama")), 1.0)
    assert {n: dict(vars(m)) for n, m in adapted.named_modules()} == before
    with pytest.raises(IndexError):
        fast.logits({"parts": [{"input_ids": torch.tensor([[1000]])}], "order": [0]})
    assert all("forward" not in vars(m) for m in adapted.modules())


def test_merged_and_disabled_adapters_are_followed():
    adapted = model("llama").eval()
    fast = engine(adapted)
    batch = fast.collate(rows([9, 4], "llama"))
    live = fast.logits(batch)
    layers = [m for m in adapted.modules() if hasattr(m, "lora_A")]
    for layer in layers:
        layer.merge()
    torch.testing.assert_close(fast.logits(batch), live, rtol=1e-4, atol=1e-5)
    for layer in layers:
        layer.unmerge()
        layer.enable_adapters(False)
    assert not torch.allclose(fast.logits(batch), live, atol=1e-3)


@pytest.mark.parametrize("chunk", [1, 100, 1 << 23])
def test_chunked_language_model_loss_is_the_whole_one(chunk):
    hidden = torch.randn(3, 11, 8, requires_grad=True)
    head = nn.Linear(8, 37)
    labels = torch.randint(0, 37, (3, 11))
    labels[0, :4] = labels[2, 7:] = -100
    loss, count = head_loss(hidden, FrozenLinear([head], torch.float32), labels, chunk)
    (loss * 0.3).backward()
    assert hidden.grad is not None
    got, hidden.grad = hidden.grad.clone(), None
    logits = head(hidden)[:, :-1].flatten(0, 1)
    expected = nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
    (expected * 0.3).backward()
    assert count == int((labels[:, 1:] != -100).sum())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(got, hidden.grad, rtol=1e-5, atol=1e-6)


def test_language_model_loss_without_any_label_is_zero():
    hidden = torch.randn(1, 4, 8, requires_grad=True)
    head = FrozenLinear([nn.Linear(8, 5, bias=False)], torch.float32)
    loss, count = head_loss(hidden, head, torch.full((1, 4), -100))
    loss.backward()
    assert (float(loss.detach()), count) == (0.0, 0)
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_split_keeps_every_example_once_and_wastes_little():
    lengths = [500, *[20] * 31]
    groups = split_by_length(lengths)
    assert sorted(i for group in groups for i in group) == list(range(32))
    assert groups[0] == [0]
    assert len(groups) == 2
    assert len(split_by_length([27, 28, 29, 30])) == 1
    assert split_by_length([5]) == [[0]]


def language_model(family: str) -> Any:
    sizes: dict[str, Any] = {"vocab_size": 101, "max_position_embeddings": 60, "pad_token_id": 0}
    if family == "gemma2":
        made: Any = hf.Gemma2ForCausalLM(
            hf.Gemma2Config(
                **sizes
                | {"hidden_size": 36, "num_attention_heads": 2, "num_key_value_heads": 1}
                | {"num_hidden_layers": 2, "intermediate_size": 52, "head_dim": 18}
                | {"final_logit_softcapping": 2.0, "attn_implementation": "eager"}
            )
        )
    else:
        made = tiny.language_model(family)
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    targets = TARGETS.get(family, ["q_proj", "down_proj"])
    return helpers.adapt(made, targets, task_type="CAUSAL_LM", fan_in_fan_out=family == "gpt2")


@pytest.mark.parametrize(
    ("family", "chunked"), [("gpt2", True), ("llama", True), ("gemma2", False)]
)
def test_language_model_gradients_are_those_of_all_logits(family, chunked):
    adapted = language_model(family).train()
    batch = rows([9, 8, 9, 2], "llama")
    for row in batch:
        row["labels"] = [-100, *row["input_ids"][1:]]
    batch[0]["labels"][:4] = [-100] * 4

    class Task(helpers.PlainTask):
        task_type = "CAUSAL_LM"

    padded = Task().collate(batch, helpers.PlainTokenizer())
    labels = padded.pop("labels")
    logits = adapted(**padded).logits[:, :-1]
    loss = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
    )
    loss.backward()
    expected = helpers.gradients(adapted)
    task: Any = Task()
    tokenizer: Any = helpers.PlainTokenizer()
    fast = GenericEngine(adapted, task, tokenizer, dtype=torch.float32, smallest=1)
    assert fast.language is not None
    assert (fast.language.head is not None) == chunked
    result = fast.forward_backward(fast.collate(batch), 1.0)
    assert result.units == fast.units(batch) == int((labels[:, 1:] != -100).sum())
    assert float(result.loss_sum) == pytest.approx(float(loss.detach()), rel=1e-5)
    assert helpers.distance(helpers.gradients(adapted), expected) < 3e-6


@pytest.mark.parametrize("kind", ["boolean", "float", "partly float"])
def test_attention_of_a_query_without_keys_is_torchs(kind):
    torch.manual_seed(0)
    seen = torch.rand(2, 1, 5, 6) > 0.4
    seen[0, :, 1] = False
    seen[1, :, 4] = False
    mask = seen if kind == "boolean" else torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    if kind == "partly float":  # a bias that leaves every query something to look at
        mask = mask.masked_fill(~seen.any(-1, keepdim=True), -1.0)
    found: list[list[Any]] = []
    for dropout in (1e-12, 0.0):
        g = torch.Generator().manual_seed(1)
        q, k, v = (torch.randn(2, 3, n, 8, generator=g).requires_grad_() for n in (5, 6, 6))
        with intercept.Interception(intercept.Parts(nn.Module(), torch.float32), Seeds(0)):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        found.append([out.detach(), q.grad, k.grad, v.grad])
    if kind != "partly float":
        assert (found[0][0][0, :, 1] == 0).all()
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["modernbert", "gemma3", "gpt2", "mixtral"])
def test_padding_that_sees_no_token_makes_no_nan(family):
    torch.manual_seed(0)
    settings = {"attn_implementation": "sdpa", "num_labels": 3, "pad_token_id": 0}
    dropout = {"attn_pdrop": 0.5} if family == "gpt2" else {"attention_dropout": 0.5}
    config = tiny.CONFIGS[family](**settings, **dropout)
    made = hf.AutoModelForSequenceClassification.from_config(config)
    adapted = helpers.adapt(
        made,
        {"gpt2": ["c_attn"], "modernbert": ["Wqkv"]}.get(family, ["q_proj"]),
        fan_in_fan_out=family == "gpt2",
    ).train()

    class Task(helpers.PlainTask):
        """Padding on the left, where decoders' first queries see nothing at all."""

        def collate(self, examples: Any, tokenizer: Any) -> dict[str, torch.Tensor]:
            batch = super().collate(examples, tokenizer)
            if family != "modernbert":
                shifts = [len(examples[0]["input_ids"]) - len(x["input_ids"]) for x in examples]
                for name in ("input_ids", "attention_mask"):
                    rows = zip(batch[name], shifts, strict=True)
                    batch[name] = torch.stack([row.roll(by) for row, by in rows])
            return batch

    task: Any = Task()
    tokenizer: Any = helpers.PlainTokenizer()
    fast = GenericEngine(adapted, task, tokenizer, dtype=torch.float32, smallest=1)
    result = fast.forward_backward(fast.collate(rows([39, 2, 38, 4], family)), 1.0)
    assert torch.isfinite(result.loss_sum)
    gradients = helpers.gradients(adapted)
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())

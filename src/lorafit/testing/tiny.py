"""Tiny random models of the families people adapt, built in memory and seeded.

Biases are not zero, so that a method which forgets them is found out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

VOCAB = 99

# Its configurations take more settings than they declare.
hf: Any = transformers

_MARKS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2}
"""Where the family's own ids are beyond this vocabulary."""


def _encoder() -> dict[str, Any]:
    return {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 40,
    }


def _decoder() -> dict[str, Any]:
    return {**_encoder(), "num_key_value_heads": 2}


CONFIGS: dict[str, Callable[..., Any]] = {
    "bert": lambda **kw: hf.BertConfig(**_encoder(), **kw),
    "distilbert": lambda **kw: hf.DistilBertConfig(
        vocab_size=VOCAB,
        dim=32,
        n_layers=3,
        n_heads=4,
        hidden_dim=40,
        max_position_embeddings=40,
        **kw,
    ),
    "roberta": lambda **kw: hf.RobertaConfig(**_encoder(), **kw),
    "gpt2": lambda **kw: hf.GPT2Config(
        vocab_size=VOCAB,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=40,
        bos_token_id=1,
        eos_token_id=2,
        **kw,
    ),
    "llama": lambda **kw: hf.LlamaConfig(**_decoder(), **kw),
    "qwen2": lambda **kw: hf.Qwen2Config(**_decoder(), **kw),
    "t5": lambda **kw: hf.T5Config(
        vocab_size=VOCAB,
        d_model=32,
        d_kv=8,
        d_ff=40,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        **kw,
    ),
    "deberta-v2": lambda **kw: hf.DebertaV2Config(
        **_encoder(),
        relative_attention=True,
        position_buckets=8,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        type_vocab_size=0,
        **kw,
    ),
    "modernbert": lambda **kw: hf.ModernBertConfig(
        **_encoder(),
        local_attention=8,
        global_attn_every_n_layers=2,
        cls_token_id=1,
        sep_token_id=2,
        **_MARKS,
        **kw,
    ),
    "qwen3": lambda **kw: hf.Qwen3Config(**_decoder(), head_dim=12, **kw),
    "gemma3": lambda **kw: hf.Gemma3TextConfig(
        **_decoder(), head_dim=8, query_pre_attn_scalar=8, sliding_window=4, **_MARKS, **kw
    ),
    "phi3": lambda **kw: hf.Phi3Config(**_decoder(), **_MARKS, **kw),
    "mixtral": lambda **kw: hf.MixtralConfig(
        **_decoder(), num_local_experts=4, num_experts_per_tok=2, **kw
    ),
    "bart": lambda **kw: hf.BartConfig(
        vocab_size=VOCAB,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        max_position_embeddings=40,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
        **{**_MARKS, **kw},
    ),
}
"""A small configuration of each architecture, from what it is told besides."""

FAMILIES = ["bert", "distilbert", "gpt2", "llama", "qwen2", "qwen3", "roberta", "t5"]
"""One of each kind, for what has to be tried on several."""
CLASSIFIERS = FAMILIES
"""Every family here has a sequence-classification head."""
ARCHITECTURES = sorted(CONFIGS)
"""All that the promise names, for what has to hold of each."""
WRITERS = ["bart", "gemma3", "gpt2", "llama", "mixtral", "phi3", "qwen2", "qwen3", "t5"]
"""Those of them with a language model's head."""


def classifier(family: str, seed: int = 0, num_labels: int = 3) -> PreTrainedModel:
    """A tiny sequence classifier in evaluation mode."""
    torch.manual_seed(seed)
    # The end-of-sequence token closes T5's and the padding token GPT-style classifiers' input.
    config = CONFIGS[family](num_labels=num_labels, pad_token_id=0)
    return _build(hf.AutoModelForSequenceClassification, config)


def language_model(family: str, seed: int = 0) -> PreTrainedModel:
    """A tiny causal (T5, BART: sequence-to-sequence) language model in evaluation mode."""
    torch.manual_seed(seed)
    config = CONFIGS[family](pad_token_id=0)
    auto = hf.AutoModelForSeq2SeqLM if config.is_encoder_decoder else hf.AutoModelForCausalLM
    return _build(auto, config)


def _build(auto: Any, config: Any) -> PreTrainedModel:
    model = auto.from_config(config, attn_implementation="eager")
    for module in model.modules():
        # Zero biases and unit gains hide faults.
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)
    built: PreTrainedModel = model.eval()
    return built


def inputs(
    family: str,  # noqa: ARG001 one call for every model, as `logits`
    rows: int = 3,
    length: int = 7,
    seed: int = 1,
) -> dict[str, torch.Tensor]:
    """Token ids ``(rows, length)`` with padding at the end of the last row."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCAB, (rows, length), generator=g)
    mask = torch.ones_like(ids)
    ids[:, -1] = 1  # T5's end of sequence
    ids[-1, -3] = 1
    ids[-1, -2:] = 0
    mask[-1, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def logits(model: nn.Module, family: str) -> torch.Tensor:
    """Logits in evaluation mode on `inputs`."""
    model.eval()
    batch = inputs(family)
    if family == "t5" and type(model).__name__.endswith("ForConditionalGeneration"):
        batch["decoder_input_ids"] = batch["input_ids"]
    output: torch.Tensor = model(**batch).logits
    return output

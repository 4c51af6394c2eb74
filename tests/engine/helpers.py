"""Models with adapters in every place, and the gradients autograd gives them."""

from __future__ import annotations

import warnings
from typing import Any

import peft
import torch
import transformers as hf
from torch import nn

from lorafit.engine.encoder.engine import FastEncoder
from lorafit.engine.encoder.support import find_layout

ALL = {
    "bert": ["query", "key", "value", "attention.output.dense", "intermediate.dense",
             "output.dense"],
    "distilbert": ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
}  # fmt: skip
ALL["roberta"] = ALL["electra"] = ALL["bert"]

WIDTHS = {"hidden_size": 36, "num_attention_heads": 3, "intermediate_size": 52}


def config(family: str, dropout: float = 0.0, **kwargs: Any) -> Any:
    if family == "distilbert":
        sizes: dict[str, Any] = {
            **{"dim": 36, "n_heads": 3, "hidden_dim": 52, "n_layers": 3, "vocab_size": 101},
            **{"max_position_embeddings": 60, "num_labels": 3, "seq_classif_dropout": dropout},
            **{"dropout": dropout, "attention_dropout": dropout, "pad_token_id": 0, **kwargs},
        }
        return hf.DistilBertConfig(**sizes)
    classes = {"bert": hf.BertConfig, "roberta": hf.RobertaConfig, "electra": hf.ElectraConfig}
    values: dict[str, Any] = {
        **WIDTHS,
        **{"vocab_size": 101, "num_hidden_layers": 3, "max_position_embeddings": 60},
        **{"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout},
        **{"num_labels": 3, "pad_token_id": 0, **kwargs},
    }
    if family == "electra":
        values |= {"embedding_size": 20, "summary_use_proj": False}
    return classes[family](**values)


def model(family: str, dropout: float = 0.0, seed: int = 0, **kwargs: Any) -> Any:
    torch.manual_seed(seed)
    auto = kwargs.pop("auto", hf.AutoModelForSequenceClassification)
    made = auto.from_config(config(family, dropout, **kwargs))
    for module in made.modules():
        # Unit gains and zero biases hide faults; initial weights are so small that they hide all.
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, mean=1.0, std=0.2)
            nn.init.normal_(module.bias, std=0.2)
    return made


def adapt(base: Any, targets: list[str], seed: int = 1, **kwargs: Any) -> Any:
    """PEFT's adapters, with a B that is not zero; returns the model inside."""
    kwargs = {"task_type": "SEQ_CLS", "r": 5, "lora_alpha": 11, **kwargs}
    with warnings.catch_warnings():
        # peft reads an attribute that transformers renames.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        wrapped = peft.get_peft_model(base, peft.LoraConfig(target_modules=targets, **kwargs))
    torch.manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name and parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return wrapped.base_model.model


class PlainTask:
    """The methods of a task that an engine calls; one loss an example."""

    supervision = "example"

    def count(self, examples: list[dict[str, Any]]) -> int:
        return len(examples)

    def units(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(labels), dtype=torch.int64)

    def collate(self, examples: list[dict[str, Any]], tokenizer: Any) -> dict[str, torch.Tensor]:
        width = max(len(example["input_ids"]) for example in examples)
        batch: dict[str, torch.Tensor] = {}
        for key in ("input_ids", "labels", "token_type_ids"):
            if key in examples[0] and isinstance(examples[0][key], list):
                fill = -100 if key == "labels" else tokenizer.pad_token_id
                batch[key] = torch.tensor(
                    [row[key] + [fill] * (width - len(row[key])) for row in examples]
                )
        if "labels" not in batch:
            batch["labels"] = torch.tensor([example["labels"] for example in examples])
        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        batch["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
        return batch

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if logits.dim() == 3:
            each = nn.functional.cross_entropy(
                logits.transpose(1, 2), labels, reduction="none", ignore_index=-100
            )
            return each.sum(1)
        return nn.functional.cross_entropy(logits, labels, reduction="none")


class PlainTokenizer:
    pad_token_id = 0


def examples(lengths: list[int], seed: int = 2, per_token: bool = False, **extra: Any) -> list[Any]:
    g = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, n: int) -> list[int]:
        return torch.randint(low, high, (n,), generator=g).tolist()

    return [
        {
            "input_ids": draw(3, 101, n),
            "labels": draw(0, 3, n) if per_token else draw(0, 3, 1)[0],
            **({"token_type_ids": draw(0, 2, n)} if extra.get("pairs") else {}),
        }
        for n in lengths
    ]


def engine(adapted: Any, dtype: torch.dtype = torch.float32) -> FastEncoder:
    layout = find_layout(adapted)
    task: Any = PlainTask()
    tokenizer: Any = PlainTokenizer()
    return FastEncoder(adapted, layout, task, tokenizer, dtype=dtype)


def gradients(adapted: nn.Module) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in adapted.named_parameters() if p.grad is not None}
    adapted.zero_grad(set_to_none=True)
    return found


def autograd_gradients(
    adapted: Any, rows: list[Any], scale: float = 1.0, autocast: bool = False
) -> tuple[float, dict[str, torch.Tensor]]:
    batch = PlainTask().collate(rows, PlainTokenizer())
    labels = batch.pop("labels")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = adapted(**batch).logits
    loss = PlainTask().losses(logits.float(), labels).sum()
    (loss * scale).backward()
    return float(loss.detach()), gradients(adapted)


def distance(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Relative distance of all gradients together, Euclidean norm."""
    assert got.keys() == expected.keys()
    difference = sum((got[n].double() - expected[n].double()).square().sum() for n in got)
    return float((difference / sum(t.double().square().sum() for t in expected.values())) ** 0.5)

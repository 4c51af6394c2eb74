"""Small trainings that run with transformers' Trainer and with ours."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from tests import tiny

TARGETS = {
    "bert": r".*encoder.*\.(query|value|dense)",
    "distilbert": ["q_lin", "v_lin", "lin1"],
    "roberta": ["query", "value"],
    "llama": ["q_proj", "v_proj", "down_proj"],
    "gpt2": ["c_attn"],
}


class Rows(torch.utils.data.Dataset):
    """Random texts of different lengths; what is learned depends on the first token."""

    def __init__(self, learned: str = "classes", n: int = 20, seed: int = 5) -> None:
        g = torch.Generator().manual_seed(seed)
        sizes = torch.randint(3, 14, (n,), generator=g).tolist()
        self.texts = [torch.randint(3, tiny.VOCAB, (k,), generator=g).tolist() for k in sizes]
        self.learned = learned

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, i: int) -> dict[str, Any]:
        text = self.texts[i]
        labels: Any = {
            "classes": text[0] % 3,
            "number": text[0] / 50,
            "several": [float(text[0] % 2), float(text[1] % 2), 1.0],
            "tokens": [-100, *(token % 3 for token in text[1:])],
            "next_token": list(text),
        }.get(self.learned)
        row = {"input_ids": text}
        return row if labels is None else row | {"labels": labels}


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pads on the right."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(values: list[int], fill: int) -> list[int]:
        return values + [fill] * (longest - len(values))

    ids = [row["input_ids"] for row in rows]
    batch = {
        "input_ids": torch.tensor([padded(row, PAD) for row in ids]),
        "attention_mask": torch.tensor([padded([1] * len(row), 0) for row in ids]),
    }
    if "labels" not in rows[0]:
        return batch
    labels = [row["labels"] for row in rows]
    if isinstance(labels[0], list) and all(
        len(a) == len(b) for a, b in zip(labels, ids, strict=True)
    ):
        labels = [padded(row, -100) for row in labels]
    return batch | {"labels": torch.tensor(labels)}


PAD = 0


def base(family: str, learned: str = "classes", **config: Any) -> Any:
    """A tiny model without dropout."""
    torch.manual_seed(0)
    if learned == "next_token":
        model: Any = tiny.language_model(family)
    elif learned == "tokens":
        torch.manual_seed(0)
        auto = transformers.AutoModelForTokenClassification
        model = auto.from_config(tiny.CONFIGS[family](num_labels=3))
    else:
        model = tiny.classifier(family, num_labels=1 if learned == "number" else 3)
    model.config.update(config)
    model.config.pad_token_id = PAD
    if family == "roberta":
        for module in model.modules():
            if hasattr(module, "padding_idx"):
                module.padding_idx = PAD
    return without_dropout(model)


def without_dropout(model: nn.Module) -> nn.Module:
    module: Any
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return model


def adapted(by: str, family: str, learned: str = "classes", **settings: Any) -> Any:
    """``by``: ``peft``, ``ours`` (`lorafit.peft`) or ``full``: no adapter, everything trains."""
    model = base(family, learned)
    if by == "full":
        return model
    package: Any = importlib.import_module("peft" if by == "peft" else "lorafit.peft")
    kind = {"next_token": "CAUSAL_LM", "tokens": "TOKEN_CLS"}.get(learned, "SEQ_CLS")
    wanted = {"r": 4, "target_modules": TARGETS[family], "task_type": kind} | settings
    if family == "gpt2":
        wanted["fan_in_fan_out"] = True
    torch.manual_seed(1)
    return package.get_peft_model(model, package.LoraConfig(**wanted))


def trainer(
    cls: Any,
    model: Any,
    folder: Path,
    *,
    learned: str = "classes",
    keywords: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        **{
            **{"max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-2},
            **{"eval_strategy": "steps", "eval_steps": 3, "save_steps": 3, "logging_steps": 1},
            **{"report_to": "none", "use_cpu": True, "disable_tqdm": True, "seed": 3},
            **{"dataloader_pin_memory": False},
            **settings,
        },
    )
    rest = {"data_collator": collate, "train_dataset": Rows(learned)} | (keywords or {})
    return cls(model, arguments, **{"eval_dataset": Rows(learned, seed=6)} | rest)


def trained(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


TIMES = ("runtime", "per_second", "preparation_time")


def numbers(run: Any) -> list[dict[str, float]]:
    """What was logged, without times."""
    return [
        {k: v for k, v in entry.items() if not k.endswith(TIMES)} for entry in run.state.log_history
    ]

"""Tiny models on disk and rows of text, with the tokenizers of `lorafit.testing`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from datasets import Dataset, DatasetDict

from lorafit.testing.words import (
    BAD,
    GOOD,
    OTHER,
    SPECIALS,
    WORDS,
    bert_tokenizer,
    ending_tokenizer,
    gpt2_tokenizer,
)
from tests import tiny

__all__ = [
    "BAD",
    "GOOD",
    "OTHER",
    "SPECIALS",
    "WORDS",
    "bert_tokenizer",
    "ending_tokenizer",
    "gpt2_tokenizer",
    "prompts",
    "rows",
    "save_base",
    "save_classifier",
    "save_language_model",
    "splits",
]


def save_base(
    folder: Path, family: str = "bert", seed: int = 0, tokenizer: bool = True, **config: Any
) -> Path:
    """Saves a tiny pretrained model without a task head, as the Hub has them."""
    torch.manual_seed(seed)
    settings = tiny.CONFIGS[family](pad_token_id=0, **config)
    hf.AutoModel.from_config(settings).save_pretrained(folder)
    if tokenizer:
        bert_tokenizer(folder).save_pretrained(folder)
    return folder


def save_language_model(folder: Path, family: str = "llama", seed: int = 0) -> Path:
    """Saves a tiny language model with a tokenizer like GPT-2's, an encoder-decoder's like T5's."""
    model = tiny.language_model(family, seed)
    model.save_pretrained(folder)
    ends = model.config.is_encoder_decoder
    (ending_tokenizer() if ends else gpt2_tokenizer()).save_pretrained(folder)
    return folder


def save_classifier(folder: Path, labels: list[str], family: str = "bert", seed: int = 0) -> Path:
    """Saves a tiny fine-tuned classifier."""
    torch.manual_seed(seed)
    settings = tiny.CONFIGS[family](
        pad_token_id=0,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    hf.AutoModelForSequenceClassification.from_config(settings).save_pretrained(folder)
    bert_tokenizer(folder).save_pretrained(folder)
    return folder


def rows(count: int = 12, seed: int = 0, names: tuple[str, str] = ("neg", "pos")) -> Dataset:
    """Reviews whose words tell their label; lengths differ."""
    generator = torch.Generator().manual_seed(seed)

    def pick(words: list[str]) -> str:
        return words[int(torch.randint(len(words), (), generator=generator))]

    texts, labels = [], []
    for index in range(count):
        good = index % 2
        length = 2 + int(torch.randint(8, (), generator=generator))
        words = [pick(OTHER) for _ in range(length)] + [pick(GOOD if good else BAD)]
        texts.append(" ".join(words))
        labels.append(names[good])
    return Dataset.from_dict({"text": texts, "label": labels})


def prompts(count: int = 12, seed: int = 0) -> Dataset:
    """Prompts of an adjective, with a completion that says it again."""
    generator = torch.Generator().manual_seed(seed)
    words = [
        WORDS[i] for i in torch.randint(len(WORDS) - len(OTHER), (count,), generator=generator)
    ]
    return Dataset.from_dict(
        {
            "prompt": [f"the film is {word}" for word in words],
            "completion": [f"a {word} story with a plot" for word in words],
        }
    )


def splits(count: int = 12, seed: int = 0) -> DatasetDict:
    """Train, validation and test splits of `rows`."""
    return DatasetDict(
        {
            "train": rows(count, seed),
            "validation": rows(6, seed + 1),
            "test": rows(8, seed + 2),
        }
    )

"""Pretrains the small language model of the pair "restaurants".

    python -m benchmarks.tuning.pretrain FOLDER [--steps 1500]

A Llama of 4 layers and 192 dimensions with its own tokenizer, on the BBC articles of
`news` and the reviews of the demo: text of other kinds than the restaurants it is then
tuned on. Grids need full runs by the dozen, which SmolLM2-135M would take hours for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from datasets import concatenate_datasets
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.tuning.news import ARTICLES
from lorafit.config import DataConfig
from lorafit.data.read.source import load_splits
from lorafit.packaged import DATA as REVIEWS
from lorafit.paths import resolve

END = "<|end|>"
VOCAB, LENGTH, POSITIONS, BATCH, RATE = 4000, 128, 512, 16, 2e-3


def texts() -> list[str]:
    """All articles and reviews."""
    folder = resolve(ARTICLES)
    assert folder is not None
    articles = [p.read_text("utf-8", errors="replace") for p in sorted(folder.glob("*/*.txt"))]
    splits = load_splits(REVIEWS, DataConfig(path=REVIEWS))
    return [*articles, *concatenate_datasets(list(splits.values()))["text"]]


def tokenizer_of(corpus: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the corpus."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(corpus, vocab_size=VOCAB, special_tokens=[END])
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,  # noqa: SLF001 tokenizers 0.23 has no door to it
        eos_token=END,
        pad_token=END,
        model_max_length=POSITIONS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    torch.manual_seed(0)
    corpus = texts()
    tokenizer = tokenizer_of(corpus)
    ids = [token for text in corpus for token in [*tokenizer(text)["input_ids"], 0]]
    windows = torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    for step in range(options.steps):
        rate = RATE * min(1.0, (step + 1) / 50, 4 * (1 - step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = windows[torch.randint(len(windows), (BATCH,))]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.3f}", flush=True)
    model.save_pretrained(options.folder)
    tokenizer.save_pretrained(options.folder)
    print(f"{options.steps} steps of {BATCH * LENGTH} tokens, {len(ids):,} tokens of text")


if __name__ == "__main__":
    main()

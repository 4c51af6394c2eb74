"""A language of a few words, with tiny tokenizers that know them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase

hf: Any = transformers  # its tokenizers are not typed

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GOOD = ["great", "good", "fine", "lovely", "warm", "funny", "bright", "moving"]
BAD = ["awful", "bad", "dull", "weak", "cold", "empty", "slow", "tired"]
OTHER = ["a", "the", "film", "movie", "story", "and", "is", "very", "plot", "with", "of", "it"]
WORDS = [*GOOD, *BAD, *OTHER]
ODD = ["[SEP]", "</s>", "<|endoftext|>", "[PAD]", "xyz"]
"""Names of control tokens, which are text in a text, and a word that no tokenizer knows."""


def bert_tokenizer(folder: Path, max_length: int = 40) -> PreTrainedTokenizerBase:
    """A WordPiece tokenizer of the words here, pieces of letters for all others."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocab = [*SPECIALS, *WORDS, *letters[1:], *(f"##{letter}" for letter in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.txt"
    path.write_text("\n".join(vocab) + "\n", encoding="utf-8")
    found: PreTrainedTokenizerBase = hf.BertTokenizer(vocab=str(path), model_max_length=max_length)
    return found


def word_tokenizer() -> PreTrainedTokenizerBase:
    """One like BERT's of the words here alone; all others are unknown to it."""
    names = [*SPECIALS, *WORDS]
    vocab = {word: index for index, word in enumerate(names)}
    found: PreTrainedTokenizerBase = hf.BertTokenizer(vocab=vocab)
    return found


def gpt2_tokenizer() -> PreTrainedTokenizerBase:
    """A word tokenizer with an end-of-sequence token and, like GPT-2's, no padding token."""
    vocab = {word: index for index, word in enumerate(["<unk>", "<s>", "<|endoftext|>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    found: PreTrainedTokenizerBase = hf.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<|endoftext|>"
    )
    return found


def ending_tokenizer() -> PreTrainedTokenizerBase:
    """A word tokenizer that pads, and ends each text, as T5's does."""
    names = ["<pad>", "</s>", "<unk>"]
    vocab = {word: index for index, word in enumerate([*names, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    found: PreTrainedTokenizerBase = hf.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    return found


def sentences(
    count: int, seed: int = 0, shortest: int = 1, longest: int = 9, odd: bool = False
) -> list[list[str]]:
    """Lists of words drawn at random.

    Args:
        count: How many.
        seed: The same draws the same ones.
        shortest: Words of the shortest.
        longest: Words of the longest.
        odd: Draw from `ODD` too.
    """
    draw = random.Random(seed)
    known = [*WORDS, *ODD] if odd else WORDS
    return [draw.choices(known, k=draw.randint(shortest, longest)) for _ in range(count)]

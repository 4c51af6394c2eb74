"""The beginning of a very long text has the tokens that the whole text begins with."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from lorafit.tasks.parts import portions
from lorafit.tasks.parts.clip import Cut, beginnings
from lorafit.tasks.parts.tokenize import tokenize
from lorafit.testing.words import bert_tokenizer, gpt2_tokenizer, sentences

hf: Any = transformers


def corpus(seed: int, words: int) -> str:
    """Words, numbers, odd spaces, line breaks and other scripts, in random order."""
    draw = random.Random(seed)
    odd = ["  ", "\n", "\t", "12 345", "é", "漢字", "it's", "...", " ", "<s>", "\u2581", "a\u0301"]
    known = [word for row in sentences(40, seed) for word in row]
    found = [draw.choice(odd) if draw.random() < 0.2 else draw.choice(known) for _ in range(words)]
    return "".join(word + draw.choice([" ", " ", " ", "", "-"]) for word in found)


def trained(backend: Tokenizer, trainer: Any) -> Any:
    backend.train_from_iterator([corpus(seed, 400) for seed in range(30)], trainer)
    return hf.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def byte_level() -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(backend, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet))


def sentence_piece(unigram: bool) -> Any:
    """As Llama 2 (BPE without a pre-tokenizer) and T5 (Unigram) have it."""
    if unigram:
        backend = Tokenizer(models.Unigram())
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=400, unk_token="<unk>", special_tokens=["<unk>"]
        )
        return trained(backend, trainer)
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    found = trained(backend, trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"]))
    found.backend_tokenizer.pre_tokenizer = None
    found.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    return found


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "words": gpt2_tokenizer,
    "byte level": byte_level,
    "BPE": lambda: sentence_piece(False),
    "Unigram": lambda: sentence_piece(True),
}


SMALL = Cut(short=64, of_a_token=1, looked=100)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_first_tokens_are_those_of_the_whole_text(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    cut = 0
    for seed in range(40):
        text = corpus(100 + seed, 300)
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        for length in (1, 8, 30, 77, len(whole), len(whole) + 5):
            [found] = beginnings([text], tokenizer, length, SMALL)
            assert text.startswith(found)
            ids = tokenizer(found, add_special_tokens=False)["input_ids"]
            assert ids[:length] == whole[:length]
            assert (len(ids) > length) == (len(whole) > length)
            cut += len(found) < len(text)
    assert cut > 100


@pytest.mark.parametrize("length", [24, 25])
def test_pairs_are_cut_as_whole_ones(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    tokenizer = bert_tokenizer(tmp_path)
    draw = random.Random(0)
    rows = [
        (corpus(1_000 + n, draw.choice([1, 20, 300])), corpus(n, draw.choice([2, 250])))
        for n in range(60)
    ]
    cutting = "lorafit.tasks.parts.tokenize.beginnings"
    monkeypatch.setattr(cutting, partial(beginnings, cut=SMALL))
    found = tokenize(rows, tokenizer, length)
    monkeypatch.setattr(cutting, lambda texts, *_: list(texts))
    assert found.equals(tokenize(rows, tokenizer, length))


def test_texts_stay_whole_where_the_end_counts_or_a_token_is_two_words() -> None:
    text = corpus(0, 300)
    tokenizer = gpt2_tokenizer()
    assert beginnings([text], tokenizer, 8, SMALL) != [text]
    tokenizer.add_tokens(["a film"])
    assert beginnings([text], tokenizer, 8, SMALL) == [text]
    other = gpt2_tokenizer()
    other.truncation_side = "left"
    assert beginnings([text], other, 8, SMALL) == [text]


def test_a_text_without_a_place_to_cut_stays_whole() -> None:
    text = "漢字" * 500
    assert beginnings([text], gpt2_tokenizer(), 8, SMALL) == [text]


@pytest.mark.parametrize("seed", range(5))
def test_portions_have_every_row_once_and_are_bounded(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.choice([0, 3, 40, 99, 100, 250]) for _ in range(draw.randint(0, 60))]
    found = [sizes[at] for at in portions.portions(sizes, 7, 100)]
    assert [size for part in found for size in part] == sizes
    assert all(len(part) <= 7 and (sum(part) <= 100 or len(part) == 1) for part in found)

"""Text is text, with the tokenizers of every family."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import transformers as hf
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lorafit.data.findings import Findings
from lorafit.errors import DataError
from lorafit.tasks.parts.control import control_names, read, say_control, twin_of
from tests import tiny_text

CORPUS = [
    " ".join(tiny_text.WORDS),
    "</s> <s> <pad> <unk> <mask> <extra_id_0123456789> <eos> <bos>",
    "[SEP] [CLS] [MASK] [PAD] [UNK] <|endoftext|> <|im_end|> <|im_start|>",
] * 20


def _trained(name: str) -> Any:
    return getattr(hf, name)().train_new_from_iterator(CORPUS, 200)


def _bert() -> Any:
    """WordPiece that knows every character of the names of its control tokens."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(set("".join(CORPUS)) - {" "})
    vocab = [*names, *letters, *(f"##{letter}" for letter in letters), *tiny_text.WORDS]
    numbers = {word: i for i, word in enumerate(dict.fromkeys(vocab))}
    return hf.BertTokenizer(vocab=numbers, do_lower_case=True)


def _modernbert() -> Any:
    """Bytes joined to pairs, between [CLS] and [SEP]."""
    made = hf.GPT2Tokenizer().train_new_from_iterator(CORPUS, 300)
    made.add_special_tokens(
        {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "pad_token": "[PAD]"}
    )
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", made.cls_token_id), ("[SEP]", made.sep_token_id)],
    )
    return made


def _words() -> Any:
    """Whole words between spaces, the names of control tokens among them."""
    names = ["<pad>", "</s>", "<unk>"]
    numbers = {word: i for i, word in enumerate([*names, *tiny_text.WORDS])}
    backend = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "BERT": _bert,
    "ModernBERT": _modernbert,
    "words": _words,
    "ByT5": hf.ByT5Tokenizer,
    **{
        name.removesuffix("Tokenizer"): partial(_trained, name)
        for name in (
            *("T5Tokenizer", "XLMRobertaTokenizer", "AlbertTokenizer", "LlamaTokenizer"),
            *("GemmaTokenizer", "GPT2Tokenizer", "RobertaTokenizer", "Qwen2Tokenizer"),
        )
    },
}


@cache
def tokenizer_of(kind: str) -> Any:
    return MAKERS[kind]()


def counts(tokenizer: Any, ids: list[int]) -> int:
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return sum(token in special for token in ids)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_name_of_a_control_token_in_a_text_is_text(kind):
    tokenizer = tokenizer_of(kind)
    for name in sorted(control_names(tokenizer))[:12]:
        for text in (f"a film {name} good", f"{name}", f"good{name}{name}bad"):
            plain, found = read(tokenizer, ["a film"])["input_ids"], read(tokenizer, [text])
            assert counts(tokenizer, found["input_ids"][0]) == counts(tokenizer, plain[0]), text
            if kind not in ("BERT", "words") and tokenizer.is_fast:
                ids = read(tokenizer, [text], add_special_tokens=False)["input_ids"][0]
                assert tokenizer.unk_token_id not in ids or kind in ("GPT2", "Qwen2")
                assert (
                    tokenizer.decode(ids).replace(" ", "").lower() == text.replace(" ", "").lower()
                )
    assert control_names(tokenizer)


@pytest.mark.parametrize("kind", MAKERS)
def test_all_else_is_read_as_the_tokenizer_reads_it(kind):
    tokenizer = tokenizer_of(kind)
    texts = ["a good film", "the plot, and so on", "X"]
    options: dict[str, Any] = {"truncation": True, "max_length": 9}
    for columns in ([texts], [texts, texts[::-1]]):
        expected = tokenizer(*columns, **options)
        assert read(tokenizer, *columns, **options).data == expected.data
    assert read(tokenizer, texts, target=True).data == tokenizer(text_target=texts).data
    named = [f"a {name} b" for name in sorted(control_names(tokenizer))[:3]]
    expected = tokenizer(named)
    assert read(tokenizer, named, special_tokens="control").data == expected.data


@pytest.mark.parametrize("kind", ["T5", "XLMRoberta", "words", "Roberta"])
def test_pairs_and_cut_texts_end_as_others_do(kind):
    tokenizer = tokenizer_of(kind)
    named = "a </s> good <pad> film " * 5
    options: dict[str, Any] = {"truncation": True, "max_length": 12}
    for columns in ([[named, "a film"]], [[named, "a film"], ["a plot </s>", named]]):
        for ids in read(tokenizer, *columns, **options)["input_ids"]:
            assert len(ids) <= 12
            probe = tokenizer(*(["a"] for _ in columns))["input_ids"][0]
            assert counts(tokenizer, ids) == counts(tokenizer, probe)
            if tokenizer.eos_token_id in probe:
                assert ids[-1] == probe[-1]
    longest = read(tokenizer, [named], target=True, **options)["input_ids"][0]
    assert len(longest) == 12


@pytest.mark.parametrize("kind", ["T5", "XLMRoberta", "BERT", "Roberta", "words"])
def test_offsets_are_those_of_the_text(kind):
    tokenizer = tokenizer_of(kind)
    text = "good </s> bad [SEP] film"
    encoded = read(tokenizer, [text], add_special_tokens=False, return_offsets_mapping=True)
    ends = [text[start:end].strip() for start, end in encoded["offset_mapping"][0]]
    assert "".join(ends) == text.replace(" ", "")
    assert len(ends) == len(encoded["input_ids"][0]) == len(encoded.sequence_ids(0))


@pytest.mark.parametrize("kind", [name for name in MAKERS if name != "ByT5"])
def test_a_tokenizer_is_left_as_it_is(kind):
    tokenizer = copy.deepcopy(tokenizer_of(kind))
    before = tokenizer.backend_tokenizer.to_str()
    read(tokenizer, ["a </s> [SEP] <pad>"])
    assert tokenizer.backend_tokenizer.to_str() == before
    assert not tokenizer.backend_tokenizer.encode_special_tokens
    assert not tokenizer.split_special_tokens


@hypothesis_settings(max_examples=60)
@given(
    kind=st.sampled_from(["T5", "XLMRoberta", "Llama", "Roberta", "BERT", "words"]),
    parts=st.lists(
        st.sampled_from(["</s>", "<s>", "<pad>", "[SEP]", "<", "/s>", "<extra_id_0>", " ", "a"])
        | st.text(max_size=4),
        max_size=8,
    ),
)
def test_no_text_makes_a_control_token(kind, parts):
    tokenizer = tokenizer_of(kind)
    ids = read(tokenizer, ["".join(parts)], add_special_tokens=False)["input_ids"][0]
    assert counts(tokenizer, ids) == 0


def test_a_twin_keeps_the_ids_of_control_tokens_and_is_made_once():
    tokenizer = tokenizer_of("T5")
    twin = twin_of(tokenizer)
    assert twin_of(tokenizer) is twin
    assert set(twin.names) == control_names(tokenizer)
    for name, random in twin.names.items():
        assert twin.backend.token_to_id(random) == tokenizer.convert_tokens_to_ids(name)
        assert twin.backend.token_to_id(name) is None


def test_a_slow_tokenizer_that_cannot_says_so():
    class Slow(hf.ByT5Tokenizer):
        def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
            return text.split()

    with pytest.raises(DataError, match=r"\(</s>\), which Slow, a slow tokenizer"):
        read(Slow(), ["a </s> b"])


def test_names_that_are_read_as_text_are_said(caplog):
    tokenizer = tokenizer_of("T5")
    with caplog.at_level(logging.INFO, "lorafit"):
        findings = Findings()
        say_control([("a film",), ("a plot",)], tokenizer, findings)
        assert not caplog.records
        say_control([("a film",), ("a </s> plot",), ("b",)], tokenizer, findings)
        say_control([("a", "</s>"), ("a", "<pad>")], tokenizer, findings)
    first, second = caplog.records
    assert "1 of 3 texts hold the name of a control token (</s>)" in first.getMessage()
    assert "data.special_tokens=control" in first.getMessage()
    assert (first.levelname, second.levelname) == ("INFO", "WARNING")
    assert "(</s>, <pad>)" in second.getMessage()

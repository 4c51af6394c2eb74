from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers as hf

from lorafit.config import ModelConfig
from lorafit.model import identity
from tests import tiny, tiny_text


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_text.save_base(tmp_path / "base", "bert")


def of(base: Path) -> identity.Identity | None:
    return identity.of_files(ModelConfig(name_or_path=str(base)))


def test_a_copy_is_the_same_and_each_part_is_told_apart(base: Path, tmp_path: Path) -> None:
    known = of(base)
    assert known is not None
    assert set(known) == {"of", *identity.PARTS}
    copy = shutil.copytree(base, tmp_path / "copy")
    (copy / "README.md").write_text("a card")
    assert identity.changed(known, of(copy)) == []
    for name, part in (
        ("model.safetensors", "weights"),
        ("config.json", "config"),
        ("tokenizer_config.json", "tokenizer"),
    ):
        copy = shutil.copytree(base, tmp_path / part)
        with (copy / name).open("ab") as file:
            file.write(b" ")
        assert identity.changed(known, of(copy)) == [part]
    (base / "chat_template.jinja").write_text("{{ messages }}")
    assert identity.changed(known, of(base)) == ["tokenizer"]


def test_a_large_file_is_told_apart_anywhere_that_another_training_changes(base: Path) -> None:
    weights = base / "model.safetensors"
    size = 40 * 2**20
    weights.write_bytes(bytes(size))
    known = of(base)
    for place in (0, size // 2, size - 2**18):  # a piece of a tensor
        content = bytearray(size)
        content[place : place + 2**18] = b"x" * 2**18
        weights.write_bytes(content)
        assert identity.changed(known, of(base)) == ["weights"]


def test_weights_in_several_files_are_those_that_the_index_names(tmp_path: Path) -> None:
    model = hf.AutoModel.from_config(tiny.CONFIGS["bert"](pad_token_id=0))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    found = of(tmp_path)
    assert found is not None
    weights = found["weights"]
    assert isinstance(weights, dict)
    assert len(weights) > 2
    assert "model.safetensors.index.json" in weights


def test_what_is_not_here_or_not_known_is_no_change(base: Path, tmp_path: Path) -> None:
    assert of(tmp_path / "none") is None
    assert identity.of_files(ModelConfig(name_or_path="nobody/nothing")) is None
    known = of(base)
    assert identity.changed(None, known) == identity.changed(known, None) == []
    assert identity.changed(known, {"of": "object", "weights": {"": "x"}}) == []


def test_files_of_the_hub_that_are_fetched_later_are_no_change() -> None:
    known = {"of": identity.CACHED, "tokenizer": {"tokenizer.json": "a"}}
    more = {"of": identity.CACHED, "tokenizer": {"tokenizer.json": "a", "vocab.txt": "b"}}
    assert identity.changed(known, more) == []
    assert identity.changed(more, known) == ["tokenizer"]
    other = {"of": identity.CACHED, "tokenizer": {"tokenizer.json": "c"}}
    assert identity.changed(known, other) == ["tokenizer"]


def test_a_live_model_is_itself_whatever_its_head_draws(base: Path) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(base)
    models = [hf.AutoModelForSequenceClassification.from_pretrained(base) for _ in range(2)]
    assert not torch.equal(models[0].classifier.weight, models[1].classifier.weight)
    first, second = (identity.of_object(model, tokenizer) for model in models)
    assert first == second
    with torch.no_grad():
        models[1].bert.encoder.layer[0].output.dense.weight.mul_(1.5)
    assert identity.changed(first, identity.of_object(models[1], tokenizer)) == ["weights"]
    tokenizer.add_tokens(["brandnew"])
    assert identity.changed(first, identity.of_object(models[0], tokenizer)) == ["tokenizer"]

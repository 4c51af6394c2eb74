"""A model's folder from anywhere is loaded, or refused in one line before memory is allocated."""

from __future__ import annotations

import functools
import json
import pickle
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

import lorafit
from lorafit import peft
from lorafit.errors import ModelError
from lorafit.model import asked
from tests import tiny, tiny_text
from tests.faults.finished import edit, outcome

FAMILIES = ("bert", "distilbert", "gpt2")
SOON_S = 10.0
"""Of processor time; without the bounds these take all memory."""

LARGE: dict[str, dict[str, int]] = {
    "layers": dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer"), 10**9),
    "vocabulary": {"vocab_size": 10**11},
    "width": dict.fromkeys(("hidden_size", "dim", "n_embd"), 12 * 10**6),
    "inner width": dict.fromkeys(("intermediate_size", "hidden_dim", "n_inner"), 10**11),
    "positions": dict.fromkeys(("max_position_embeddings", "n_positions"), 10**11),
    "labels": {"num_labels": 10**9},
    "a long number": dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer"), 10**4000),
}


class Marker:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def preview(base: Path) -> Any:
    return lorafit.preview(base, tiny_text.splits(12), progress=False)


def sharded(base: Path, target: object) -> None:
    """Makes the weights those of an index that names one file."""
    keys = load_file(base / asked.WEIGHTS).keys()
    (base / asked.WEIGHTS).rename(base / "part.safetensors")
    content = {"metadata": {}, "weight_map": dict.fromkeys(keys, target)}
    (base / asked.INDEX).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("what", LARGE)
def test_a_config_larger_than_its_weights_is_refused_before_it_is_built(
    what: str, family: str, tmp_path: Path
) -> None:
    base = tiny_text.save_base(tmp_path / "base", family)
    edit(base / "config.json", lambda values: values.update(LARGE[what]))
    began = time.process_time()
    error = outcome(lambda: preview(base))
    assert time.process_time() - began < SOON_S
    assert isinstance(error, ModelError)
    assert "they do not belong together" in str(error)
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 1_000


def test_what_is_checked_draws_from_no_generator(tmp_path: Path) -> None:
    config = tiny.CONFIGS["bert"]()
    before = torch.get_rng_state()
    weights = asked.Held(n_bytes=10**6, tensors=9, longest=99)
    asked.check_elements(config, hf.AutoModel, weights, "x")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 126, "max_window_layers": 28, "num_local_experts": 384},
        {"shared_expert_intermediate_size": 5_632, "moe_layer_freq": 1, "expert_capacity": 4_096},
        {"max_position_embeddings": 10**7, "num_labels": 21_843, "use_expert_bias": True},
        {"text_config": {"num_hidden_layers": 94, "layer_norm_eps": 1e-5}, "layers": [1, 2, 500]},
    ],
)
def test_numbers_of_real_models_are_allowed(values: dict[str, Any]) -> None:
    held = asked.Held(n_bytes=1, tensors=3, longest=9)
    asked.check_counts(values, held, "x")
    with pytest.raises(ModelError, match="they do not belong together"):
        asked.check_counts({**values, "num_hidden_layers": 10**9}, held, "x")


def test_numbers_inside_of_lists_and_parts_are_counted() -> None:
    for values in (
        {"text_config": {"num_hidden_layers": 10**9}},
        {"attention_types": [[["global", "local"], 10**9]]},
        {"depths": [2, 2, 10**9]},
    ):
        with pytest.raises(ModelError, match="they do not belong together"):
            asked.check_counts(values, asked.Held(), "x")


@pytest.mark.parametrize("name", ["evil.bin", "../part.safetensors", "/dev/zero", 3, "a\0.bin"])
def test_an_index_names_safetensors_files_beside_it_only(name: object, tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "base", "distilbert")
    sharded(base, name)
    (base / "evil.bin").write_bytes(pickle.dumps(Marker(tmp_path / "marker")))
    (tmp_path / "part.safetensors").write_bytes((base / "part.safetensors").read_bytes())
    error = outcome(lambda: preview(base))
    assert isinstance(error, ModelError)
    assert "Only safetensors files beside it are read" in str(error)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', "[" * 100_000])
def test_an_index_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "base", "distilbert")
    sharded(base, "part.safetensors")
    (base / asked.INDEX).write_text(content, encoding="utf-8")
    error = outcome(lambda: preview(base))
    assert isinstance(error, ModelError)
    assert "no index of weights" in str(error)


def test_parts_that_an_index_names_are_loaded(tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "base", "distilbert")
    sharded(base, "part.safetensors")
    assert preview(base).task


@pytest.mark.parametrize("name", ["adapter_model.bin", "../x.safetensors", "/x.safetensors", 3])
def test_a_config_names_no_other_weights(name: object, tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "base", "distilbert")
    (base / "adapter_model.bin").write_bytes(pickle.dumps(Marker(tmp_path / "marker")))
    edit(base / "config.json", lambda values: values.update(transformers_weights=name))
    error = outcome(lambda: preview(base))
    assert isinstance(error, ModelError)
    assert "names the file of weights" in str(error)
    assert not (tmp_path / "marker").exists()


# The base that PEFT's `AutoPeftModel` loads


def pickled(base: Path) -> None:
    torch.save(load_file(base / asked.WEIGHTS), base / "pytorch_model.bin")
    (base / asked.WEIGHTS).unlink()


def larger(what: str, base: Path) -> None:
    edit(base / "config.json", lambda values: values.update(LARGE[what]))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "pickled": pickled,
    "an index of a pickle": lambda base: sharded(base, "evil.bin"),
    "layers": functools.partial(larger, "layers"),
    "vocabulary": functools.partial(larger, "vocabulary"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_the_base_that_an_adapter_names_is_held_to_the_same(what: str, tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "base", "distilbert")
    model = hf.AutoModel.from_pretrained(base)
    config = peft.LoraConfig(r=2, target_modules=["q_lin"])
    peft.get_peft_model(model, config).save_pretrained(str(tmp_path / "adapter"))
    load = functools.partial(peft.AutoPeftModel.from_pretrained, tmp_path / "adapter")
    assert outcome(load) is None
    DAMAGE[what](base)
    began = time.process_time()
    assert isinstance(outcome(load), ModelError)
    assert time.process_time() - began < SOON_S


# Tokenizers


def framed(values: dict[str, Any]) -> None:
    """A template that puts a million tokens before every text."""
    token = {"id": "[CLS]", "ids": [2] * 1_000, "tokens": ["[CLS]"] * 1_000}
    piece, text = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"id": "A", "type_id": 0}
    values["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [piece] * 1_000 + [{"Sequence": text}],
        "pair": [{"Sequence": text}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": token},
    }


def test_a_tokenizer_that_adds_too_many_tokens_is_refused(tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "base", "distilbert")
    edit(base / "tokenizer.json", framed)
    edit(
        base / "tokenizer_config.json",
        lambda values: values.update(tokenizer_class="PreTrainedTokenizerFast"),
    )
    error = outcome(lambda: preview(base))
    assert isinstance(error, ModelError)
    assert "adds 1,000,000 tokens to every text" in str(error)


# Chat templates

TEMPLATES = {
    "{{ messages.__class__.__mro__ }}": "is unsafe",
    "{{ messages.append(1) }}": "is unsafe|not safely callable",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}": "unsafe|undefined|no attribute",
    "{% include '/etc/passwd' %}": "no loader",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "recursion",
    "{{ 'x' * 2**62 }}": "there is not the memory for what it writes",
    "{{ 'x'|center(2**62) }}": "there is not the memory for what it writes",
    "{% for i in range(10**9) %}{% endfor %}": "[Rr]ange",
    "{{ 1 // 0 }}": "zero",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_template_that_breaks_out_is_refused_with_its_reason(
    template: str, tmp_path: Path
) -> None:
    base = tiny_text.save_language_model(tmp_path / "base")
    (base / "chat_template.jinja").write_text(template, encoding="utf-8")
    rows = [
        [{"role": "user", "content": f"a film {n}"}, {"role": "assistant", "content": f"great {n}"}]
        for n in range(20)
    ]
    data = {"train": [{"messages": messages} for messages in rows]}
    error = outcome(lambda: lorafit.preview(base, data, progress=False))
    assert error is not None
    assert re.search(
        f"is refused by the model's chat template: .*({TEMPLATES[template]})", str(error)
    )

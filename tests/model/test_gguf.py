"""A GGUF file as base, from the first step to the merged model; the file is written here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers as hf
from packaging.version import Version

import lorafit
from lorafit.errors import ModelError
from lorafit.model.files import GGUF_NEEDS
from tests import tiny, tiny_text

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
}
"""transformers' names of a Llama's parts to GGUF's."""


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries or keys as llama.cpp rotates them: pairs beside each other."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def write_gguf(path: Path, model: Any) -> None:
    """Writes a Llama and a tokenizer of letters and the words of `tiny_text`."""
    config = model.config
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens, merges = ["<pad>", "<s>", "<|endoftext|>", "Ġ", *letters], []
    for word in tiny_text.WORDS:  # as byte-pair encoding joins a word, letter by letter
        for end in range(2, len(word) + 1):
            if word[:end] not in tokens and len(tokens) < tiny.VOCAB:
                tokens.append(word[:end])
                merges.append(f"{word[: end - 1]} {word[end - 1]}")
    tokens += [f"<{index}>" for index in range(tiny.VOCAB - len(tokens))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(merges)
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, tensor in model.state_dict().items():
        if "q_proj" in name:
            tensor = interleaved(tensor, config.num_attention_heads)
        if "k_proj" in name:
            tensor = interleaved(tensor, config.num_key_value_heads)
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def model() -> hf.PreTrainedModel:
    return tiny.language_model("llama")


@pytest.fixture
def package(model: hf.PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file inside an installed package."""
    (tmp_path / "tiny_gguf_package").mkdir()
    write_gguf(tmp_path / "tiny_gguf_package" / "tiny.gguf", model)
    (tmp_path / "tiny_gguf_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return "package:tiny_gguf_package/tiny.gguf"


def test_the_file_has_the_weights_that_were_written(
    model: hf.PreTrainedModel, package: str, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny_gguf_package"
    found = hf.AutoModelForCausalLM.from_pretrained(folder, gguf_file="tiny.gguf")
    theirs = found.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=0)


def test_a_version_that_misreads_the_tokenizer_is_refused(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorafit.model.files.transformers.__version__", "5.5.4")
    with pytest.raises(ModelError, match=r'pip install "transformers>=5\.6"'):
        lorafit.preview(package, tiny_text.prompts(4))


@pytest.mark.parametrize("as_file", [False, True], ids=["package", "file"])
def test_from_the_first_step_to_the_merged_model(
    package: str, tmp_path: Path, as_file: bool
) -> None:
    name = str(tmp_path / "tiny_gguf_package" / "tiny.gguf") if as_file else package
    if Version(hf.__version__) < GGUF_NEEDS:
        with pytest.raises(ModelError, match=r"misreads the tokenizers of such files"):
            lorafit.preview(name, tiny_text.prompts(4))
        return
    rows = tiny_text.prompts(24)
    place: dict[str, Any] = {"run.dir": str(tmp_path / "runs")}
    run = lorafit.train(
        name,
        rows,
        max_steps=1,
        per_device_train_batch_size=4,
        examples=2,
        max_new_tokens=4,
        progress=False,
        bf16=False,
        strategy="none",
        **place,
    )
    handoff = run.eval["handoff"]
    assert handoff["reloaded_max_abs_diff"] == 0.0
    assert handoff["merged_max_abs_diff"] < 1e-5
    assert run.eval["tuned"]["nll"] != run.eval["base"]["nll"]
    [answer] = lorafit.predict(run.path, ["the film is great"])
    plain = tmp_path / "plain"
    lorafit.merge(run.path, plain)
    merged = hf.AutoModelForCausalLM.from_pretrained(plain)
    tokenizer = hf.AutoTokenizer.from_pretrained(plain)
    inputs = tokenizer("the film is great\n", return_tensors="pt")
    tuned = lorafit.load(run)
    tuned.model.eval()
    with torch.no_grad():
        ours, theirs = tuned.model(**inputs).logits, merged(**inputs).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    assert isinstance(answer["generated"], str)

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, ConfigError
from lorafit.methods.prefix import PrefixConfig
from tests import tiny


def prefixed(model: nn.Module, n: int = 4, **settings: Any) -> Adapters:
    adapters = Adapters(model)
    torch.manual_seed(0)
    adapters.add(PrefixConfig(num_virtual_tokens=n, **settings))
    return adapters


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "roberta", "t5"])
def test_padding_changes_nothing_behind_a_prefix(family: str, attention: str) -> None:
    model = tiny.classifier(family)
    model.set_attn_implementation(attention)
    prefixed(model)
    ids = torch.randint(3, tiny.VOCAB, (1, 6), generator=torch.Generator().manual_seed(0))
    ids[0, -1] = 1  # T5's end of sequence
    padded = torch.cat([ids, torch.full((1, 3), 0)], dim=1)
    mask = torch.tensor([[1] * 6 + [0] * 3])
    with torch.no_grad():
        alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        torch.testing.assert_close(
            model(input_ids=padded, attention_mask=mask).logits, alone, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "t5"])
def test_a_language_model_generates_with_a_cache_as_it_computes_without(family: str) -> None:
    model: Any = prefixed(tiny.language_model(family)).model
    ids = tiny.inputs(family)["input_ids"][:2]
    generated = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=4,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    t5 = family == "t5"
    made = generated.sequences[:, :1] if t5 else ids
    for logits in generated.logits:
        inputs = {"input_ids": ids, "decoder_input_ids": made} if t5 else {"input_ids": made}
        with torch.no_grad():
            expected = model(**inputs, use_cache=False).logits[:, -1]
            plain = tiny.language_model(family)(**inputs).logits[:, -1]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(logits, plain, atol=1e-3)
        made = generated.sequences[:, : made.shape[1] + 1]


def test_a_prefix_starts_as_keys_and_values_of_tokens_at_its_place() -> None:
    model = tiny.language_model("llama")
    ids = tiny.inputs("llama")["input_ids"][:1]
    adapters = prefixed(model, n=3, init_weights="vocab")
    # The tokens that were drawn, found again by trying: the first key of the first layer
    # depends on the token alone.
    torch.manual_seed(0)
    tokens = torch.randint(0, tiny.VOCAB, (1, 3))
    with torch.no_grad():
        expected = tiny.language_model("llama")(torch.cat([tokens, ids], dim=1)).logits[:, 3:]
        torch.testing.assert_close(adapters.model(ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_two_prefixes_stand_one_after_the_other() -> None:
    model = tiny.language_model("gpt2")
    adapters = prefixed(model, n=2)
    adapters.add(PrefixConfig(num_virtual_tokens=3), "other")
    ids = tiny.inputs("gpt2")["input_ids"]
    alone = model(ids).logits
    adapters.set(["default", "other"])
    assert not torch.allclose(model(ids).logits, alone, atol=1e-4)
    assert model(ids, use_cache=True).past_key_values.get_seq_length() == 5 + ids.shape[1]


def test_models_without_a_cache_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="DistilBertModel: its attention takes no past keys"):
        prefixed(tiny.classifier("distilbert"))
    with pytest.raises(ConfigError, match="table of input embeddings"):
        prefixed(nn.Sequential(nn.Linear(3, 3)))
    config = hf.MambaConfig(
        vocab_size=tiny.VOCAB, hidden_size=16, num_hidden_layers=2, state_size=4
    )
    mamba = hf.MambaForCausalLM(config)
    with pytest.raises(ConfigError, match="prefix does not fit MambaModel"):
        prefixed(mamba)


def test_gradient_checkpointing_would_drop_the_prefix_and_is_refused() -> None:
    model: Any = prefixed(tiny.language_model("llama")).model
    model.activation_checkpointing_enable()
    with pytest.raises(AdapterError, match="gradient checkpointing"):
        model.train()(**tiny.inputs("llama"))


def test_unloading_a_prefix_leaves_no_hooks() -> None:
    model = tiny.classifier("bert")
    adapters = prefixed(model)
    assert model.base_model._forward_pre_hooks
    adapters.unload()
    assert not model.base_model._forward_pre_hooks
    assert torch.equal(tiny.logits(model, "bert"), tiny.logits(tiny.classifier("bert"), "bert"))

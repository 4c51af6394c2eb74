from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers

from lorafit.adapt import Adapters
from lorafit.config import GenerateConfig
from lorafit.evaluation.generation import generate
from lorafit.methods import methods
from lorafit.tasks.parts.generative import Prompt
from tests import tiny

LENGTHS = (9, 3, 6, 3, 1)
SPREAD = 6.0


def word_tokenizer() -> hf.PreTrainedTokenizerBase:
    """A word for each number that the tiny models know."""
    names = ["<pad>", "</s>", "<unk>", *(f"w{number}" for number in range(3, tiny.VOCAB))]
    vocab = {name: number for number, name in enumerate(names)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("family", ["bart", "gpt2", "llama", "qwen3", "t5"])
def test_a_batch_writes_what_transformers_writes_of_each_prompt_alone(
    family: str, num_beams: int
) -> None:
    model = tiny.language_model(family)
    with torch.no_grad():  # freshly drawn, a model says one word whatever it reads
        for parameter in model.parameters():
            parameter.mul_(SPREAD if parameter.dim() > 1 else 1)
    reads, tokenizer = model.config.is_encoder_decoder, word_tokenizer()
    if reads:  # not the end of a text, which BART's tied embeddings would say again
        model.generation_config.decoder_start_token_id = 5
    generator = torch.Generator().manual_seed(0)
    prompts = [
        Prompt("", torch.randint(3, tiny.VOCAB, (length,), generator=generator).tolist(), None)
        for length in LENGTHS
    ]
    theirs, writer = [], cast(Any, model)
    for prompt in prompts:
        ids = torch.tensor([prompt.input_ids])
        written = writer.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=8,
            num_beams=num_beams,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=sorted({model.config.eos_token_id, tokenizer.eos_token_id} - {None}),
        )[0]
        new = written if reads else written[len(prompt.input_ids) :]
        theirs.append(str(tokenizer.decode(new, skip_special_tokens=True)).strip())
    settings = GenerateConfig(max_new_tokens=8, num_beams=num_beams)
    ours = generate(model, tokenizer, prompts, settings, batch_size=3)
    assert ours == theirs
    assert len(set(ours)) > 1


def test_beams_find_a_likelier_text_than_the_likeliest_tokens() -> None:
    model, tokenizer = tiny.language_model("llama"), word_tokenizer()
    prompts = [Prompt("", [n, n + 1, n + 2], None) for n in range(3, 11)]

    def written(num_beams: int) -> list[str]:
        settings = GenerateConfig(max_new_tokens=8, num_beams=num_beams)
        return generate(model, tokenizer, prompts, settings, batch_size=4)

    assert written(4) != written(1)


@pytest.mark.parametrize("family", ["gpt2", "bart", "opt", "llama"])
def test_answers_end_where_the_positions_of_a_model_end(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    positions = 40
    if family == "opt":
        torch.manual_seed(0)
        config = hf.OPTConfig(
            vocab_size=tiny.VOCAB,
            hidden_size=32,
            word_embed_proj_dim=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=40,
            max_position_embeddings=positions,
        )
        model: Any = hf.OPTForCausalLM(config).eval()
    else:
        model = tiny.language_model(family)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(SPREAD if parameter.dim() > 1 else 1)
    tokenizer = word_tokenizer()
    model.generation_config.eos_token_id = tokenizer.eos_token_id = None
    if model.config.is_encoder_decoder:
        model.generation_config.decoder_start_token_id = 5
    generator = torch.Generator().manual_seed(0)
    prompts = [
        Prompt("", torch.randint(3, tiny.VOCAB, (length,), generator=generator).tolist(), None)
        for length in (positions, positions - 1, 30, 3, 3)
    ]

    def answered(some: list[Prompt], longest: int = 50) -> list[str]:
        return generate(model, tokenizer, some, GenerateConfig(max_new_tokens=longest), 4)

    together = answered(prompts)
    assert together == [answered([prompt])[0] for prompt in prompts]
    rooms = {"bart": [40] * 5, "llama": [50] * 5}.get(family, [1, 2, 11, 38, 38])
    for prompt, room, answer in zip(prompts, rooms, together, strict=True):
        # As long as the room: one token more would be an error or another text.
        assert answer == answered([prompt], room)[0]
        if room > 1:
            assert answer != answered([prompt], room - 1)[0]
    caplog.clear()
    answered(prompts)
    said = "" if family == "llama" else "5 of 5 answers end early, where the positions of the model"
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_virtual_tokens_take_positions(method: str) -> None:
    model = tiny.language_model("gpt2")
    adapters = Adapters(model)
    settings: dict[str, Any] = {"prompt_tuning_init": "RANDOM"} if method == "prompt" else {}
    adapters.add(methods[method].config_class(num_virtual_tokens=6, **settings))
    tokenizer: Any = word_tokenizer()
    cast(Any, model).generation_config.eos_token_id = tokenizer.eos_token_id = None
    prompts = [Prompt("", [3 + n % 90 for n in range(length)], None) for length in (34, 20)]
    longest = GenerateConfig(max_new_tokens=64)
    short, long = generate(model, tokenizer, prompts, longest, 2)
    assert (len(short.split()), len(long.split())) == (1, 15)
    with adapters.disabled():
        short, long = generate(model, tokenizer, prompts, longest, 2)
    assert (len(short.split()), len(long.split())) == (7, 21)

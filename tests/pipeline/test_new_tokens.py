"""New tokens: read in texts, trained, saved, loaded, merged; the same answers everywhere."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as hf
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file

import lorafit
from lorafit.config import DataConfig, ModelConfig
from lorafit.errors import ConfigError, LorafitError
from lorafit.model.load import load_model
from lorafit.model.sites import output_embeddings
from lorafit.tasks import tasks
from tests import tiny, tiny_text
from tests.pipeline.endings import SETTINGS, logits, prompts, stopped_and_resumed

TOKENS = ["<film>", "<Two Words>"]


def marked(data: DatasetDict) -> DatasetDict:
    """The texts with new tokens in the places of words."""

    def mark(row: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value.replace("film", TOKENS[0]).replace("story", TOKENS[1])
            if name != "label"
            else value
            for name, value in row.items()
        }

    return DatasetDict({name: rows.map(mark) for name, rows in data.items()})


def fitted(folder: Path, rows: int | None = None, **config: Any) -> Path:
    """The model of a folder with as many embeddings as its tokenizer needs, or some."""
    auto = hf.AutoModel
    if "architectures" in json.loads((folder / "config.json").read_text()):
        name = json.loads((folder / "config.json").read_text())["architectures"][0]
        auto = getattr(hf, name)
    model = auto.from_pretrained(folder)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    model.resize_token_embeddings(rows or len(tokenizer), mean_resizing=False)
    for name, value in config.items():
        setattr(model.config, name, value)
    if config.get("tie_word_embeddings"):
        model.tie_weights()
    model.save_pretrained(folder)
    return folder


def base_of(folder: Path, family: str) -> tuple[Path, DatasetDict]:
    """A model as the Hub has it, and data for it; the name says what of it is special."""
    kind, _, special = family.partition(" ")
    if kind in ("bert", "distilbert"):
        made = tiny_text.save_base(folder, kind)
        data = tiny_text.splits(24)
    else:
        made = tiny_text.save_language_model(folder, kind)
        data = prompts()
    if special == "tied":
        fitted(made, tie_word_embeddings=True)
    elif special != "spare":
        fitted(made)
    return made, marked(data)


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("bert", {}),
        ("bert spare", {"method": "rslora"}),
        ("bert", {"method": "full"}),
        ("bert", {"method": "bitfit", "modules_to_save": ["word_embeddings"]}),
        ("bert", {"trainable_token_indices": [7, 9]}),
        ("llama", {}),
        ("llama tied", {"method": "dora"}),
        ("llama spare", {"trainable_token_indices": {"embed_tokens": [3]}}),
        ("gpt2", {}),
        ("mixtral", {"target_parameters": ["experts.down_proj"]}),
        ("t5", {}),
        ("bart", {"method": "pissa"}),
    ],
)
def test_saved_loaded_merged_and_in_peft_it_answers_the_same(
    family: str, more: dict[str, Any], tmp_path: Path
) -> None:
    base, data = base_of(tmp_path / "base", family)
    settings = SETTINGS | more | {"runs_dir": str(tmp_path / "runs")}
    if more.get("method") in ("full", "bitfit"):
        del settings["r"]
    run = lorafit.train(base, data, add_tokens=TOKENS, **settings)
    handoff = run.evaluation.handoff
    assert handoff is not None
    assert handoff.reloaded is not None
    assert handoff.reloaded < 1e-6
    assert handoff.merged is not None

    tuned = lorafit.load(run)
    ids = [tuned.tokenizer.convert_tokens_to_ids(token) for token in TOKENS]
    text = data["test"][0]["text" if "text" in data["test"].features else "prompt"]
    text = f"{text} {TOKENS[1]} {TOKENS[0]}"
    encoded = tuned.tokenizer(text, return_tensors="pt")
    assert set(ids) <= set(encoded["input_ids"][0].tolist())
    alone = hf.AutoTokenizer.from_pretrained(run.adapter)
    assert alone(text)["input_ids"] == encoded["input_ids"][0].tolist()

    inputs = dict(encoded)
    if tuned.model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    expected = logits(tuned.model, inputs)
    out = lorafit.merge(run, tmp_path / "merged")
    merged = type(tuned.model).from_pretrained(out)
    assert torch.allclose(logits(merged, inputs), expected, atol=1e-4, rtol=1e-4)
    assert hf.AutoTokenizer.from_pretrained(out)(text)["input_ids"] == alone(text)["input_ids"]

    one, other = (lorafit.predict(run.adapter, [text]) for _ in range(2))
    assert one == other
    if "r" in settings:
        _check_in_peft(run, base, inputs, expected)


def _check_in_peft(
    run: lorafit.Run, base: Path, inputs: dict[str, Any], expected: torch.Tensor
) -> None:
    """PEFT needs what the card says, and no more; nothing is saved but what was trained."""
    fields = json.loads((run.adapter / "adapter_config.json").read_text())
    assert fields["trainable_token_indices"]
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    assert not any("base_layer.weight" in key and "lora_" not in key for key in tensors)
    model = lorafit.load(run).model
    rows = len(words(model))
    card = (run.adapter / "README.md").read_text()
    again = type(model).from_pretrained(base, num_labels=getattr(model.config, "num_labels", 2))
    if len(words(again)) != rows:
        assert f"base.resize_token_embeddings({rows})" in card
        torch.manual_seed(5)
        again.resize_token_embeddings(rows)
    else:
        assert "resize_token_embeddings" not in card
    loaded = peft.PeftModel.from_pretrained(again, run.adapter)
    assert torch.allclose(logits(loaded, inputs), expected, atol=1e-4, rtol=1e-4)
    assert "| new tokens | &lt;film&gt; (" in card


@pytest.mark.parametrize("family", ["bert", "llama", "llama tied", "gpt2", "t5", "bart"])
def test_a_new_row_is_the_mean_of_the_pieces_at_every_load(family: str, tmp_path: Path) -> None:
    base, _ = base_of(tmp_path / "base", family)
    before = load_model(ModelConfig(name_or_path=str(base)), _task(family))
    pieces = before.tokenizer("good film", add_special_tokens=False)["input_ids"]
    config = ModelConfig(name_or_path=str(base), add_tokens=["good film", "<>"])
    torch.manual_seed(3)
    loaded = load_model(config, _task(family))
    torch.manual_seed(4)
    again = load_model(config, _task(family))
    ids = loaded.new_tokens.ids
    count = len(before.tokenizer)
    assert list(ids.values()) == [count, count + 1]
    assert loaded.new_tokens.resized_to == count + 2
    for read in (words, scores):
        table, old, second = (read(each.model) for each in (loaded, before, again))
        if table is None or old is None or second is None:
            continue
        assert torch.equal(table[:count], old)
        torch.testing.assert_close(table[ids["good film"]], old[pieces].mean(0))
        assert torch.equal(table, second)
        assert table.isfinite().all()


def words(model: Any) -> torch.Tensor:
    """The table of the input embeddings."""
    table: torch.Tensor = model.get_input_embeddings().weight
    return table


def scores(model: Any) -> torch.Tensor | None:
    """That of the output embeddings, if there are any."""
    return getattr(output_embeddings(model), "weight", None)


def _task(family: str) -> Any:
    name = "sequence_classification" if family == "bert" else "causal_lm"
    name = "seq2seq" if family in ("t5", "bart") else name
    if name == "sequence_classification":
        return tasks[name].from_data(tiny_text.splits(12), DataConfig(path="none"))
    return tasks[name].from_data(prompts(), DataConfig(path="none"))


def test_the_new_rows_learn_and_only_they_of_the_table_do(tmp_path: Path) -> None:
    base, data = base_of(tmp_path / "base", "bert")
    options = SETTINGS | {"runs_dir": str(tmp_path / "runs")}
    run = lorafit.train(base, data, add_tokens=TOKENS, **options)
    tuned = lorafit.load(run)
    with tuned.adapters.disabled():
        start = words(tuned.model).detach().clone()
    table = words(tuned.adapters.unload(merge=True))
    changed = (table != start).any(1).nonzero().flatten().tolist()
    assert changed == tuned.tokenizer.convert_tokens_to_ids(TOKENS)


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = base_of(tmp_path / "base", "llama tied")
    options = SETTINGS | {"runs_dir": str(tmp_path / "runs"), "add_tokens": TOKENS}
    resumed = stopped_and_resumed(base, data, options, monkeypatch)
    assert resumed.config.model.add_tokens == TOKENS


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["good"], '"good" is one token of this tokenizer already'),
        (["[SEP]"], r'"\[SEP\]" is a control token of this tokenizer already \(id 3\)'),
        ([""], "a token is empty"),
        (["  "], "a token is empty"),
        ([" <a>"], "begins or ends with a space"),
        (["<a>\n<b>"], "control character"),
        (["<a\x00>"], "control character"),
        (["<a>", "<a>"], '"<a>" is there twice'),
        (["<A>", "<a>"], '"<A>" and "<a>" would be read as one token in texts'),
        ("<a", None),
    ],
)
def test_tokens_that_cannot_be_added_are_one_line(
    tokens: Any, message: str | None, tmp_path: Path
) -> None:
    base, data = base_of(tmp_path / "base", "bert")
    options = SETTINGS | {"runs_dir": str(tmp_path / "runs")}
    if message is None:  # one text is a list of one
        assert lorafit.plan(base, data, add_tokens=tokens, **options).config.model.add_tokens == [
            tokens
        ]
        return
    with pytest.raises(ConfigError, match=message) as caught:
        lorafit.train(base, data, add_tokens=tokens, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_token_of_the_chat_template_is_refused(tmp_path: Path) -> None:
    base, data = base_of(tmp_path / "base", "llama")
    tokenizer = hf.AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{% for m in messages %}<turn>{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(base)
    with pytest.raises(ConfigError, match="stands in the chat template"):
        lorafit.plan(base, data, add_tokens=["<turn>"], **SETTINGS)


@pytest.mark.parametrize("method", ["bitfit", "ia3", "prefix", "head", "peft:vera"])
def test_a_method_that_trains_no_rows_says_which_do(method: str, tmp_path: Path) -> None:
    base, data = base_of(tmp_path / "base", "bert")
    options = {k: v for k, v in SETTINGS.items() if k != "r"}
    with pytest.raises(ConfigError, match="trains no rows of the embeddings") as caught:
        lorafit.plan(base, data, add_tokens=TOKENS, method=method, **options)
    assert "lora or pissa or rslora" in str(caught.value)
    assert "full" in str(caught.value)


def test_a_live_model_is_left_as_it_is(tmp_path: Path) -> None:
    model, data = tiny.classifier("bert", num_labels=2), marked(tiny_text.splits(12))
    tokenizer = tiny_text.bert_tokenizer(tmp_path / "tokenizer")
    rows = len(words(model))
    with pytest.raises(ConfigError, match="resize_token_embeddings"):
        lorafit.train(model, data, tokenizer=tokenizer, add_tokens=TOKENS, **SETTINGS)
    assert len(words(model)) == rows
    assert not set(TOKENS) & set(tokenizer.get_vocab())


def test_control_tokens_in_texts_stay_text_beside_new_tokens(tmp_path: Path) -> None:
    base, _ = base_of(tmp_path / "base", "bert")
    config = ModelConfig(name_or_path=str(base), add_tokens=TOKENS)
    task = _task("bert")
    loaded = load_model(config, task)
    rows = Dataset.from_dict({"text": [f"good [SEP] {TOKENS[0]}"], "label": ["pos"]})
    ids = task.encode(rows, loaded.tokenizer, 40)[0]["input_ids"]
    assert ids.count(loaded.tokenizer.sep_token_id) == 1
    assert ids.count(loaded.new_tokens.ids[TOKENS[0]]) == 1


def test_the_fast_engine_steps_back_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, data = base_of(tmp_path / "base", "bert")
    with caplog.at_level(logging.INFO, "lorafit"):
        lorafit.plan(base, data, add_tokens=TOKENS, **SETTINGS)
    said = " ".join(caplog.messages)
    assert "not fast: an embedding is adapted" in said
    assert "new tokens: <film> (84), <Two Words> (85)" in said
    with pytest.raises(LorafitError, match="the fast engine cannot run this model"):
        lorafit.plan(base, data, add_tokens=TOKENS, engine="fast", **SETTINGS)


def test_the_shrunk_adapter_keeps_the_rows(tmp_path: Path) -> None:
    base, data = base_of(tmp_path / "base", "bert")
    options = SETTINGS | {"runs_dir": str(tmp_path / "runs"), "r": 4}
    run = lorafit.train(base, data, add_tokens=TOKENS, **options)
    small = lorafit.shrink(run, 2, out=tmp_path / "small", progress=False)
    one, other = (load_file(p / "adapter_model.safetensors") for p in (run.adapter, small.path))
    [rows] = [key for key in one if "token_adapter" in key]
    assert torch.equal(one[rows], other[rows])
    answers = lorafit.predict(small.path, [f"a {TOKENS[0]}"])
    assert answers[0]["label"] in ("neg", "pos")
    assert np.isfinite(answers[0]["probability"])

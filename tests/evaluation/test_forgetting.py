from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as hf

from lorafit.adapt import Adapters
from lorafit.errors import DataError
from lorafit.evaluation import forgetting
from lorafit.methods.full import FullConfig
from lorafit.methods.lora import LoraConfig
from lorafit.methods.prompt import PromptConfig
from lorafit.model.language import load_language_model
from tests import tiny, tiny_text

TEXTS = ["a good film", "the story is slow", "bad and dull", "warm funny plot", "it is a movie"]
LENGTH = 20


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> hf.PreTrainedTokenizerBase:
    return tiny_text.bert_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def shifted(adapters: Adapters, scale: float = 0.1) -> None:
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.add_(scale * torch.randn(parameter.shape, generator=g))


def masked_lm(folder: Path) -> Path:
    torch.manual_seed(0)
    model = hf.BertForMaskedLM(tiny.CONFIGS["bert"](pad_token_id=0))
    model.save_pretrained(folder)
    return folder


def test_a_fresh_adapter_has_forgotten_nothing(tokenizer: hf.PreTrainedTokenizerBase) -> None:
    for model in (tiny.classifier("bert"), tiny.language_model("gpt2")):
        adapters = Adapters(model)
        probe = forgetting.make_probe(model, tokenizer, TEXTS, LENGTH)
        adapters.add(LoraConfig())
        found = forgetting.measure(adapters, probe)
        assert found["forgetting"] == pytest.approx(0.0, abs=1e-6)
        shifted(adapters)
        assert forgetting.measure(adapters, probe)["forgetting"] > 1e-4


def test_a_causal_model_is_asked_for_the_next_token(tokenizer: hf.PreTrainedTokenizerBase) -> None:
    model = tiny.language_model("gpt2")
    adapters = Adapters(model)
    probe = forgetting.make_probe(model, tokenizer, TEXTS, LENGTH)
    adapters.add(LoraConfig())
    shifted(adapters)
    found = forgetting.measure(adapters, probe)
    assert found["kind"] == "language"
    # By hand, one text at a time, without padding.
    kl, change, tokens = 0.0, 0.0, 0
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            tuned = F.log_softmax(model(ids).logits[0, :-1], dim=-1)
            with adapters.disabled():
                base = F.log_softmax(model(ids).logits[0, :-1], dim=-1)
        kl += float((base.exp() * (base - tuned)).sum())
        change += float(F.nll_loss(tuned, ids[0, 1:], reduction="sum"))
        change -= float(F.nll_loss(base, ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
    assert found["tokens"] == tokens
    assert found["kl"] == pytest.approx(kl / tokens, rel=1e-4)
    assert found["loss_change"] == pytest.approx(change / tokens, rel=1e-3, abs=1e-6)


def test_a_classifier_is_asked_through_the_heads_of_its_base(
    tokenizer: hf.PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = masked_lm(tmp_path / "mlm")
    torch.manual_seed(1)
    model = hf.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    language = load_language_model(str(folder))
    assert language is not None
    probe = forgetting.make_probe(model, tokenizer, TEXTS, LENGTH, language)
    assert probe.kind == "language"
    hidden = [int((target != -100).sum()) for target in probe.targets]
    assert sum(hidden) >= len(TEXTS)  # at least one of each text
    adapters = Adapters(model)
    adapters.add(FullConfig())
    assert forgetting.measure(adapters, probe)["kl"] == pytest.approx(0.0, abs=1e-6)
    shifted(adapters, 0.05)
    found = forgetting.measure(adapters, probe)
    # The same as a masked model that has the tuned encoder inside.
    state = model.bert.state_dict()
    whole = hf.BertForMaskedLM.from_pretrained(folder).eval()
    pristine = hf.BertForMaskedLM.from_pretrained(folder).eval()
    head = {name: tensor.clone() for name, tensor in whole.cls.state_dict().items()}
    whole.cls.predictions.decoder.weight = torch.nn.Parameter(
        head["predictions.decoder.weight"].clone()
    )
    whole.bert.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("pooler.")}, strict=True
    )
    kl, tokens = 0.0, 0
    for batch, target in zip(probe.batches, probe.targets, strict=True):
        with torch.no_grad():
            q = F.log_softmax(whole(**batch).logits, dim=-1)[target != -100]
            p = F.log_softmax(pristine(**batch).logits, dim=-1)[target != -100]
        kl += float((p.exp() * (p - q)).sum())
        tokens += len(p)
    assert found["kl"] == pytest.approx(kl / tokens, rel=1e-3)


def test_masks_are_the_same_for_everybody(
    tokenizer: hf.PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = masked_lm(tmp_path / "mlm")
    probes = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = hf.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        language = load_language_model(str(folder))
        probes.append(forgetting.make_probe(model, tokenizer, TEXTS, LENGTH, language))
    for one, other in zip(probes[0].batches, probes[1].batches, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"])


def test_an_encoder_without_a_head_is_compared_by_its_representations(
    tokenizer: hf.PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = tiny_text.save_base(tmp_path / "base", "bert")
    assert load_language_model(str(folder)) is None
    model = tiny.classifier("bert")
    probe = forgetting.make_probe(model, tokenizer, TEXTS, LENGTH)
    adapters = Adapters(model)
    adapters.add(PromptConfig(num_virtual_tokens=3))
    found = forgetting.measure(adapters, probe)
    assert found["kind"] == "representation"
    assert len(found["cka_distance_by_layer"]) == 3
    assert 0 < found["cka_distance"] < 1
    assert 0 <= found["neighbours_lost"] <= 1


def test_cka_does_not_see_rotations_and_scales() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 6))
    rotation, _ = np.linalg.qr(random.normal(size=(6, 6)))
    assert forgetting.linear_cka(x, 3 * x @ rotation + 1) == pytest.approx(1.0)
    y = random.normal(size=(30, 6))
    # By the definition with feature covariances (Kornblith et al., equation 4).
    a, b = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(b.T @ a) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert forgetting.linear_cka(x, y) == pytest.approx(expected)


def test_neighbours_are_kept_or_lost() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 5))
    assert forgetting.neighbour_overlap(x, 2 * x) == 1.0
    other = forgetting.neighbour_overlap(x, random.normal(size=(40, 5)))
    assert 0.1 < other < 0.45  # by chance 10 of 39


def test_the_general_text_comes_along_or_from_a_file(tmp_path: Path) -> None:
    own = forgetting.general_text()
    assert len(own) > 150
    assert len(set(own)) == len(own)
    (tmp_path / "texts").write_text("one\n\n two \n", encoding="utf-8")
    assert forgetting.general_text(tmp_path / "texts") == ["one", "two"]
    with pytest.raises(DataError, match="cannot read the general text"):
        forgetting.general_text(tmp_path / "missing")
    (tmp_path / "texts").write_text("one\n", encoding="utf-8")
    with pytest.raises(DataError, match="has 1 texts"):
        forgetting.general_text(tmp_path / "texts")

"""``lorafit.shrink``: exact at full rank, readable by PEFT, measured on the right splits."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from datasets import DatasetDict
from safetensors.torch import load_file

import lorafit
from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, ConfigError
from lorafit.evidence import Difference
from lorafit.export import peft as peft_format
from lorafit.methods.lora import LoraConfig, LoraLayer
from lorafit.result import Run
from lorafit.shrinking import files
from lorafit.shrinking.choose import choose_rank
from lorafit.shrinking.files import RankQuality
from lorafit.shrinking.measure import Shrinking
from tests import tiny, tiny_text
from tests.tiny_text import rows, splits

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 0, 0]])
MASK = (IDS > 0).long()
WEIGHTS = "adapter_model.safetensors"
DATA = DatasetDict(train=rows(96), validation=rows(60, 1), test=rows(40, 2))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny model tuned to tell good words from bad ones."""
    folder = tmp_path_factory.mktemp("shrink")
    base = tiny_text.save_base(folder / "base")
    place: dict[str, Any] = {"run.dir": str(folder / "runs")}
    return lorafit.train(
        base, DATA, r=8, lora_alpha=16, num_train_epochs=8, learning_rate=1e-2,
        head_init="random", progress=False, engine="eager", **place,
    )  # fmt: skip


def theirs(folder: Path, **settings: Any) -> Path:
    """A random adapter that PEFT made and saved."""
    model = tiny.classifier("bert")
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=6, lora_alpha=12, target_modules=["query", "value"], **settings
    )
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    adapted.save_pretrained(str(folder))
    return folder


def peft_logits(folder: Path) -> torch.Tensor:
    model = peft.PeftModel.from_pretrained(tiny.classifier("bert"), folder).eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=IDS, attention_mask=MASK).logits
    return logits


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"layer.0.attention.self.query": 2}, "alpha_pattern": {"value": 20}},
    ],
    ids=["plain", "rslora", "dora", "patterns"],
)
def test_peft_adapter_at_full_rank_computes_the_same_in_peft(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    folder = theirs(tmp_path / "theirs", **settings)
    result = lorafit.shrink(folder, 6, out=tmp_path / "out")
    torch.testing.assert_close(peft_logits(result.path), peft_logits(folder), rtol=1e-5, atol=1e-5)
    smaller = lorafit.shrink(folder, 3, out=tmp_path / "small")
    assert not torch.allclose(peft_logits(smaller.path), peft_logits(folder), atol=1e-4)


def test_every_layer_keeps_its_scale(tmp_path: Path) -> None:
    ranks = {"layer.0.attention.self.query": 2}
    folder = theirs(tmp_path / "theirs", rank_pattern=ranks, alpha_pattern={"value": 20})
    before = peft_format.read_config(folder)
    result = lorafit.shrink(folder, 3, out=tmp_path / "small")
    after, tensors = peft_format.read_config(result.path), load_file(result.path / WEIGHTS)
    assert isinstance(before, LoraConfig)
    assert isinstance(after, LoraConfig)
    for key, tensor in tensors.items():
        if key.endswith("lora_A.weight"):
            path = key.removeprefix(peft_format.PREFIX).removesuffix(".lora_A.weight")
            assert tensor.shape[0] == after.rank(path) == min(3, before.rank(path))
            assert after.scaling(path) == pytest.approx(before.scaling(path))


def test_without_data_it_warns_and_says_the_energies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = theirs(tmp_path / "theirs")
    with caplog.at_level(logging.WARNING):
        result = lorafit.shrink(folder, 2)
    assert "loses more than it has to" in caplog.text
    assert (result.path, result.way) == ((tmp_path / "theirs-shrunk").resolve(), "plain")
    assert [row.r for row in result.curve] == [6, 3, 2, 1]
    energies = [row.energy for row in result.curve]
    assert energies[0] == pytest.approx(1.0)
    assert energies == sorted(energies, reverse=True)
    assert not (result.path / "README.md").exists()
    assert json.loads((result.path / "shrink.json").read_text())["r"] == 2


def test_moments_are_of_the_real_inputs_without_padding(run: Run) -> None:
    source = files.read(run.adapter)
    config = run.config.model_copy(deep=True)
    live = Shrinking(source, DATA, config)
    found = live.moments()
    assert found.keys() == source.factors.keys()
    path = next(path for path in source.factors if path.endswith("query"))
    layer = live.model.get_submodule(path)
    assert isinstance(layer, LoraLayer)
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    with torch.no_grad():
        for row in live.encoded["train"]:  # one at a time: there is no padding
            live.model(input_ids=torch.tensor([row["input_ids"]]))
    handle.remove()
    z = torch.cat(seen) @ layer.factors("default")[0].T
    torch.testing.assert_close(found[path].float(), z.T @ z / len(z), rtol=1e-3, atol=1e-5)


def test_auto_chooses_by_validation_and_the_result_loads(run: Run, tmp_path: Path) -> None:
    result = lorafit.shrink(run, "auto", DATA, tmp_path / "small", retrain_steps=3)
    assert [row.r for row in result.curve] == [8, 4, 2, 1]
    full = result.curve[0]
    assert full.weighted is not None
    assert abs(full.weighted.difference) < 1e-5
    assert full.retrained is None
    assert all(row.retrained is not None for row in result.curve[1:])
    assert result.gain is not None
    assert result.gain > 0
    assert result.test is not None
    assert result.r < 8  # two classes of words are a direction or two
    before, after = lorafit.load(run), lorafit.load(result.path)
    assert after.adapters.configs["default"].r == result.r  # type: ignore[attr-defined]
    texts = DATA["test"]["text"]
    probability = [
        torch.tensor([row["probability"] for row in lorafit.predict(tuned, texts)])
        for tuned in (before, after)
    ]
    # What was measured on the test split is what the written adapter computes.
    assert (probability[0] - probability[1]).abs().max() < 0.2
    weights = load_file(result.path / WEIGHTS)
    ours = run.adapter / WEIGHTS
    assert sum(t.numel() for t in weights.values()) < sum(
        t.numel() for t in load_file(ours).values()
    )
    hf.AutoTokenizer.from_pretrained(result.path)


def test_peft_adapter_is_measured_with_the_task_of_its_type(tmp_path: Path) -> None:
    base = tiny_text.save_classifier(tmp_path / "base", ["neg", "pos"])
    model = hf.AutoModelForSequenceClassification.from_pretrained(base)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    adapted.save_pretrained(str(tmp_path / "theirs"))
    result = lorafit.shrink(tmp_path / "theirs", 2, splits(24), retrain_steps=0)
    assert result.r == 2
    assert result.way == "weighted"
    again = peft.PeftModel.from_pretrained(
        hf.AutoModelForSequenceClassification.from_pretrained(base), result.path
    )
    saved: Any = again.peft_config["default"]
    assert saved.r == 2
    live = Adapters(hf.AutoModelForSequenceClassification.from_pretrained(base))
    peft_format.load(live, result.path)


def test_the_smallest_rank_inside_the_margin_is_chosen() -> None:
    def row(r: int, weighted: float, retrained: float | None = None) -> RankQuality:
        losses = [
            None if d is None else Difference(d, d - 0.001, d + 0.001)
            for d in (weighted, retrained)
        ]
        return RankQuality(r, 1.0, None, losses[0], losses[1])

    curve = [row(8, 0.0), row(4, 0.005), row(2, 0.05, 0.01), row(1, 0.3, 0.2)]
    assert choose_rank(curve, None, gain=1.0)[:2] == (2, "retrained")
    assert choose_rank(curve, None, gain=0.4)[:2] == (4, "weighted")
    r, _, reason = choose_rank(curve, None, gain=0.01)
    assert (r, reason) == (8, "no smaller rank is known to lose little enough")
    assert choose_rank(curve, 1, gain=1.0)[:2] == (1, "retrained")


def test_wrong_input_is_refused_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    folder = theirs(tmp_path / "theirs")
    with pytest.raises(ConfigError, match="choosing a rank needs data"):
        lorafit.shrink(folder)
    for wrong in (0, 7, True, "four"):
        with pytest.raises(ConfigError, match='"auto" or 1 to 6'):
            lorafit.shrink(folder, wrong)  # type: ignore[arg-type]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(AdapterError, match="is not empty"):
        lorafit.shrink(folder, 2, out=tmp_path / "full")
    with pytest.raises(ConfigError, match="retrain_steps is -1"):
        lorafit.shrink(run, 2, splits(), retrain_steps=-1)
    with pytest.raises(AdapterError, match="there is no folder"):
        lorafit.shrink(tmp_path / "nowhere" / "at all", 2)
    fields = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "IA3", "target_modules": ["query"], "feedforward_modules": []})
    )
    with pytest.raises(AdapterError, match="which has no rank"):
        lorafit.shrink(folder, 2)
    (folder / "adapter_config.json").write_text(json.dumps(fields | {"init_lora_weights": "pissa"}))
    with pytest.raises(AdapterError, match="saved relative to a base"):
        lorafit.shrink(folder, 2)

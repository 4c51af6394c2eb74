"""Our models under transformers' Trainer: checkpoints, best model, exact resume."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from lorafit.peft import LoraConfig, PeftModel, get_peft_model
from tests import tiny

# The Trainer's own deprecations and its remark on pinned memory are not ours to fix.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


class Rows(torch.utils.data.Dataset):
    """Random token ids with a label that the first token decides."""

    def __init__(self, n: int = 24) -> None:
        g = torch.Generator().manual_seed(5)
        self.ids = torch.randint(3, tiny.VOCAB, (n, 6), generator=g)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> dict[str, Any]:
        ids = self.ids[i]
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": int(ids[0]) % 3,
            "unused": 1,
        }


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step
        return control


def build(family: str = "distilbert", **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=0.1,
        target_modules="all-linear",
        task_type="SEQ_CLS",
        **settings,
    )
    return get_peft_model(tiny.classifier(family), config)


def trainer(model: nn.Module, folder: Path, *, stop: int | None = None, **settings: Any) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        eval_strategy="steps",
        eval_steps=3,
        save_steps=3,
        logging_steps=3,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        dataloader_pin_memory=False,
        **settings,
    )
    return Trainer(
        model,
        arguments,
        train_dataset=Rows(),
        eval_dataset=Rows(),
        callbacks=[StopAt(stop)] if stop else None,
    )


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def test_isinstance_believes_peft_and_type_stays_ours() -> None:
    model = build()
    assert isinstance(model, peft.PeftModelForSequenceClassification)
    assert isinstance(model, PeftModel)
    assert type(model).__module__ == "lorafit.peft.model"
    plain = get_peft_model(tiny.classifier("bert"), LoraConfig(target_modules=["query"]))
    assert isinstance(plain, peft.PeftModel)
    assert not isinstance(plain, peft.PeftModelForSequenceClassification)


def test_checkpoints_hold_the_adapter_and_not_the_base(tmp_path: Path) -> None:
    trainer(build(), tmp_path).train()
    files = {f.name for f in (tmp_path / "checkpoint-3").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "optimizer.pt"} <= files
    assert "model.safetensors" not in files


@pytest.mark.parametrize("settings", [{}, {"init_lora_weights": "pissa"}, {"use_dora": True}])
def test_resumed_training_ends_with_the_same_weights(tmp_path: Path, settings: Any) -> None:
    whole = build(**settings)
    trainer(whole, tmp_path / "whole").train()
    first = build(**settings)
    trainer(first, tmp_path / "parts", stop=6).train()
    second = build(**settings)
    trainer(second, tmp_path / "parts").train(
        resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-6")
    )
    assert_same(trainable(whole), trainable(second))
    different = trainable(build(**settings))
    assert any(not torch.equal(v, different[k]) for k, v in trainable(whole).items())


def test_the_best_checkpoint_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    run = trainer(model, tmp_path, load_best_model_at_end=True, metric_for_best_model="eval_loss")
    # The best loss is made to be the first one.
    losses = iter(range(100))
    evaluate = run.evaluate
    monkeypatch.setattr(
        run, "evaluate", lambda *a, **k: evaluate(*a, **k) | {"eval_loss": float(next(losses))}
    )
    run.train()
    assert run.state.best_model_checkpoint is not None
    assert run.state.best_model_checkpoint.endswith("checkpoint-3")
    best = PeftModel.from_pretrained(tiny.classifier("distilbert"), tmp_path / "checkpoint-3")
    assert torch.equal(tiny.logits(model, "distilbert"), tiny.logits(best, "distilbert"))


def test_training_is_that_of_peft(tmp_path: Path) -> None:
    """Same start, same data order, no dropout: the same losses as peft's model."""
    ours = get_peft_model(
        tiny.classifier("distilbert"),
        LoraConfig(r=4, target_modules=["q_lin", "v_lin"], task_type="SEQ_CLS"),
    )
    theirs = peft.get_peft_model(
        tiny.classifier("distilbert"),
        peft.LoraConfig(r=4, target_modules=["q_lin", "v_lin"], task_type="SEQ_CLS"),
    )
    theirs.load_state_dict(ours.state_dict())
    logs = []
    for model in (ours, theirs):
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        run = trainer(model, tmp_path / type(model).__module__)
        run.train()
        logs.append([x["loss"] for x in run.state.log_history if "loss" in x])
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_copies_and_pickles_are_ours_and_independent() -> None:
    model = build()
    expected = tiny.logits(model, "distilbert")
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(twin) is type(model)
        assert torch.equal(tiny.logits(twin, "distilbert"), expected)
        tuner: Any = twin.base_model
        tuner.adapters.set([])
        assert tuner.adapters.model is tuner.model
        assert model.active_adapters == ["default"]


def test_gradient_checkpointing_trains(tmp_path: Path) -> None:
    model = build()
    before = trainable(model)
    trainer(model, tmp_path, gradient_checkpointing=True).train()
    after = trainable(model)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert any("lora_B" in name and "layer.0" in name for name in moved)


def test_adapters_in_subfolders_resume(tmp_path: Path) -> None:
    def two() -> nn.Module:
        torch.manual_seed(0)
        config = LoraConfig(r=4, target_modules=["q_lin"], task_type="SEQ_CLS")
        model = get_peft_model(tiny.classifier("distilbert"), config, "first")
        model.add_adapter("second", LoraConfig(r=2, target_modules=["v_lin"]))
        model.set_adapter("second")
        return model

    whole = two()
    trainer(whole, tmp_path / "whole").train()
    trainer(two(), tmp_path / "parts", stop=6).train()
    resumed = two()
    trainer(resumed, tmp_path / "parts").train(resume_from_checkpoint=True)
    assert_same(trainable(whole), trainable(resumed))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_without_peft_the_trainer_resumes_exactly(tmp_path: Path, family: str) -> None:
    """Full checkpoints then (tied weights included), and all columns that the base takes."""
    script = Path(__file__).with_name("without_peft.py")
    result = subprocess.run(
        [sys.executable, str(script), family, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    facts = json.loads(result.stdout.splitlines()[-1])
    assert facts.pop("peft") is False
    assert facts == dict.fromkeys(["same", "moved", "eval_loss", "full", "columns"], True)

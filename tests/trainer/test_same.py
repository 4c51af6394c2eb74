"""Ours beside transformers' Trainer: same losses, weights, logs, files, predictions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from transformers import TrainerCallback

import lorafit
from lorafit.engine.decoder.engine import FastDecoder
from lorafit.engine.encoder.engine import FastEncoder
from lorafit.engine.generic.engine import GenericEngine
from tests.trainer.helpers import Rows, adapted, base, collate, numbers, trained, trainer

# The Trainer's own deprecations and its remark on pinned memory are not ours to fix.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]

BOTH: tuple[Any, Any] = (transformers.Trainer, lorafit.Trainer)
TOLERANCE = {"rel": 1e-5, "abs": 1e-6}


def assert_same_course(theirs: Any, ours: Any) -> None:
    # The last entry's mean and counts are those of one call of `train`, resumed or not.
    expected, found = (
        [entry for entry in numbers(run) if "train_loss" not in entry] for run in (theirs, ours)
    )
    assert [entry.keys() for entry in found] == [entry.keys() for entry in expected]
    tolerance: dict[str, Any]
    for a, b in zip(found, expected, strict=True):
        for name, value in b.items():
            # A norm sums the rounding of all gradients.
            tolerance = {"rel": 1e-4} if name == "grad_norm" else TOLERANCE
            assert a[name] == pytest.approx(value, **tolerance), name
    weights = trained(ours.model)
    for name, weight in trained(theirs.model).items():
        assert torch.allclose(weights[name], weight, rtol=1e-3, atol=1e-4), name


def assert_nothing_refused(caplog: pytest.LogCaptureFixture) -> None:
    assert [r.message for r in caplog.records if r.name.startswith("lorafit.trainer")] == []


@pytest.mark.parametrize(
    ("by", "family", "learned", "kind"),
    [
        ("peft", "bert", "classes", FastEncoder),
        ("ours", "bert", "classes", FastEncoder),
        ("full", "bert", "classes", GenericEngine),
        ("peft", "distilbert", "several", FastEncoder),
        ("ours", "roberta", "number", FastEncoder),
        ("peft", "bert", "tokens", FastEncoder),
        ("peft", "llama", "classes", FastDecoder),
        ("peft", "llama", "next_token", FastDecoder),
        ("ours", "llama", "next_token", FastDecoder),
        ("full", "llama", "next_token", GenericEngine),
        ("peft", "gpt2", "next_token", GenericEngine),
    ],
)
def test_training_is_the_parents(
    by: str, family: str, learned: str, kind: type, tmp_path: Path, caplog: Any
) -> None:
    runs = []
    for number, cls in enumerate(BOTH):
        run = trainer(cls, adapted(by, family, learned), tmp_path / str(number), learned=learned)
        run.train()
        runs.append(run)
    assert_same_course(*runs)
    assert isinstance(runs[1].lorafit_engine, kind)
    assert_nothing_refused(caplog)
    before = trained(adapted(by, family, learned))
    after = trained(runs[1].model)
    assert any(not torch.equal(before[name], value) for name, value in after.items())


@pytest.mark.parametrize("learned", ["classes", "next_token"])
def test_gradients_accumulate_clip_and_decay_as_the_parents(
    learned: str, tmp_path: Path, caplog: Any
) -> None:
    settings: dict[str, Any] = {
        **{"gradient_accumulation_steps": 3, "max_grad_norm": 0.1, "weight_decay": 0.1},
        **{
            "warmup_steps": 2,
            "lr_scheduler_type": "cosine",
            "include_num_input_tokens_seen": "all",
        },
    }
    runs = []
    for number, cls in enumerate(BOTH):
        model = adapted("peft", "llama", learned)
        runs.append(trainer(cls, model, tmp_path / str(number), learned=learned, **settings))
        runs[-1].train()
    assert_same_course(*runs)
    assert_nothing_refused(caplog)
    assert runs[1].state.num_input_tokens_seen == runs[0].state.num_input_tokens_seen > 0
    assert runs[1].state.total_flos == runs[0].state.total_flos > 0


@pytest.mark.parametrize("by", ["peft", "ours", "full"])
def test_checkpoints_are_the_parents(by: str, tmp_path: Path) -> None:
    runs, folders = [], []
    for number, cls in enumerate(BOTH):
        runs.append(trainer(cls, adapted(by, "bert"), tmp_path / str(number)))
        runs[-1].train()
        folders.append(tmp_path / str(number) / "checkpoint-6")
    names = [sorted(f.relative_to(one).as_posix() for f in one.rglob("*")) for one in folders]
    assert names[0] == names[1]
    assert ("model.safetensors" in names[0]) == (by == "full")
    states = [json.loads((one / "trainer_state.json").read_text()) for one in folders]
    assert states[0].keys() == states[1].keys()
    assert states[0]["total_flos"] == states[1]["total_flos"]
    for name in ("config.json", "adapter_config.json"):
        if (folders[0] / name).exists():
            assert (folders[0] / name).read_text() == (folders[1] / name).read_text()


class StopAt(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_training_stop = state.global_step >= 3
        return control


@pytest.mark.parametrize("by", ["peft", "full"])
def test_resumed_training_ends_with_the_same_weights(by: str, tmp_path: Path) -> None:
    """With dropout: its masks follow from torch's generator, which checkpoints hold."""

    def run(folder: str, **keywords: Any) -> Any:
        model = adapted(by, "bert", lora_dropout=0.3) if by == "peft" else adapted(by, "bert")
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.3
        return trainer(lorafit.Trainer, model, tmp_path / folder, keywords=keywords)

    whole = run("whole")
    whole.train()
    first = run("parts", callbacks=[StopAt()])
    first.train()
    second = run("parts")  # a Trainer seeds torch when it is made
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    found = trained(second.model)
    for name, value in trained(whole.model).items():
        assert torch.equal(found[name], value), name
    assert not all(torch.equal(found[n], v) for n, v in trained(first.model).items())


def test_a_run_goes_on_in_the_parent_and_back(tmp_path: Path) -> None:
    whole = trainer(transformers.Trainer, adapted("peft", "bert"), tmp_path / "whole")
    whole.train()
    for first, second, name in ((*BOTH, "there"), (*BOTH[::-1], "back")):
        keywords = {"callbacks": [StopAt()]}
        folder = tmp_path / name
        trainer(first, adapted("peft", "bert"), folder, keywords=keywords).train()
        run = trainer(second, adapted("peft", "bert"), folder)
        run.train(resume_from_checkpoint=True)
        assert_same_course(whole, run)


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float(np.mean(prediction[0].argmax(-1) == prediction[1]))}


@pytest.mark.parametrize("by", ["peft", "ours", "full"])
def test_the_best_checkpoint_is_put_back(by: str, tmp_path: Path, caplog: Any) -> None:
    best = []
    for number, cls in enumerate(BOTH):
        run = trainer(
            cls,
            adapted(by, "distilbert"),
            tmp_path / str(number),
            keywords={"compute_metrics": accuracy},
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
            eval_steps=1,
            save_steps=1,
        )
        run.train()
        best.append(run)
    assert_same_course(*best)
    assert_nothing_refused(caplog)
    theirs, ours = best
    steps = [Path(run.state.best_model_checkpoint).name for run in best]
    assert steps[0] == steps[1]
    # What was put back is what is computed now.
    found = ours.evaluate()["eval_accuracy"]
    assert found == theirs.evaluate()["eval_accuracy"] == ours.state.best_metric


@pytest.mark.parametrize("learned", ["classes", "tokens", "next_token"])
def test_predictions_are_the_parents(learned: str, tmp_path: Path, caplog: Any) -> None:
    family = "llama" if learned == "next_token" else "bert"
    said = []
    for number, cls in enumerate(BOTH):
        model = adapted("peft", family, learned)
        run = trainer(cls, model, tmp_path / str(number), learned=learned)
        said.append(run.predict(Rows(learned, seed=7)))
    theirs, ours = said
    assert np.array_equal(ours.label_ids, theirs.label_ids)
    assert ours.predictions.shape == theirs.predictions.shape
    assert ours.metrics["test_loss"] == pytest.approx(theirs.metrics["test_loss"], rel=1e-5)
    real = np.ones(len(ours.predictions), bool)
    if learned != "classes":
        sizes = np.array([len(text) for text in Rows(learned, seed=7).texts])
        real = np.arange(ours.predictions.shape[1])[None] < sizes[:, None]
    assert np.allclose(ours.predictions[real], theirs.predictions[real], atol=1e-4)
    assert_nothing_refused(caplog)


def test_texts_without_labels_are_predicted(tmp_path: Path, caplog: Any) -> None:
    model = adapted("peft", "bert")
    theirs, ours = (
        trainer(cls, model, tmp_path / cls.__module__).predict(Rows("nothing", seed=8))
        for cls in BOTH
    )
    assert ours.label_ids is None
    assert "test_loss" not in ours.metrics
    assert np.allclose(ours.predictions, theirs.predictions, atol=1e-5)
    assert_nothing_refused(caplog)


def test_the_model_keeps_its_own_parameters(tmp_path: Path) -> None:
    model = adapted("peft", "bert")
    before = {name: id(p) for name, p in model.named_parameters()}
    run = trainer(lorafit.Trainer, model, tmp_path)
    run.train()
    assert {name: id(p) for name, p in model.named_parameters()} == before
    assert type(model) is peft.PeftModelForSequenceClassification
    model.save_pretrained(str(tmp_path / "adapter"))
    loaded = peft.PeftModel.from_pretrained(base("bert"), tmp_path / "adapter").eval()
    batch = collate([Rows()[0], Rows()[1]])
    with torch.no_grad():
        expected, found = (m(**batch).logits for m in (model.eval(), loaded))
    assert torch.equal(found, expected)


def test_bfloat16_trains_close_to_the_parents(tmp_path: Path, caplog: Any) -> None:
    runs = []
    for number, cls in enumerate(BOTH):
        runs.append(trainer(cls, adapted("peft", "bert"), tmp_path / str(number), bf16=True))
        runs[-1].train()
    assert runs[1].lorafit_engine.dtype == torch.bfloat16
    assert_nothing_refused(caplog)
    expected, found = ([x["loss"] for x in numbers(r) if "loss" in x] for r in runs)
    assert found == pytest.approx(expected, rel=0.05)


def test_a_trained_bias_in_an_adapted_layer_gets_its_gradient(tmp_path: Path, caplog: Any) -> None:
    runs = []
    for number, cls in enumerate(BOTH):
        runs.append(trainer(cls, adapted("peft", "bert", bias="lora_only"), tmp_path / str(number)))
        runs[-1].train()
    assert_same_course(*runs)
    assert isinstance(runs[1].lorafit_engine, GenericEngine)
    assert_nothing_refused(caplog)


def test_layers_thawed_during_training_are_trained_from_then_on(
    tmp_path: Path, caplog: Any
) -> None:
    class Thaw(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                for name, parameter in kwargs["model"].named_parameters():
                    if "layer.2" in name:
                        parameter.requires_grad_(True)

    runs = []
    for number, cls in enumerate(BOTH):
        model = base("bert")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("classifier" in name)
        keywords = {"callbacks": [Thaw()], "optimizers": (optimizer, None)}
        runs.append(trainer(cls, model, tmp_path / str(number), keywords=keywords))
        runs[-1].train()
    assert_same_course(*runs)
    assert_nothing_refused(caplog)


def test_training_without_dropout_leaves_torchs_generator_alone(tmp_path: Path) -> None:
    run = trainer(lorafit.Trainer, adapted("peft", "bert"), tmp_path)
    batch = collate([Rows()[i] for i in range(4)])
    torch.manual_seed(7)
    before = torch.get_rng_state()
    run.current_gradient_accumulation_steps = 1
    run.training_step(run.model, batch)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_log_names_the_engine(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, logger="lorafit"):
        trainer(lorafit.Trainer, adapted("peft", "bert"), tmp_path, max_steps=1).train()
    said = [record.message for record in caplog.records if "engine: " in record.message]
    assert len(said) == 1
    assert "packed BertForSequenceClassification, float32" in said[0]

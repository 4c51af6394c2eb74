"""What has to run as transformers' Trainer runs it does, and the log says why."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import prune

import lorafit
from lorafit.engine.support import Unsupported
from lorafit.trainer.refusals import check_trainer
from tests import tiny
from tests.trainer.helpers import Rows, adapted, base, collate, numbers, trained, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if r.name == "lorafit.trainer.trainer"]


class OwnLoss(lorafit.Trainer):
    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, labels) * 2
        return (loss, outputs) if return_outputs else loss


class TheirLoss(transformers.Trainer):
    compute_loss = OwnLoss.compute_loss


def doubled(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
    return 2 * nn.functional.cross_entropy(outputs.logits, labels)


def hooked(model: Any) -> Any:
    model.get_base_model().bert.encoder.register_forward_hook(lambda *_: None)
    return model


def gradient_hooked(model: Any) -> Any:
    next(p for p in model.parameters() if p.requires_grad).register_hook(lambda g: g)
    return model


def replaced(model: Any) -> Any:
    inner = model.get_base_model().bert.encoder
    inner.forward = inner.forward
    return model


def pruned(model: Any) -> Any:
    layer = model.get_base_model().bert.encoder.layer[0].attention.self.key
    prune.l1_unstructured(layer, "weight", amount=0.5)
    return model


def merged(model: Any) -> Any:
    model.merge_adapter()
    return model


class Capped(transformers.BertForSequenceClassification):
    """A model with a loss of its own."""

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **kwargs: Any
    ) -> Any:
        found = super().forward(input_ids, attention_mask, labels=labels, **kwargs)
        if found.loss is not None:
            found.loss = found.loss + found.logits.square().mean()
        return found


def capped() -> Any:
    model = base("bert")
    model.__class__ = Capped
    return model


def multiple_choice() -> Any:
    torch.manual_seed(0)
    return transformers.BertForMultipleChoice(tiny.CONFIGS["bert"]())


CASES: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any], str]] = {
    "compute_loss": (OwnLoss, adapted, {}, {}, "OwnLoss overrides compute_loss"),
    "compute_loss_func": (
        lorafit.Trainer,
        adapted,
        {"compute_loss_func": doubled},
        {},
        "compute_loss_func is set",
    ),
    "label smoothing": (
        lorafit.Trainer,
        adapted,
        {},
        {"label_smoothing_factor": 0.1},
        "label smoothing is on",
    ),
    "hooks": (lorafit.Trainer, hooked, {}, {}, "a BertEncoder has hooks"),
    "gradient hooks": (lorafit.Trainer, gradient_hooked, {}, {}, "has hooks"),
    "replaced": (lorafit.Trainer, replaced, {}, {}, "the forward of a BertEncoder was replaced"),
    "pruned": (lorafit.Trainer, pruned, {}, {}, "has hooks"),
    "merged": (lorafit.Trainer, merged, {}, {}, "an adapter is merged"),
    "neftune": (lorafit.Trainer, adapted, {}, {"neftune_noise_alpha": 5.0}, "has hooks"),
    "checkpointing": (
        lorafit.Trainer,
        adapted,
        {},
        {"gradient_checkpointing": True},
        "gradient checkpointing is on",
    ),
    "own loss": (
        lorafit.Trainer,
        capped,
        {},
        {"remove_unused_columns": False},
        "on the first batch its loss is",
    ),
}


def made(how: Any) -> Any:
    if how is adapted:
        return adapted("peft", "bert")
    return how() if how is capped else how(adapted("peft", "bert"))


@pytest.mark.filterwarnings("ignore:Merge lora module:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_it_runs_as_the_parent_runs_it_and_says_why(name: str, tmp_path: Path, caplog: Any) -> None:
    cls, how, keywords, settings, reason = CASES[name]
    parent = TheirLoss if cls is OwnLoss else transformers.Trainer
    runs = []
    for number, one in enumerate((parent, cls)):
        few: dict[str, Any] = {"max_steps": 2, "eval_steps": 2, "save_steps": 2}
        folder = tmp_path / str(number)
        run = trainer(one, made(how), folder, keywords=keywords, **few, **settings)
        run.train()
        runs.append(run)
    assert any(reason in line for line in said(caplog)), said(caplog)
    assert len(said(caplog)) == len(set(said(caplog))) <= 2
    assert numbers(runs[1]) == numbers(runs[0])
    found = trained(runs[1].model)
    for key, value in trained(runs[0].model).items():
        assert torch.equal(found[key], value), key


def test_a_lora_variant_runs_its_own_forward(tmp_path: Path, caplog: Any) -> None:
    """DoRA is computed by peft's own layer, around which the rest is faster."""
    runs = []
    for number, cls in enumerate((transformers.Trainer, lorafit.Trainer)):
        model = adapted("peft", "bert", use_dora=True)
        runs.append(trainer(cls, model, tmp_path / str(number)))
        runs[-1].train()
    expected, found = ([x["loss"] for x in numbers(r) if "loss" in x] for r in runs)
    assert found == pytest.approx(expected, rel=1e-5)
    assert "not plain LoRA (DoRA or another variant)" in runs[1].lorafit_engine.reason
    assert said(caplog) == []


def test_virtual_tokens_are_the_parents(tmp_path: Path, caplog: Any) -> None:
    def model() -> Any:
        config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)
        torch.manual_seed(1)
        return peft.get_peft_model(base("bert"), config)

    runs = [
        trainer(cls, model(), tmp_path / str(number), eval_strategy="no", save_strategy="no")
        for number, cls in enumerate((transformers.Trainer, lorafit.Trainer))
    ]
    for run in runs:
        run.train()
    assert numbers(runs[1]) == numbers(runs[0])
    [line] = said(caplog)
    assert line.endswith("PROMPT_TUNING trains virtual tokens")


def test_a_model_without_a_known_head_is_the_parents(tmp_path: Path, caplog: Any) -> None:
    def two_choices(rows: Any) -> dict[str, torch.Tensor]:
        batch = collate(rows)
        twice = {
            k: v[:, None].expand(-1, 2, -1).contiguous() for k, v in batch.items() if v.dim() > 1
        }
        return twice | {"labels": batch["labels"] % 2}

    run = trainer(
        lorafit.Trainer, multiple_choice(), tmp_path, keywords={"data_collator": two_choices}
    )
    run.train()
    [line] = said(caplog)
    assert "BertForMultipleChoice has no head for sequences, tokens or the next token" in line


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"position_ids": torch.arange(13)[None]}, "the batch has position_ids"),
        ({"labels": torch.full((4,), -100)}, "no example of the batch has a label"),
        ({"attention_mask": "left"}, "the batch is padded on the left"),
        ({"attention_mask": "between"}, "padded between tokens"),
        ({"input_ids": "other padding"}, "not padded with the model's padding token"),
    ],
)
def test_single_batches_are_the_parents(
    change: dict[str, Any], reason: str, tmp_path: Path, caplog: Any
) -> None:
    """Others of the same training are not."""
    batch = collate([Rows()[i] for i in range(4)])
    odd = batch | change
    if change.get("attention_mask") == "left":
        odd |= {name: batch[name].flip(1) for name in ("input_ids", "attention_mask")}
    if change.get("attention_mask") == "between":
        odd["attention_mask"] = batch["attention_mask"].clone()
        odd["attention_mask"][:, 1] = 0
    if change.get("input_ids") == "other padding":
        odd["input_ids"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 5)
    if "position_ids" in change:
        odd["position_ids"] = torch.arange(batch["input_ids"].shape[1])[None]
    losses: list[Any] = []
    for cls in (transformers.Trainer, lorafit.Trainer):
        run = trainer(cls, adapted("peft", "bert"), tmp_path / cls.__module__)
        run.current_gradient_accumulation_steps = 1
        first = run.training_step(run.model, dict(batch))
        second = run.training_step(run.model, dict(odd))
        losses.append((float(first), float(second)))
        grads = {n: p.grad for n, p in run.model.named_parameters() if p.grad is not None}
        losses.append(float(sum(g.square().sum() for g in grads.values())))
    assert losses[2] == pytest.approx(losses[0], rel=1e-5, nan_ok=True)
    assert losses[3] == pytest.approx(losses[1], rel=1e-4, nan_ok=True)
    [line] = said(caplog)
    assert reason in line


def test_a_step_of_another_class_is_called(tmp_path: Path, caplog: Any) -> None:
    class Counting(transformers.Trainer):
        calls = 0

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return super().training_step(*args, **kwargs)

    class Both(lorafit.TrainerMixin, Counting):
        pass

    run = trainer(Both, adapted("peft", "bert"), tmp_path)
    run.train()
    assert run.calls == 6
    [line] = said(caplog)
    assert line.endswith("Counting has a training_step of its own")

    class Passing(Both):
        skips_compute_loss = True

    caplog.clear()
    run = trainer(Passing, adapted("peft", "bert"), tmp_path)
    run.train()
    assert run.calls == 0
    assert said(caplog) == []


def test_the_mixin_makes_a_trainer_of_any_other(tmp_path: Path) -> None:
    class Other(transformers.Trainer):
        pass

    class Fast(lorafit.TrainerMixin, Other):
        pass

    run = trainer(Fast, adapted("peft", "bert"), tmp_path, eval_strategy="no", save_strategy="no")
    run.train()
    assert run.lorafit_engine is not None


def elsewhere(run: Any, place: str = "", name: str = "", value: Any = None) -> Any:
    """A stand-in for the Trainer on a machine, or with a setting, that is not here."""
    names = ("compute_loss_func", "label_smoother", "label_names", "model")
    own = {name: getattr(run, name) for name in names}
    own |= {"is_deepspeed_enabled": False, "is_fsdp_enabled": False, "skips_compute_loss": True}
    parts: dict[str, dict[str, Any]] = {
        "trainer": own,
        "args": {**vars(run.args), "device": torch.device("cpu"), "world_size": 1},
        "accelerator": {"num_processes": 1, "mixed_precision": "no", "parallelism_config": None},
    }
    if place:
        parts[place][name] = value
    args, accelerator = (SimpleNamespace(**parts[part]) for part in ("args", "accelerator"))
    return SimpleNamespace(**parts["trainer"], args=args, accelerator=accelerator)


@pytest.mark.parametrize(
    ("place", "name", "value", "reason"),
    [
        ("trainer", "is_deepspeed_enabled", True, "DeepSpeed is on"),
        ("trainer", "is_fsdp_enabled", True, "FSDP is on"),
        ("trainer", "label_names", ["start_positions"], "the labels are called start_positions"),
        ("accelerator", "num_processes", 2, "there are 2 processes"),
        ("accelerator", "mixed_precision", "fp16", "mixed precision is fp16"),
        ("accelerator", "parallelism_config", object(), "a parallelism_config is set"),
        ("args", "world_size", 4, "there are 4 processes"),
        ("args", "device", torch.device("cuda"), "there is cuda"),
        ("args", "bf16_full_eval", True, "bf16_full_eval"),
        ("args", "torch_compile", True, "the model is compiled"),
        ("args", "use_liger_kernel", True, "use_liger_kernel is on"),
    ],
)
def test_other_machines_and_settings_are_the_parents(
    place: str, name: str, value: Any, reason: str, tmp_path: Path
) -> None:
    run = trainer(lorafit.Trainer, adapted("peft", "bert"), tmp_path)
    check_trainer(elsewhere(run), run.model)
    with pytest.raises(Unsupported, match=reason):
        check_trainer(elsewhere(run, place, name, value), run.model)


def test_a_wrapped_model_is_the_parents(tmp_path: Path) -> None:
    run = trainer(lorafit.Trainer, adapted("peft", "bert"), tmp_path)
    with pytest.raises(Unsupported, match="wrapped in DataParallel"):
        check_trainer(run, nn.DataParallel(run.model))


def test_it_works_without_peft(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "from pathlib import Path\n"
        "import lorafit\n"
        "from lorafit.peft import LoraConfig, get_peft_model\n"
        "from tests.trainer.helpers import base, trainer\n"
        "config = LoraConfig(r=4, target_modules=['query'], task_type='SEQ_CLS')\n"
        "run = trainer(lorafit.Trainer, get_peft_model(base('bert'), config), Path(sys.argv[1]))\n"
        "run.train()\n"
        "print(run.lorafit_engine.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "fast"


def test_the_command_line_does_not_import_it() -> None:
    code = (
        "import sys, lorafit, lorafit.cli\n"
        "print(*{'torch', 'transformers', 'lorafit.trainer'} & set(sys.modules))\n"
        "print(lorafit.Trainer.__mro__[1] is lorafit.TrainerMixin)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.splitlines() == ["", "True"]


def test_the_first_refusal_is_a_warning(tmp_path: Path, caplog: Any) -> None:
    trainer(OwnLoss, adapted("peft", "bert"), tmp_path, max_steps=2).train()
    levels = {r.levelno for r in caplog.records if r.name == "lorafit.trainer.trainer"}
    assert levels == {logging.WARNING}

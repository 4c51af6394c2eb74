import json
import math
import os
import signal
from typing import Any

import pytest
import torch

from lorafit.engine.eager import EagerEngine
from lorafit.errors import (
    DataError,
    DivergenceError,
    RunError,
    TrainingError,
)
from lorafit.run import RunWriter
from lorafit.training.learner import Learner
from lorafit.training.loop import FitResult, fit
from lorafit.training.progress import QuietProgress
from lorafit.training.validate import evaluate
from tests.training import toy


def test_training_learns_and_only_the_trainable_parameters_change():
    model = toy.bert()
    trainable = toy.train_some(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    result, _ = toy.run_fit(toy.config(num_train_epochs=8), model=model, n=256)
    assert isinstance(result, FitResult)
    assert result.best_eval_loss < 0.5  # ln 2 = 0.69 is chance
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in trainable)


def test_same_seed_gives_the_same_weights_and_another_seed_others():
    first = toy.weights(toy.run_fit(toy.config(seed=3))[1])
    again = toy.weights(toy.run_fit(toy.config(seed=3))[1])
    other = toy.weights(toy.run_fit(toy.config(seed=4))[1])
    assert toy.same(first, again)
    assert not toy.same(first, other)


def test_accumulated_micro_batches_give_the_step_of_the_whole_batch():
    # 22 examples, micro batches of 4: the last step of an epoch has 6 examples, uneven parts.
    def after(batch_size, accumulation):
        model = toy.bert(dropout=0.0)
        settings = toy.config(
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=1,
            load_best_model_at_end=False,
            max_grad_norm=None,
        )
        return settings, model

    settings, model = after(4, 100)
    result, accumulated = toy.run_fit(settings, model=model, n=22)
    assert result.steps == 1
    settings, model = after(22, 1)
    result, whole = toy.run_fit(settings, model=model, n=22)
    assert result.steps == 1
    # Adam's first step is the sign of the gradient; compare its first moment too.
    for name in whole:
        torch.testing.assert_close(accumulated[name].grad, whole[name].grad, rtol=1e-4, atol=1e-6)


def test_metrics_have_a_line_per_logging_step_and_per_evaluation(tmp_path):
    settings = toy.config(eval_steps=4)
    run = RunWriter.create(settings, tmp_path)
    result, _ = toy.run_fit(settings, run)
    lines = run.metrics
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [line["step"] for line in lines if "eval_loss" in line] == [4, 8, 12, 16]
    assert set(lines[1]) == {
        "step", "epoch", "train_loss", "eval_loss", "eval_accuracy", "learning_rate", "grad_norm",
        "tokens_per_s", "time_s", "peak_memory_bytes",
    }  # fmt: skip
    assert lines[-1]["epoch"] == 2
    assert result.steps == 16
    assert result.best_eval_loss == min(line["eval_loss"] for line in lines if "eval_loss" in line)
    mean = sum(line["train_loss"] for line in lines) / len(lines)
    assert result.train_loss == pytest.approx(mean)


def test_tokens_per_second_count_no_padding(tmp_path):
    settings = toy.config(num_train_epochs=1, logging_steps=100, eval_steps=100)
    run = RunWriter.create(settings, tmp_path)
    result, _ = toy.run_fit(settings, run)
    real = sum(len(ids) for ids in toy.examples(64)["input_ids"])
    (line,) = run.metrics
    assert line["tokens_per_s"] == result.tokens_per_s
    assert real / line["tokens_per_s"] < result.time_s


def test_evaluates_four_times_an_epoch_by_default(tmp_path):
    settings = toy.config(num_train_epochs=1)
    run = RunWriter.create(settings, tmp_path)
    toy.run_fit(settings, run, n=128)
    assert [line["step"] for line in run.metrics if "eval_loss" in line] == [4, 8, 12, 16]


def test_fractional_epochs_and_max_steps():
    assert toy.run_fit(toy.config(num_train_epochs=0.5))[0].steps == 4
    assert toy.run_fit(toy.config(max_steps=11))[0].steps == 11


@pytest.mark.parametrize("with_folder", [True, False])
def test_best_weights_are_restored_at_the_end(tmp_path, with_folder):
    # A rate far too high after a good start: the last evaluation is not the best.
    settings = toy.config(
        learning_rate=0.3, max_grad_norm=None, eval_steps=1, early_stopping_patience=None,
        warmup_ratio=0.9, lr_scheduler_type="linear",
    )  # fmt: skip
    run = RunWriter.create(settings, tmp_path) if with_folder else None
    model = toy.bert()
    result, _ = toy.run_fit(settings, run, model=model)
    assert result.best_step < result.steps
    found = evaluate(toy.engine(model), toy.ToyTask(), toy.examples(32, seed=1), 64)
    assert found["eval_loss"] == pytest.approx(result.best_eval_loss, rel=1e-6)


def test_last_weights_stay_when_the_best_are_not_asked_for():
    settings: dict[str, Any] = {
        "learning_rate": 0.3,
        "max_grad_norm": None,
        "eval_steps": 1,
        "early_stopping_patience": None,
    }
    best = toy.run_fit(toy.config(**settings))
    last = toy.run_fit(toy.config(**settings, load_best_model_at_end=False))
    assert last[0].best_step == best[0].best_step < last[0].steps
    assert not toy.same(toy.weights(best[1]), toy.weights(last[1]))


def test_early_stopping_stops_after_the_patience():
    settings = toy.config(
        learning_rate=0.3, max_grad_norm=None, eval_steps=1, early_stopping_patience=3,
        num_train_epochs=20,
    )  # fmt: skip
    result, _ = toy.run_fit(settings)
    assert result.steps == result.best_step + 3
    assert result.stopped.startswith("early: 3 evaluations")


def test_modules_keep_their_mode():
    model = toy.bert().eval()
    model.bert.pooler.train()
    toy.run_fit(toy.config(max_steps=2), model=model)
    assert not model.training
    assert model.bert.pooler.training


def test_loss_that_is_not_finite_stops_with_step_examples_rate_and_advice(tmp_path):
    settings = toy.config(eval_steps=2, lr_scheduler_type="warmup_stable_decay")
    run = RunWriter.create(settings, tmp_path)
    model = toy.bert()

    class Breaking:
        name, reason = "breaking", "for the test"

        def __init__(self):
            self.calls, self.inner = 0, toy.engine(model)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def forward_backward(self, batch, scale):
            self.calls += 1
            return self.inner.forward_backward(batch, math.nan if self.calls == 5 else scale)

    trainable = toy.train_some(model)
    with pytest.raises(DivergenceError) as caught:
        toy.run_fit(settings, run, model=model, trainable=trainable, engine=Breaking())
    message = str(caught.value)
    assert "the norm of the gradient is nan at step 5" in message
    assert "learning rate 0.005" in message
    assert "training examples" in message
    assert "checkpoint of step 4 is kept" in message
    assert "lower train.learning_rate (try 0.0013)" in message
    assert "\n" not in message
    assert all(torch.isfinite(parameter).all() for parameter in trainable.values())
    assert run.status == "failed"
    assert run.message == message


def test_nan_in_one_micro_batch_names_only_its_examples():
    model = toy.bert()

    class Breaking(EagerEngine):
        calls = 0

        def forward_backward(self, batch, scale):
            self.calls += 1
            result = super().forward_backward(batch, scale)
            if self.calls == 2:
                result.loss_sum.fill_(math.inf)
            return result

    engine = Breaking(model, toy.ToyTask(), toy.NO_TOKENIZER)
    settings = toy.config(per_device_train_batch_size=4, gradient_accumulation_steps=2)
    with pytest.raises(DivergenceError, match="the loss is inf at step 1") as caught:
        toy.run_fit(settings, model=model, engine=engine)
    listed = str(caught.value).partition("training examples ")[2].partition(".")[0]
    assert len(listed.split(", ")) == 4


def test_validation_loss_that_is_not_finite_stops():
    model = toy.bert()

    class Breaking(EagerEngine):
        def logits(self, batch):
            return super().logits(batch) * math.nan

    with pytest.raises(DivergenceError, match="the validation loss is nan after step 2"):
        toy.run_fit(
            toy.config(eval_steps=2),
            model=model,
            engine=Breaking(model, toy.ToyTask(), toy.NO_TOKENIZER),
        )


def test_parameter_outside_the_graph_is_an_error_that_names_it():
    model = toy.bert()
    trainable = toy.train_some(model) | {"stray": torch.nn.Parameter(torch.zeros(2))}
    with pytest.raises(TrainingError, match=r"stray \(1\) of \d+ trainable parameters got no grad"):
        toy.run_fit(toy.config(), model=model, trainable=trainable)


def test_parameter_with_only_zero_gradients_is_an_error_that_names_it():
    model = toy.bert()
    trainable = toy.train_some(model)
    # Token type 1 is never used; freezing row 0 leaves nothing but zeros.
    unused = model.bert.embeddings.token_type_embeddings.weight.requires_grad_()
    unused.register_hook(torch.zeros_like)
    with pytest.raises(TrainingError, match=r"token_type.* only zero gradients in the first 2"):
        toy.run_fit(toy.config(), model=model, trainable=trainable | {"token_type": unused})


def test_zero_gradient_in_the_first_step_alone_is_fine():
    # As LoRA: the second factor is zero at the start, so the first has no gradient yet.
    model = toy.bert()

    class LowRank(torch.nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base
            self.a = torch.nn.Parameter(torch.randn(2, 16))
            self.b = torch.nn.Parameter(torch.zeros(2, 2))

        def forward(self, x):
            return self.base(x) + x @ self.a.T @ self.b.T

    model.requires_grad_(False)
    low_rank = LowRank(model.classifier)
    model.add_module("classifier", low_rank)
    trainable = {"a": low_rank.a, "b": low_rank.b}
    result, _ = toy.run_fit(toy.config(max_steps=3), model=model, trainable=trainable)
    assert result.steps == 3


def test_nothing_to_train_and_frozen_parameters_are_errors():
    model = toy.bert()
    data = toy.examples(8)
    with pytest.raises(TrainingError, match="nothing to train"):
        fit(Learner(toy.engine(model), model, toy.ToyTask(), {}, data, data), toy.config())
    frozen = {"w": torch.nn.Parameter(torch.zeros(2), requires_grad=False)}
    with pytest.raises(TrainingError, match=r"requires_grad is False\): w"):
        toy.run_fit(toy.config(), model=model, trainable=frozen)


def test_empty_splits_are_errors():
    with pytest.raises(DataError, match="no training examples"):
        toy.run_fit(toy.config(), n=0)
    with pytest.raises(DataError, match="no validation examples"):
        toy.run_fit(toy.config(), validation=toy.examples(8).select([]))


def test_bf16_autocast_trains():
    model = toy.bert()
    result, trainable = toy.run_fit(
        toy.config(max_steps=4), model=model, engine=toy.engine(model, autocast=True)
    )
    assert math.isfinite(result.best_eval_loss)
    assert all(parameter.dtype == torch.float32 for parameter in trainable.values())


def test_progress_hears_every_step_and_evaluation():
    class Listener(QuietProgress):
        def __init__(self):
            self.heard = []

        def start(self, step, total_steps):
            self.heard.append(("start", step, total_steps))

        def step(self, update):
            self.heard.append(("step", update.step))
            assert update.time_left_s >= 0

        def evaluated(self, step, metrics, best):
            self.heard.append(("evaluated", step, best))
            assert {"eval_loss", "eval_accuracy"} <= set(metrics)

        def stop(self):
            self.heard.append(("stop",))

    listener = Listener()
    toy.run_fit(toy.config(max_steps=2, eval_steps=2), progress=listener)
    assert listener.heard == [
        ("start", 0, 2), ("step", 1), ("step", 2), ("evaluated", 2, True), ("stop",),
    ]  # fmt: skip


def test_progress_is_stopped_when_training_fails():
    class Listener(QuietProgress):
        stopped = 0

        def step(self, update):
            raise RuntimeError("from the user's own progress")

        def stop(self):
            self.stopped += 1

    listener = Listener()
    with pytest.raises(RuntimeError, match="user's own"):
        toy.run_fit(toy.config(), progress=listener)
    assert listener.stopped == 1


def test_status_goes_from_created_to_trained(tmp_path):
    settings = toy.config(max_steps=2)
    run = RunWriter.create(settings, tmp_path)
    begun: str = run.status
    assert begun == "created"

    class Listener(QuietProgress):
        def step(self, update):
            assert run.status == "training"
            assert run.locked

    toy.run_fit(settings, run, progress=Listener())
    assert run.status == "trained"
    assert not run.locked


def test_two_processes_cannot_train_in_one_run(tmp_path):
    settings = toy.config(max_steps=2)
    run = RunWriter.create(settings, tmp_path)
    with (
        RunWriter(run.path).lock(),
        pytest.raises(RunError, match=r"another process .* is training in"),
    ):
        toy.run_fit(settings, run)
    assert run.status == "created"


def test_trained_run_is_not_trained_over(tmp_path):
    settings = toy.config(max_steps=2)
    run = RunWriter.create(settings, tmp_path)
    toy.run_fit(settings, run)
    before = run.metrics
    with pytest.raises(RunError, match=r"trained before \(checkpoint of step 2\)"):
        toy.run_fit(settings, run)
    assert run.metrics == before
    assert run.status == "trained"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_at_the_step_boundary_and_says_how_to_resume(tmp_path, number, caplog):
    settings = toy.config(eval_steps=100, max_steps=6)
    whole = toy.weights(toy.run_fit(settings)[1])

    class Interrupting(QuietProgress):
        def step(self, update):
            if update.step == 2:
                os.kill(os.getpid(), number)

    run = RunWriter.create(settings, tmp_path)
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as caught:
        toy.run_fit(settings, run, progress=Interrupting())
    assert signal.getsignal(number) is handler
    message = str(caught.value)
    assert message.startswith("stopped after step 2 of 6. Go on with: lorafit train --resume")
    assert "stopping after this step" in caplog.text
    assert str(run.path) in message
    assert run.summary.status == "interrupted"

    result, trainable = toy.run_fit(settings, run, resume=True)
    assert result.steps == 6
    assert toy.same(whole, toy.weights(trainable))


def test_resuming_a_finished_training_only_brings_back_its_weights(tmp_path):
    settings = toy.config(max_steps=4, eval_steps=2)
    run = RunWriter.create(settings, tmp_path)
    first, trainable = toy.run_fit(settings, run)
    before = json.dumps(run.metrics)
    second, again = toy.run_fit(settings, run, resume=True)
    assert toy.same(toy.weights(trainable), toy.weights(again))
    assert json.dumps(run.metrics) == before
    assert (second.steps, second.best_step) == (first.steps, first.best_step)
    assert (second.train_loss, second.stopped) == (first.train_loss, first.stopped)


def test_resuming_an_early_stopped_training_does_not_go_on(tmp_path):
    settings = toy.config(
        learning_rate=0.3, max_grad_norm=None, eval_steps=1, early_stopping_patience=3,
        num_train_epochs=20,
    )  # fmt: skip
    run = RunWriter.create(settings, tmp_path)
    first, trainable = toy.run_fit(settings, run)
    second, again = toy.run_fit(settings, run, resume=True)
    assert second.steps == first.steps
    assert toy.same(toy.weights(trainable), toy.weights(again))

import errno
import json
import logging
import os
import resource
import shutil

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from lorafit.errors import RunError
from lorafit.run import RunWriter
from lorafit.training import checkpoint
from lorafit.training.progress import QuietProgress
from lorafit.training.state import TrainState
from tests.training import toy


class StopAt(QuietProgress):
    """Leaves training from inside, as a crash would."""

    def __init__(self, step):
        self.at = step

    def step(self, update):
        if update.step == self.at:
            raise RuntimeError("crash")


SETTINGS = {"eval_steps": 2, "num_train_epochs": 1}


@pytest.fixture
def crashed(tmp_path):
    """A run that crashed in step 7 of 8, with checkpoints of step 6 (last) and the best."""
    settings = toy.config(**SETTINGS)
    run = RunWriter.create(settings, tmp_path)
    with pytest.raises(RuntimeError, match="crash"):
        toy.run_fit(settings, run, progress=StopAt(7))
    assert checkpoint.latest_step(run.checkpoints) == 6
    return run


def resume(run, **options):
    return toy.run_fit(toy.config(**SETTINGS), run, resume=True, **options)


def test_only_best_and_last_are_kept_and_nothing_is_pickled(tmp_path):
    settings = toy.config(
        eval_steps=1, learning_rate=0.3, max_grad_norm=None, early_stopping_patience=3,
    )  # fmt: skip
    run = RunWriter.create(settings, tmp_path)
    result, _ = toy.run_fit(settings, run)
    assert checkpoint.steps(run.checkpoints) == [result.best_step, result.steps]
    found = {path.name for path in run.checkpoints.rglob("*") if path.is_file()}
    assert found == {"state.safetensors", "state.json"}


def test_save_steps_sets_when_checkpoints_are_written(tmp_path):
    settings = toy.config(save_steps=3, eval_steps=100, num_train_epochs=1)
    run = RunWriter.create(settings, tmp_path)
    with pytest.raises(RuntimeError, match="crash"):
        toy.run_fit(settings, run, progress=StopAt(8))
    assert checkpoint.steps(run.checkpoints) == [6]


def test_new_best_is_kept_even_between_save_steps(tmp_path):
    settings = toy.config(save_steps=100, eval_steps=1, num_train_epochs=1)
    run = RunWriter.create(settings, tmp_path)
    with pytest.raises(RuntimeError, match="crash"):
        toy.run_fit(settings, run, progress=StopAt(2))
    assert checkpoint.steps(run.checkpoints) == [1]


def test_optimizer_state_comes_back_exactly(tmp_path):
    parameters = {
        "a": torch.nn.Parameter(torch.randn(3, 2)),
        "b": torch.nn.Parameter(torch.ones(2)),
    }
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1, fused=True)
    for _ in range(3):
        for parameter in parameters.values():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    saved = checkpoint.save(
        tmp_path, TrainState(3), checkpoint.collect(parameters, optimizer), {}, []
    )
    copies = {name: torch.nn.Parameter(torch.zeros_like(p)) for name, p in parameters.items()}
    other = torch.optim.AdamW([{"params": [copies["b"]]}, {"params": [copies["a"]]}], lr=0.1)
    found = checkpoint.read(saved)
    checkpoint.load_weights(found, copies)
    checkpoint.load_optimizer(found, copies, other)
    for name, parameter in parameters.items():
        assert torch.equal(parameter, copies[name])
        theirs = optimizer.state[parameter]
        for kind, value in other.state[copies[name]].items():
            assert torch.equal(value, theirs[kind])
            assert value.dtype == theirs[kind].dtype


def test_weights_that_share_storage_can_be_saved(tmp_path):
    flat = torch.arange(6.0)
    parameters = {"a": torch.nn.Parameter(flat[:2]), "b": torch.nn.Parameter(flat[2:].view(2, 2).T)}
    optimizer = torch.optim.AdamW(parameters.values())
    saved = checkpoint.save(
        tmp_path, TrainState(1), checkpoint.collect(parameters, optimizer), {}, []
    )
    found = checkpoint.read(saved).tensors
    assert torch.equal(found["weight/a"], flat[:2])
    assert torch.equal(found["weight/b"], flat[2:].view(2, 2).T)


@pytest.mark.parametrize("harm", ["truncate", "flip", "empty json", "half json", "missing"])
def test_damaged_last_checkpoint_falls_back_to_the_previous_one_and_says_so(tmp_path, harm, caplog):
    # Step 4 is the last, step 2 the best (its validation loss is made the lowest).
    settings = toy.config(eval_steps=2, num_train_epochs=1, learning_rate=0.3, max_grad_norm=None)
    whole = toy.weights(toy.run_fit(settings)[1])
    run = RunWriter.create(settings, tmp_path)
    toy.run_fit(settings, run)
    best, last = checkpoint.steps(run.checkpoints)
    folder = checkpoint.path_of(run.checkpoints, last)
    tensors, values = folder / "state.safetensors", folder / "state.json"
    content = bytearray(tensors.read_bytes())
    if harm == "truncate":
        tensors.write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif harm == "missing":
        tensors.unlink()
    else:
        values.write_text("" if harm == "empty json" else values.read_text()[:200])
    with caplog.at_level(logging.WARNING, "lorafit"):
        _, trainable = toy.run_fit(settings, run, resume=True)
    assert f"{last:08d}" in caplog.text
    assert "damaged: " in caplog.text
    assert f"going back to the checkpoint of step {best}" in caplog.text
    assert toy.same(whole, toy.weights(trainable))
    assert checkpoint.read(folder).step == last


def test_no_whole_checkpoint_left_is_one_clear_error(crashed):
    for step in checkpoint.steps(crashed.checkpoints):
        (checkpoint.path_of(crashed.checkpoints, step) / "state.json").write_text("{")
    with pytest.raises(RunError, match=r"is damaged: .* start a new run, or delete"):
        resume(crashed)


def test_checkpoint_of_a_newer_format_is_refused(crashed):
    path = checkpoint.path_of(crashed.checkpoints, 6) / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(RunError, match="has format 99; this version of lorafit reads 1"):
        checkpoint.read(path.parent)


def test_unfinished_checkpoints_are_ignored_and_cleaned(crashed):
    folder = crashed.checkpoints
    shutil.copytree(checkpoint.path_of(folder, 6), folder / ".tmp-step-00000007-123")
    latest = checkpoint.latest(folder)
    assert latest is not None
    assert latest.step == 6
    resume(crashed)
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "No space left on device. What to do: free some disk space"),
        (errno.EACCES, "Permission denied. What to do: choose a folder you may write to"),
    ],
)
def test_failed_write_is_one_line_and_the_previous_checkpoint_stays_whole(
    tmp_path, monkeypatch, code, said
):
    settings = toy.config(eval_steps=1, num_train_epochs=1)
    whole = toy.weights(toy.run_fit(settings)[1])
    run = RunWriter.create(settings, tmp_path)
    write, calls = save_file, 0

    def fail(tensors, path, **more):
        nonlocal calls
        calls += 1
        write(tensors, path, **more)
        if calls == 3:
            # As safetensors reports it.
            raise SafetensorError(
                f"Error while serializing: I/O error: {os.strerror(code)} (os error {code})"
            )

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(RunError) as caught:
        toy.run_fit(settings, run)
    message = str(caught.value)
    assert message.startswith("cannot write the checkpoint to")
    assert said in message
    assert message.endswith("the checkpoint of step 2 is whole: resume from it.")
    assert "\n" not in message
    assert not list(run.checkpoints.glob(".tmp-*"))
    assert run.status == "failed"
    _, trainable = toy.run_fit(settings, run, resume=True)
    assert toy.same(whole, toy.weights(trainable))


def test_file_size_limit_of_the_system_is_reported_too(tmp_path):
    # A real failed write, half way through the file.
    tensors = {"weight/a": torch.zeros(100_000)}
    checkpoint.save(tmp_path, TrainState(1), tensors, {}, [])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(RunError, match="File too large"):
            checkpoint.save(tmp_path, TrainState(2), tensors, {}, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.read(tmp_path / "step-00000001").step == 1


def test_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(RunError, match="cannot write the checkpoint"):
        checkpoint.save(tmp_path / "checkpoints", TrainState(1), {}, {}, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"per_device_train_batch_size": 4}, "per_device_train_batch_size was 8, now 4"),
        ({"num_train_epochs": 2}, "total steps was 8, now 16"),
        ({"seed": 5}, "seed was 0, now 5"),
    ],
)
def test_resuming_with_other_settings_is_an_error_that_names_them(crashed, change, said):
    with pytest.raises(RunError, match=said):
        toy.run_fit(toy.config(**(SETTINGS | change)), crashed, resume=True)
    with pytest.raises(RunError, match="train examples was 64, now 60"):
        resume(crashed, n=60)


def test_resuming_with_another_model_is_an_error_that_names_the_parameters(crashed):
    model = toy.bert()
    trainable = toy.train_some(model)
    trainable.pop("classifier.bias")
    with pytest.raises(RunError, match=r"does not fit this model: 1 parameters .*classifier.bias"):
        resume(crashed, model=model, trainable=trainable)


def test_resuming_without_a_checkpoint_starts_again_and_says_so(tmp_path, caplog):
    settings = toy.config(**SETTINGS)
    whole = toy.weights(toy.run_fit(settings)[1])
    run = RunWriter.create(settings, tmp_path)
    run.append_metrics({"step": 1})
    with caplog.at_level(logging.INFO, "lorafit"):
        _, trainable = toy.run_fit(settings, run, resume=True)
    assert "has no checkpoint yet: starting at step 0" in caplog.text
    assert toy.same(whole, toy.weights(trainable))
    assert [line["step"] for line in run.metrics] == [2, 4, 6, 8]


def test_metrics_after_the_checkpoint_are_cut_on_resume(crashed):
    crashed.append_metrics({"step": 7})
    with (crashed.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "torn')
    resume(crashed)
    assert [line["step"] for line in crashed.metrics] == [2, 4, 6, 8]


def test_without_a_folder_there_is_nothing_to_resume():
    with pytest.raises(RunError, match="only a run with a folder"):
        toy.run_fit(toy.config(), resume=True)

"""Every method through the whole pipeline: trained, saved, read back, merged where it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict
from safetensors.torch import load_file

import lorafit
from lorafit import pipeline
from lorafit.cli.table import METHODS
from lorafit.engine.eager import EagerEngine
from lorafit.engine.generic.engine import GenericEngine
from lorafit.errors import AdapterError, ConfigError
from lorafit.methods import methods
from lorafit.settings import from_keywords, resolve
from tests import tiny_text

QUICK: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
    "progress": False,
    "bf16": False,
}
UNMERGEABLE = {"bottleneck", "prompt", "prefix"}


@pytest.fixture(scope="module")
def data() -> DatasetDict:
    return tiny_text.splits(24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.save_base(tmp_path_factory.mktemp("base"), "bert")


def train(base: Path, data: DatasetDict, tmp_path: Path, **settings: Any) -> lorafit.Run:
    return lorafit.train(base, data, **QUICK | {"run.dir": str(tmp_path)} | settings)


@pytest.mark.parametrize("method", list(methods))
def test_a_method_is_trained_saved_read_back_and_merged(
    method: str, folder: Path, data: DatasetDict, tmp_path: Path
) -> None:
    run = train(folder, data, tmp_path / "runs", method=method)
    assert run.status == "done"
    handoff = run.eval["handoff"]
    # Saved as one LoRA of twice the rank, which is summed differently.
    assert handoff["reloaded_max_abs_diff"] <= (1e-6 if method == "pissa" else 0.0)
    tuned = lorafit.load(run)
    assert tuned.adapters.configs["default"].peft_type == methods[method]().config_class().peft_type
    assert len(lorafit.predict(tuned, ["a good film"])) == 1
    saved = load_file(run.adapter / "adapter_model.safetensors")
    trained = run.eval["training"]["trainable_parameters"]
    assert trained <= sum(t.numel() for t in saved.values())
    if method in UNMERGEABLE:
        assert "merged_max_abs_diff" not in handoff
        with pytest.raises(AdapterError, match="cannot be merged"):
            lorafit.merge(run, tmp_path / "plain")
        assert not (tmp_path / "plain").exists()
    else:
        assert handoff["merged_max_abs_diff"] < 1e-5
        lorafit.merge(run, tmp_path / "plain")
    card = (run.adapter / "README.md").read_text()
    in_peft = not tuned.adapters.configs["default"].peft_type.startswith("LORAFIT_")
    assert ("from peft import" in card) == in_peft
    assert run.choices["learning_rate"].value == run.config.train.learning_rate


def test_a_live_model_is_given_back_bit_for_bit_after_full_fine_tuning(
    folder: Path, data: DatasetDict, tmp_path: Path
) -> None:
    import transformers as hf

    model = hf.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lorafit.train(
        model, data, tokenizer=tokenizer, method="full", **QUICK | {"run.dir": str(tmp_path)}
    )
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_learning_rate_starts_from_the_methods_own(folder: Path) -> None:
    given = {"model.name_or_path": str(folder), "data.path": "x", "adapter.method": "full"}
    resolved = resolve(from_keywords(given, "full"))
    assert resolved.config.train.learning_rate == methods["full"].learning_rate
    assert resolved.origins["train.learning_rate"] == "default"


def test_a_method_that_does_not_fit_leaves_no_run_behind(data: DatasetDict, tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "base", "llama")
    with pytest.raises(ConfigError, match=r"trains biases, but .* has none"):
        train(base, data, tmp_path / "runs", method="bitfit")
    assert not (tmp_path / "runs").exists()


def test_the_help_lists_every_method() -> None:
    listed = METHODS.removeprefix("Method: ").removesuffix(".").replace(" or ", ", ").split(", ")
    assert sorted(listed) == list(methods)


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("method", list(methods))
def test_whichever_engine_is_chosen_gives_the_gradients_of_plain_torch(
    method: str,
    family: str,
    data: DatasetDict,
    tmp_path: Path,
) -> None:
    if (method, family) == ("bitfit", "llama"):
        return  # refused, see above
    base = tiny_text.save_base(tmp_path, family)
    given: dict[str, Any] = {
        "model.name_or_path": str(base),
        "data.path": "x",
        "adapter.method": method,
    }
    if "lora_dropout" in methods[method].config_class.model_fields:
        given["adapter.lora_dropout"] = 0.0
    config = resolve(from_keywords(given | {"bf16": False}, method)).config
    problem = pipeline.pose(data, config)
    subject = pipeline.prepare(problem, config)
    subject.model.eval()  # no dropout
    rows = [subject.encoded["train"][i] for i in range(6)]
    found = []
    parts = (subject.model, problem.task, subject.tokenizer)
    chosen = subject.engine
    if isinstance(chosen, GenericEngine):  # one for which tiny layers count
        chosen = GenericEngine(*parts, dtype=chosen.dtype, smallest=1)
    for engine in (chosen, EagerEngine(*parts)):
        trainable = subject.adapters.trainable()
        engine.forward_backward(engine.collate(rows), 1 / 6)
        found.append({name: p.grad.clone() for name, p in trainable.items() if p.grad is not None})
        for parameter in trainable.values():
            parameter.grad = None
    largest = max(gradient.abs().max() for gradient in found[1].values())
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[1].items():
        torch.testing.assert_close(found[0][name], gradient, rtol=1e-4, atol=float(1e-4 * largest))


def test_a_resumed_run_trains_the_positions_chosen_at_its_start(
    folder: Path, data: DatasetDict, tmp_path: Path
) -> None:
    run = train(folder, data, tmp_path, method="sparse", density=0.02)
    chosen = load_file(run.path / pipeline.START / "adapter_model.safetensors")
    final = load_file(run.adapter / "adapter_model.safetensors")
    indices = [name for name in chosen if name.endswith("sparse_indices")]
    assert indices
    assert all(torch.equal(chosen[name], final[name]) for name in indices)
    # Other gradients (another seed, another order of the data) do not change what is read back.
    config = run.config.model_copy(update={"seed": 5})
    problem = pipeline.pose(data, config)
    again = pipeline.prepare(problem, config, start=run.path / pipeline.START)
    state = again.adapters.state_dict()
    for name in indices:
        assert torch.equal(state[name.removeprefix("base_model.model.")], chosen[name])
    assert again.adapters.trainable()

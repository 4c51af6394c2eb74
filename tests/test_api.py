"""The calls from end to end on a tiny model and tiny data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as hf
from datasets import Dataset, DatasetDict
from markupsafe import escape
from safetensors.torch import load_file

import lorafit
from lorafit.engine.eager import EagerEngine
from lorafit.errors import (
    AdapterError,
    ConfigError,
    DataError,
    HandoffError,
    ModelError,
    RunError,
    TargetError,
)
from lorafit.evaluation.score import intervals
from lorafit.export import peft as peft_format
from lorafit.pipeline import predicting
from lorafit.pipeline.measure import measure, measuring_engine
from lorafit.run import RunWriter
from tests import tiny_text

QUICK: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
    "progress": False,
    "bf16": False,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.save_base(tmp_path_factory.mktemp("base"), "distilbert")


@pytest.fixture(scope="module")
def data() -> DatasetDict:
    return tiny_text.splits(24)


def settings(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return QUICK | {"run.dir": str(tmp_path / "runs")} | more


@pytest.fixture(scope="module")
def run(base: Path, data: DatasetDict, tmp_path_factory: pytest.TempPathFactory) -> lorafit.Run:
    folder = tmp_path_factory.mktemp("finished")
    return lorafit.train(base, data, **settings(folder, r=4, learning_rate=1e-2))


def test_a_run_leaves_everything_that_was_promised(run: lorafit.Run) -> None:
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "config.yaml",
        "choices.json",
        "environment.json",
        "data.json",
        "train_rows.npy",
        "metrics.jsonl",
        "checkpoints",
        "adapter",
        "eval.json",
        "report.html",
    }
    files = {path.name for path in run.adapter.iterdir()}
    assert files >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "lorafit.json",
        "README.md",
        "tokenizer.json",
    }
    assert run.status == "done"


def test_what_is_said_of_the_data_stays_in_the_run_and_its_report(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = tiny_text.rows(24)
    doubtful = [{"text": "", "label": "pos"}, {"text": rows[0]["text"], "label": "pos"}]
    quick = settings(tmp_path, max_steps=1, max_length=6, learning_rate=1e-3, strategy="none")
    run = lorafit.train(base, [*rows, *doubtful], **quick)
    kept = json.loads((run.path / "data.json").read_text())
    warnings = "\n".join(kept["warnings"])
    assert "train split: dropped 1 of 26 rows with an empty text" in warnings
    assert "1 repeated training texts have another label than at first" in warnings
    assert "are longer than 6 tokens and are cut there" in warnings
    assert any("2 classes: neg, pos" in fact for fact in kept["facts"])
    assert kept["splits"]["train"]["truncated"] > 0
    page = (run.path / "report.html").read_text()
    for text in kept["warnings"]:
        assert str(escape(text)) in page
    # Whatever the level of the log, the record has all; the log has what it had.
    assert all(text in caplog.text for text in kept["warnings"])
    assert not any(text in caplog.text for text in kept["facts"])


def test_the_evaluation_holds_base_and_tuned_with_intervals_and_the_hand_off(
    run: lorafit.Run,
) -> None:
    result = run.eval
    assert result["split"] == "test"
    assert result["n"] == 8
    for side in ("base", "tuned"):
        for metric in ("accuracy", "macro_f1", "nll"):
            found = result[side][metric]
            assert found["low"] <= found["value"] <= found["high"]
    assert result["paired"]["nll"]["difference"] == pytest.approx(
        result["tuned"]["nll"]["value"] - result["base"]["nll"]["value"], abs=1e-6
    )
    assert result["handoff"]["reloaded_max_abs_diff"] == 0.0
    assert result["handoff"]["merged_max_abs_diff"] < 1e-5


def test_the_head_travels_with_the_adapter(run: lorafit.Run) -> None:
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    assert "base_model.model.classifier.weight" in tensors
    assert "base_model.model.pre_classifier.weight" in tensors
    assert (
        "base_model.model.distilbert.transformer.layer.0.attention.q_lin.lora_A.weight" in tensors
    )


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_computes_the_same_from_the_adapter_folder(run: lorafit.Run, base: Path) -> None:
    from peft import PeftModel

    ours = lorafit.load(run)
    torch.manual_seed(5)
    plain = hf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    theirs = PeftModel.from_pretrained(plain, str(run.adapter)).eval()
    inputs = ours.tokenizer(["a good film", "bad"], padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(**inputs).logits, ours.model(**inputs).logits, rtol=1e-5, atol=1e-6
        )


def test_evaluate_repeats_what_training_measured(run: lorafit.Run, data: DatasetDict) -> None:
    again = lorafit.evaluate(run, data)
    for side in ("base", "tuned"):
        assert again[side] == run.eval[side]


def test_evaluating_on_rows_that_were_trained_on_is_said(
    run: lorafit.Run, data: DatasetDict, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    mixed = [*data["train"].select(range(5)), {"text": "a film of another kind", "label": "pos"}]
    found = lorafit.evaluate(run, mixed)
    assert (found["split"], found["n"], found["trained_on"]) == ("all rows", 6, 5)
    assert "the run was trained on 5 of these 6 rows" in caplog.text
    caplog.clear()
    found = lorafit.evaluate(run, data)
    assert (found["split"], found["trained_on"]) == ("test", 0)
    assert caplog.text == ""
    assert (run.path / "train_rows.npy").stat().st_size < 128 + 8 * len(data["train"]) + 1
    old = tmp_path / "old"
    shutil.copytree(run.path, old)
    (old / "train_rows.npy").unlink()
    found = lorafit.evaluate(old, data["validation"])
    assert (found["split"], found["trained_on"]) == ("all rows", None)


def test_test_rows_in_a_file_of_their_own_are_scored_and_checked_for_leaks(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, rows in (("train", tiny_text.rows(40)), ("held", tiny_text.rows(10, seed=7))):
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    with (tmp_path / "held.csv").open("a") as file:
        file.write(f"{tiny_text.rows(40)['text'][0]},NEG \n")
    given = settings(
        tmp_path,
        max_steps=1,
        test=str(tmp_path / "held.csv"),
        clean_labels=True,
        learning_rate=1e-3,
    )
    run = lorafit.train(base, tmp_path / "train.csv", **given)
    assert run.eval["n"] == 11
    assert "1 of 11 test rows have a text that also stands in an earlier split" in caplog.text
    assert lorafit.evaluate(run)["tuned"] == run.eval["tuned"]
    other = [{"text": "a film of another kind", "label": "Pos "}]
    assert lorafit.evaluate(run, other)["n"] == 1


def test_what_the_engine_measures_is_what_plain_torch_computes(
    run: lorafit.Run, data: DatasetDict
) -> None:
    tuned = lorafit.load(run)
    encoded = tuned.task.encode(data["test"], tuned.tokenizer, tuned.max_length)
    eager = EagerEngine(tuned.model, tuned.task, tuned.tokenizer)
    fast = measuring_engine(tuned, run.config)
    assert fast.name == "fast"
    for side, scores in zip(
        ("base", "tuned"),
        measure(eager, tuned.adapters, encoded, 4),
        strict=True,
    ):
        for name, found in intervals(scores, tuned.task).items():
            assert found.to_dict() == pytest.approx(run.eval[side][name], rel=1e-5, abs=1e-6)


def test_other_rows_than_at_the_beginning_are_refused(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    tiny_text.rows(60).to_csv(file, index=False)
    run = lorafit.train(base, file, **settings(tmp_path, r=2, max_steps=1, learning_rate=1e-2))
    assert lorafit.evaluate(run) == run.evaluate()
    tiny_text.rows(60, seed=1).to_csv(file, index=False)
    with pytest.raises(DataError, match="changed since it began: test has other rows now"):
        lorafit.evaluate(run)
    assert lorafit.evaluate(run, file)["n"] == 60
    RunWriter(run.path).set_status("training")
    with pytest.raises(DataError, match="train and validation and test have other rows now"):
        lorafit.train(resume=run, progress=False)


def test_predict_takes_a_run_a_folder_and_a_loaded_model(run: lorafit.Run) -> None:
    texts = ["a good film", "a bad film"]
    by_run = lorafit.predict(run, texts)
    assert type(run) is lorafit.Run
    assert by_run == run.predict(texts) == lorafit.predict(run.adapter, texts)
    assert by_run == lorafit.predict(lorafit.load(run.path), texts)
    assert {p["label"] for p in by_run} <= {"neg", "pos"}
    assert lorafit.predict(run, []) == []


def test_predict_answers_whatever_holds_the_texts(run: lorafit.Run) -> None:
    texts = ["a good film", "a bad film"]
    tuned = lorafit.load(run)
    answers = lorafit.predict(tuned, texts)
    rows = [{"id": f"row {text}", "text": text, "label": "neg"} for text in texts]
    given: list[Any] = [pd.Series(texts), np.array(texts), tuple(texts), (t for t in texts)]
    given += [rows, pd.DataFrame(rows), Dataset.from_list(rows)]
    assert [lorafit.predict(tuned, one) for one in given] == [answers] * len(given)
    [answer] = lorafit.predict(tuned, texts[0])
    assert answer["probabilities"] == pytest.approx(answers[0]["probabilities"])


def test_predictions_do_not_depend_on_how_many_are_asked_at_once(run: lorafit.Run) -> None:
    tuned, texts = lorafit.load(run), tiny_text.rows(20)["text"]
    whole = lorafit.predict(tuned, texts)
    parts = predicting.predict(tuned, texts, at_once=3)
    for one, other in zip(whole, parts, strict=True):
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)


def test_predict_refuses_what_is_not_a_text(run: lorafit.Run) -> None:
    with pytest.raises(DataError, match="empty"):
        lorafit.predict(run, ["  "])
    with pytest.raises(DataError, match="reads 1 text"):
        lorafit.predict(run, [("a", "b")])
    with pytest.raises(DataError, match="text 2 of 2 is empty"):
        lorafit.predict(run, ["a film", None])
    with pytest.raises(DataError, match=r"text 1 of 1 is a number \(5\)"):
        lorafit.predict(run, [5])
    with pytest.raises(DataError, match='row 1 of 1 has no "text"'):
        lorafit.predict(run, [{"review": "a film"}])


def test_the_merged_folder_is_a_plain_model_that_computes_the_same(
    run: lorafit.Run, tmp_path: Path
) -> None:
    out = lorafit.merge(run, tmp_path / "merged")
    merged = hf.AutoModelForSequenceClassification.from_pretrained(out).eval()
    tuned = lorafit.load(run)
    inputs = tuned.tokenizer(["a good film"], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(merged(**inputs).logits, tuned.model(**inputs).logits)
    assert merged.config.id2label == {0: "neg", 1: "pos"}
    with pytest.raises(AdapterError, match="merged"):
        lorafit.merge(run, out)


def test_the_same_seed_gives_the_same_adapter_bit_for_bit(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    def adapter(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(3)  # what was drawn before must not matter
        done = lorafit.train(base, data, **settings(tmp_path, seed=seed, lora_dropout=0.1))
        return load_file(done.adapter / "adapter_model.safetensors")

    first, again, other = adapter(1), adapter(1), adapter(2)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_a_live_model_comes_back_as_it_was(base: Path, data: DatasetDict, tmp_path: Path) -> None:
    model = hf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    tokenizer = hf.AutoTokenizer.from_pretrained(base)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    done = lorafit.train(model, data, tokenizer=tokenizer, **settings(tmp_path))
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)
    with pytest.raises(ConfigError, match="live model"):
        lorafit.load(done)
    assert lorafit.load(done, model, tokenizer).adapters.active == ["default"]


def test_a_hand_off_that_computes_something_else_fails_the_run(
    base: Path, data: DatasetDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = peft_format.save

    def broken(adapters: lorafit.Adapters, path: Path, **more: Any) -> Any:
        result = save(adapters, path, **more)
        parameter = next(p for n, p in adapters.trainable().items() if "lora_B" in n)
        with torch.no_grad():
            parameter.mul_(3.0)
        return result

    monkeypatch.setattr(peft_format, "save", broken)
    with pytest.raises(HandoffError, match="reloaded model differs"):
        lorafit.train(base, data, **settings(tmp_path, learning_rate=1e-2))
    failed = lorafit.Run.list(tmp_path / "runs")[0]
    assert failed.status == "failed"
    assert "reloaded model differs" in str(failed.message)


def test_choices_say_who_chose_and_why(run: lorafit.Run) -> None:
    choices = run.choices
    assert choices["r"].value == 4
    assert "keyword r" in choices["r"].reason
    assert choices["lora_alpha"].reason.startswith("default")
    assert choices["text"].value == ["text"]


def test_plan_trains_nothing_and_writes_nothing(
    base: Path, data: DatasetDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = lorafit.plan(base, data, num_train_epochs=3)
    assert plan.rows == {"train": 24, "validation": 6, "test": 8}
    assert len(plan.sites) == 18
    assert plan.trainable_parameters < plan.total_parameters
    assert plan.steps == 3
    assert plan.time_s > 0
    assert plan.measured == frozenset()  # three steps are too few to measure anything
    assert list(tmp_path.iterdir()) == []


def test_plan_takes_what_train_takes(base: Path, data: DatasetDict) -> None:
    plan = lorafit.plan(base, data, max_steps=7, r=2)
    assert plan.steps == 7
    assert plan.config.adapter.settings["r"] == 2
    assert plan.origins["adapter.r"] == "keyword r"
    with pytest.raises(ConfigError, match=r"lorafit.plan\(model, data, config=config\)"):
        lorafit.plan(plan.config, data=data)  # type: ignore[arg-type]
    assert lorafit.plan(config=plan.config, data=data).origins["adapter.r"] == "config"


def test_preview_describes_the_data(base: Path, data: DatasetDict) -> None:
    found = lorafit.preview(base, data)
    assert found.rows == {"train": 24, "validation": 6, "test": 8}
    assert found.label == "label"


def test_a_run_killed_at_any_moment_resumes_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    csv = tmp_path / "data"
    csv.mkdir()
    for name, rows in tiny_text.splits(24).items():
        rows.to_csv(csv / f"{name}.csv", index=False)
    common = settings(
        tmp_path,
        num_train_epochs=8,
        eval_steps=3,
        lora_dropout=0.2,
        early_stopping_patience=None,
        strategy="none",
    )
    whole = lorafit.train(base, csv, **common | {"run.name": "whole"})
    script = textwrap.dedent(
        f"""
        import lorafit
        settings = {common!r}
        lorafit.train({str(base)!r}, {str(csv)!r}, **settings, **{{"run.name": "killed"}})
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": "src:."}
    )
    checkpoints = tmp_path / "runs" / "killed" / "checkpoints"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if checkpoints.is_dir() and any(checkpoints.iterdir()):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    process.wait()
    resumed = lorafit.train(resume=tmp_path / "runs" / "killed", progress=False)
    first = load_file(whole.adapter / "adapter_model.safetensors")
    second = load_file(resumed.adapter / "adapter_model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.eval["tuned"] == whole.eval["tuned"]
    with pytest.raises(RunError, match="finished"):
        lorafit.train(resume=resumed)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "./no-such-folder"}, ModelError, "no-such-folder"),
        ({"data": "./no-such-file.csv"}, DataError, "no-such-file.csv"),
        ({"label": "labl"}, DataError, 'Did you mean "label"'),
        ({"text": "txt"}, DataError, "txt"),
        ({"target_modules": ["q_lon"]}, TargetError, 'Did you mean "q_lin"'),
        ({"learning_rat": 1.0}, ConfigError, "learning_rate"),
        ({"r": 0}, ConfigError, "adapter.r"),
        ({"r": "four"}, ConfigError, "adapter.r"),
        ({"max_length": 4000}, ConfigError, "max_length"),
        ({"method": "loar"}, ConfigError, 'Did you mean "lora"'),
        ({"task": "clasification"}, ConfigError, "sequence_classification"),
        ({"init_lora_weights": "pisa"}, ConfigError, "pissa"),
    ],
)
def test_wrong_input_is_one_clear_error_and_leaves_no_adapter(
    base: Path,
    data: DatasetDict,
    tmp_path: Path,
    change: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    values = {"model": base, "data": data} | change
    with pytest.raises(error) as caught:
        lorafit.train(values.pop("model"), values.pop("data"), **settings(tmp_path, **values))
    assert message in str(caught.value)
    assert not list(tmp_path.rglob("adapter_model.safetensors"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"text": ["a", "b", "c"], "label": [1, 1, 1]}, "one class"),
        ({"text": [], "label": []}, "0 rows"),
        ({"text": ["", "", ""], "label": [0, 1, 0]}, "text"),
        ({"text": ["a", "b", "c"], "label": [0.5, 0.5, 0.5]}, "one number only"),
        ({"text": ["a", "b", "c"]}, "no task fits.*text \\(text\\).*bert.*classification needs"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused(
    base: Path, tmp_path: Path, rows: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        lorafit.train(base, Dataset.from_dict(rows), **settings(tmp_path))


def test_a_run_folder_that_cannot_be_written_is_said_before_anything_is_trained(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunError, match="file"):
        lorafit.train(base, data, **QUICK | {"run.dir": str(tmp_path / "file" / "runs")})


def test_a_damaged_adapter_is_refused(run: lorafit.Run, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(run.adapter, folder)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AdapterError, match="adapter_model"):
        lorafit.predict(folder, ["a"])
    (folder / "lorafit.json").unlink()
    with pytest.raises(AdapterError, match="without lorafit"):
        lorafit.predict(folder, ["a"])


def test_the_config_file_reads_back_to_the_same_settings(run: lorafit.Run) -> None:
    assert run.config.adapter.settings["r"] == 4
    assert json.loads((run.path / "eval.json").read_text()) == run.eval


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_a_half_precision_base_trains_and_hands_over(
    base: Path, data: DatasetDict, tmp_path: Path, dtype: str, engine: str
) -> None:
    chosen = {"model.dtype": dtype, "train.engine": engine, "bf16": None}
    done = lorafit.train(base, data, **settings(tmp_path, **chosen))
    assert done.eval["handoff"]["reloaded_max_abs_diff"] == 0.0
    tensors = load_file(done.adapter / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}

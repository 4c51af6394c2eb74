"""The whole comparison on a tiny model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from datasets import DatasetDict
from safetensors.torch import load_file

import lorafit
from lorafit import pipeline
from lorafit.comparison import fitting
from lorafit.comparison.outcome import conclude
from lorafit.comparison.request import Request
from lorafit.comparison.workers import run_arms
from lorafit.console import show_comparison
from lorafit.errors import ConfigError, TrainingError
from lorafit.methods import methods
from lorafit.settings import from_keywords, resolve
from tests import tiny_text

QUICK: dict[str, Any] = {"batch_size": 8, "max_steps": 6, "bf16": False}


@pytest.fixture(scope="module")
def data() -> DatasetDict:
    return tiny_text.splits(24)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.save_base(tmp_path_factory.mktemp("base"), "bert")


def compare(base: Any, data: Any, runs: Path, **more: Any) -> Any:
    given: dict[str, Any] = (
        {"methods": "lora,bitfit", "seeds": 2} | QUICK | {"run.dir": str(runs)} | more
    )
    return lorafit.compare(base, data, **given)


@pytest.fixture(scope="module")
def finished(base: Path, data: DatasetDict, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished comparison; tests that change it copy its folder."""
    return compare(base, data, tmp_path_factory.mktemp("runs"), methods="full,lora,prompt")


def test_methods_are_compared_and_shown(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(finished.rows) == {"full", "lora", "prompt"}
    full, lora = finished.rows["full"], finished.rows["lora"]
    assert finished.content["reference"] == "full"
    assert full["difference"] is None
    for row in finished.rows.values():
        assert len(row["trials"]) == 4
        assert row["metric"]["low"] <= row["metric"]["value"] <= row["metric"]["high"]
        assert len(row["by_seed"]) == 2
        assert row["peak_memory_bytes"] > 1e8
        assert row["saved_bytes"] > 0
        assert row["forgetting"] >= 0
        assert [point["c"] for point in row["path"]] == [0.0, 0.25, 0.5, 0.75, 1.0]
        steps = [point["step"] for point in row["curve"]]
        assert len(steps) > 1
        assert steps == sorted(steps)
    assert lora["verdict"] in ("better", "not worse", "worse", "cannot tell")
    assert full["trainable_parameters"] > lora["trainable_parameters"] > 0
    assert full["saved_bytes"] > lora["saved_bytes"]
    redundancy = finished.content["redundancy"]
    assert set(redundancy) == {"full", "lora"}  # a prompt changes no weight
    assert redundancy["lora"]["r99"] <= 8  # its rank
    assert redundancy["full"]["shuffled"]["weights"] == redundancy["full"]["weights"]
    assert finished.content == json.loads((finished.path / "compare.json").read_text())
    loaded = lorafit.load(finished.path / "arms" / "lora" / "adapter")
    assert lorafit.predict(loaded, ["a good film"])[0]["label"] in ("neg", "pos")
    show_comparison(finished.content, finished.path)
    shown = capsys.readouterr().out
    assert "beside full" in shown
    said = finished.record.recommendation.sentence
    assert said in shown
    page = (finished.path / "compare.html").read_text(encoding="utf-8")
    title = f"Take {finished.record.recommendation.method}: "
    assert said.removeprefix(title)[1:] in unescape(page)
    assert all(f'<th scope="row">{method}' in page for method in finished.rows)
    assert "http" not in page.partition("<pre>")[0].replace("http-equiv", "")


def test_all_methods_have_the_same_number_of_steps(finished: Any) -> None:
    request = Request.read(finished.path)
    assert request.steps == 6
    assert request.trial_steps == 2
    for method, row in finished.rows.items():
        facts = json.loads((finished.path / "arms" / method / "seed-0.json").read_text())
        assert facts["steps"] == 6
        assert {trial["steps"] for trial in row["trials"]} == {2}


def test_a_killed_comparison_goes_on_where_it_was(
    base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    for split, rows in data.items():
        rows.to_json(tmp_path / "data" / f"{split}.jsonl")
    settings = QUICK | {"methods": "lora,bitfit", "seeds": 2, "run.dir": str(tmp_path / "runs")}
    code = (
        "import lorafit, json, sys\n"
        "lorafit.compare(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))\n"
    )
    command = [sys.executable, "-c", code, str(base), str(tmp_path / "data"), json.dumps(settings)]
    source = str(Path(lorafit.__file__).parents[1])
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": source}, start_new_session=True
    )
    arm = tmp_path / "runs"
    deadline = time.monotonic() + 120
    while not list(arm.glob("*/arms/lora/seed-0.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    [done] = arm.glob("*/arms/lora/seed-0.json")
    written, trials = done.stat().st_mtime_ns, (done.parent / "trials.json").read_text()
    found = lorafit.compare(base, tmp_path / "data", **settings)
    assert done.stat().st_mtime_ns == written, "what was finished is not done again"
    assert (done.parent / "trials.json").read_text() == trials
    assert found.path == done.parents[2]
    assert set(found.rows) == {"lora", "bitfit"}
    again = lorafit.compare(base, tmp_path / "data", **settings)
    assert again.path == found.path
    assert again.rows == found.rows


def test_an_arm_that_fails_is_reported_and_does_not_end_the_others(
    finished: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished.path, tmp_path / "copy")
    content = json.loads((folder / "request.json").read_text())
    content["arms"]["prompt"]["num_virtual_tokens"] = 10_000  # more than there are positions
    (folder / "request.json").write_text(json.dumps(content))
    shutil.rmtree(folder / "arms" / "prompt")
    request = Request.read(folder)
    failed = run_arms(folder, request)
    assert list(failed) == ["prompt"]
    result = conclude(folder, request, {}, failed)
    assert set(result.rows) == {"full", "lora"}
    assert result.content["failed"] == failed
    with pytest.raises(TrainingError, match="no arm finished"):
        conclude(folder, request, {}, dict.fromkeys(request.arms, "why"))


def test_methods_that_do_not_fit_are_refused_before_anything_is_trained(
    data: DatasetDict, tmp_path: Path
) -> None:
    base = tiny_text.save_base(tmp_path / "base", "distilbert")
    with pytest.raises(ConfigError, match=r"1 of 2 methods do not fit .*\nprefix: .*no past keys"):
        compare(base, data, tmp_path / "runs", methods=["prefix", "lora"])
    with pytest.raises(ConfigError, match=r'no method "bitfitt".*Did you mean "bitfit"'):
        compare(base, data, tmp_path / "runs", methods="lora,bitfitt")
    with pytest.raises(ConfigError, match=r'no method "LoRA".*Did you mean "lora"'):
        compare(base, data, tmp_path / "runs", methods="LoRA")
    for settings, said in (
        ({"learning_rate": 1e-3}, "takes no train.learning_rate"),
        ({"method": "lora"}, "takes no adapter.method"),
        ({"seeds": 0}, "seeds is 0, but"),
        ({"budget": 9.0}, "budget is 9, but it should be above 0 and at most 4"),
        ({"strategy": "none"}, "takes no tune.strategy.*the same search"),
    ):
        with pytest.raises(ConfigError, match=said):
            compare(base, data, tmp_path / "runs", **settings)
    assert not (tmp_path / "runs").exists()


def test_all_leaves_out_what_does_not_fit_and_says_why(data: DatasetDict, tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "base", "llama")
    given = {"model.name_or_path": str(base), "data.path": "x", "adapter.r": 3}
    resolved = resolve(from_keywords(given))
    problem = pipeline.pose(data, resolved.config)
    asked = fitting.names_of("all")
    field = fitting.enter(problem, resolved, asked)
    assert "has none" in field.left_out["bitfit"]
    assert set(field.entries) | set(field.left_out) == set(asked.names)
    # What a method has of the settings is its own.
    assert field.entries["lora"].settings["r"] == field.entries["dora"].settings["r"] == 3
    assert "r" not in field.entries["ia3"].settings


def test_all_and_others_may_be_named_together() -> None:
    names, leave_out = fitting.names_of("peft:vera, all, lora")
    assert names == ["peft:vera", *methods]
    assert leave_out
    assert fitting.names_of(["ia3", "lora", "ia3"]) == (["ia3", "lora"], False)


def test_a_live_model_is_compared_too(base: Path, data: DatasetDict, tmp_path: Path) -> None:
    model = hf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model.config.id2label, model.config.label2id = {0: "neg", 1: "pos"}, {"neg": 0, "pos": 1}
    tokenizer = hf.AutoTokenizer.from_pretrained(base)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = compare(model, data, tmp_path, tokenizer=tokenizer, methods="bitfit", seeds=1)
    assert set(found.rows) == {"bitfit"}
    saved = load_file(found.path / "arms" / "bitfit" / "adapter" / "adapter_model.safetensors")
    assert "base_model.model.classifier.weight" in saved, "its head is trained by all methods"
    biases = [p.numel() for n, p in model.bert.named_parameters() if n.endswith("bias")]
    assert found.rows["bitfit"]["trainable_parameters"] == sum(biases)
    assert all(bool((model.state_dict()[name] == before[name]).all()) for name in before)


def test_a_plan_counts_the_steps_that_are_taken(
    finished: Any, base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    given: dict[str, Any] = (
        {"methods": "full,lora,prompt", "seeds": 2} | QUICK | {"run.dir": str(tmp_path)}
    )
    plan = lorafit.plan_comparison(base, data, progress=False, **given)
    assert list(plan.methods) == list(finished.rows)
    for method, found in plan.methods.items():
        row = finished.rows[method]
        shuffled = method in ("full", "lora")
        taken = sum(trial["steps"] for trial in row["trials"]) + (2 + shuffled) * plan.steps
        assert found.steps == taken
        assert found.time_s > 0
        # The table of a comparison counts the method without a head that all of them train.
        assert found.trainable_parameters >= row["trainable_parameters"]
    assert plan.time_s == pytest.approx(sum(found.time_s for found in plan.methods.values()))
    assert list(tmp_path.iterdir()) == []


def test_a_plan_leaves_a_live_model_alone_and_refuses_what_compare_refuses(
    base: Path, data: DatasetDict
) -> None:
    model = hf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    tokenizer = hf.AutoTokenizer.from_pretrained(base)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given: dict[str, Any] = {"tokenizer": tokenizer, "progress": False, "seeds": 1} | QUICK
    plan = lorafit.plan_comparison(model, data, methods="lora,full", **given)
    assert set(plan.methods) == {"lora", "full"}
    assert list(model.state_dict()) == list(before)
    assert all(bool((model.state_dict()[name] == before[name]).all()) for name in before)
    with pytest.raises(ConfigError, match="seeds is 0"):
        lorafit.plan_comparison(base, data, progress=False, **QUICK, seeds=0)
    with pytest.raises(ConfigError, match='"lorra"'):
        lorafit.plan_comparison(base, data, methods="lorra", progress=False, **QUICK)

"""The comparison on models that have a language model's head."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from datasets import DatasetDict

from lorafit import pipeline
from lorafit.comparison import fitting, yardsticks
from lorafit.comparison.arm import Arm
from lorafit.comparison.outcome import Comparison, conclude
from lorafit.comparison.request import Size, arm_folder, find_or_make, make_request
from lorafit.evidence.comparison_rows import remarks
from lorafit.methods import methods
from lorafit.report.comparison import write_comparison
from lorafit.settings import from_keywords, resolve
from tests import tiny, tiny_text

TEXT = ["a good film", "the story is slow", "bad and dull", "warm funny plot", "it is a movie"]


def compared(base: Path, data: DatasetDict, names: list[str], runs: Path) -> Comparison:
    """What `lorafit.compare` does, in this process: a method takes a second, not five."""
    given = {"batch_size": 8, "max_steps": 2, "bf16": False, "run.dir": str(runs)}
    paths: dict[str, Any] = {"model.name_or_path": str(base), "data.path": "(test)"}
    resolved = resolve(from_keywords(paths | given))
    problem = pipeline.pose(data, resolved.config)
    field = fitting.enter(problem, resolved, fitting.Asked(names, leave_out=True))
    request = make_request(problem, field, resolved.config, Size(1, 2.0), TEXT)
    folder, _ = find_or_make(request, problem.splits, TEXT)
    for method in request.arms:
        Arm(folder, method, lambda line: None).run()
    found = conclude(folder, request, field.left_out, {})
    write_comparison(folder, found.record)
    return found


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Every method, and one of peft's, on a Llama."""
    folder = tmp_path_factory.mktemp("causal")
    base = tiny_text.save_language_model(folder / "base", "llama")
    data = DatasetDict(
        train=tiny_text.prompts(16),
        validation=tiny_text.prompts(6, seed=1),
        test=tiny_text.prompts(6, seed=2),
    )
    return compared(base, data, [*methods, "peft:vera"], folder / "runs")


def test_every_method_that_fits_a_causal_model_is_compared(causal: Comparison) -> None:
    assert set(causal.content["left_out"]) == {"bitfit", "head"}
    assert "has none" in causal.content["left_out"]["bitfit"]
    assert "no head of its own" in causal.content["left_out"]["head"]
    assert set(causal.rows) == {*methods, "peft:vera"} - {"bitfit", "head"}
    assert causal.rows["peft:vera"]["family"] == "reparametrization"
    parameters = sum(p.numel() for p in tiny.language_model("llama").parameters())
    assert causal.rows["full"]["trainable_parameters"] == parameters  # its head is not new


def test_perplexity_is_better_where_it_is_lower(causal: Comparison) -> None:
    content = causal.content
    assert content["metric"] == "perplexity"
    assert content["greater_is_better"] is False
    values = {name: row["metric"]["value"] for name, row in causal.rows.items()}
    assert content["margin"] == pytest.approx(0.01 * min(values.values()))
    for row in causal.rows.values():
        assert row["metric"]["low"] < row["metric"]["value"] < row["metric"]["high"]
        assert math.log(row["metric"]["value"]) == pytest.approx(row["loss"]["value"], rel=1e-4)
        if row["verdict"] == "better":
            assert row["difference"]["high"] < 0
        if row["verdict"] == "worse":
            assert row["difference"]["low"] > 0
    ranked = {name: values[name] for name, row in causal.rows.items() if row["learned"]}
    best = min(ranked, key=lambda name: ranked[name], default=None)
    assert content["recommendation"]["best"] == best
    for names in content["fronts"].values():
        assert names[-1:] == ([] if best is None else [best])  # the dearest that is worth it
    assert "Perplexity (lower is better)." in remarks(causal.record)
    assert "perplexity (lower is better)" in (causal.path / "compare.html").read_text()


def test_of_written_text_a_method_is_held_against_the_base_model_as_it_is(
    causal: Comparison,
) -> None:
    base, unigrams = yardsticks.read(causal.path / "arms" / "full")[::-1]
    assert base.way == yardsticks.UNTUNED
    assert unigrams.way == "guessing each token by how frequent it is"
    for name, row in causal.rows.items():
        assert row["yardstick"] in (base.way, unigrams.way)
        assert row["learned"] == (row["beside_constant"]["high"] < 0)
        for ours, theirs in zip(
            (unigrams, base), yardsticks.read(arm_folder(causal.path, name)), strict=True
        ):  # the same examples and the same base
            np.testing.assert_allclose(ours.kept, theirs.kept, rtol=1e-4)


def test_a_causal_model_is_asked_what_it_forgot_of_its_language(causal: Comparison) -> None:
    for name, row in causal.rows.items():
        assert row["forgetting_kind"] == "language"
        assert set(row["forgetting_details"]) == {"forgetting", "kl", "loss_change"}
        assert row["forgetting"] > 0
        if methods[name].starts_at_base:
            # With nothing of the update the model is its base, head and all.
            assert row["path"][0]["forgetting"] == pytest.approx(0, abs=1e-6)
        assert row["path"][-1]["forgetting"] == pytest.approx(row["forgetting"], rel=1e-3)


def test_an_encoder_with_a_masked_head_is_asked_through_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = hf.BertForMaskedLM(tiny.CONFIGS["bert"](pad_token_id=0))
    model.save_pretrained(tmp_path / "base")
    tiny_text.bert_tokenizer(tmp_path / "base").save_pretrained(tmp_path / "base")
    names = ["full", "head", "lora", "prompt"]
    found = compared(tmp_path / "base", tiny_text.splits(16), names, tmp_path / "runs")
    assert set(found.rows) == set(names)
    for row in found.rows.values():
        assert row["forgetting_kind"] == "language"
    assert found.rows["head"]["forgetting"] == pytest.approx(0, abs=1e-6)
    assert found.rows["full"]["forgetting"] > 0

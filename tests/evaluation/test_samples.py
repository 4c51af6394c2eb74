from __future__ import annotations

from typing import Any

import pytest

import lorafit
from lorafit.console.result import show_evaluation
from lorafit.evaluation.samples import choose_questions, compare_answers
from lorafit.tasks.parts.generative import Prompt
from tests import tiny_text


def prompt(number: int, reference: str | None) -> Prompt:
    return Prompt(f"question {number}", [number], reference)


def test_a_prompt_with_several_answers_is_asked_once():
    found = choose_questions([prompt(n // 3, f"answer {n}") for n in range(12)], 10)
    assert [question.prompt.text for question in found] == [f"question {n}" for n in range(4)]
    assert found[1].references == ("answer 3", "answer 4", "answer 5")


def test_questions_are_spread_over_the_data():
    found = choose_questions([prompt(n, "a") for n in range(101)], 5)
    assert [question.prompt.input_ids[0] for question in found] == [0, 25, 50, 75, 100]


def test_plain_text_has_samples_but_no_metrics():
    questions = choose_questions([prompt(n, None) for n in range(3)], 8)
    found = compare_answers(questions, ["a"] * 3, ["b"] * 3, 0.95, 0)
    assert (found.base, found.tuned, found.paired) == ({}, {}, {})
    assert found.samples[0] == {
        **{"prompt": "question 0", "reference": None},
        **{"base": "a", "tuned": "b"},
    }


def test_what_base_and_tuned_model_write_stands_in_the_run(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_text.save_language_model(tmp_path / "base", "llama")
    data = {
        name: tiny_text.prompts(count, seed)
        for seed, (name, count) in enumerate({"train": 48, "validation": 6, "test": 9}.items())
    }
    settings: dict[str, Any] = {"num_train_epochs": 12, "learning_rate": 1e-2, "batch_size": 8}
    settings |= {"max_new_tokens": 12, "examples": 4, "progress": False, "bf16": False}
    run = lorafit.train(base, data, **settings | {"run.dir": str(tmp_path / "runs")})
    found = run.eval["generation"]
    assert (found["n"], found["num_beams"], found["max_new_tokens"]) == (4, 1, 12)
    assert found["metrics"] == ["exact_match", "rouge_l", "bleu"]
    for name in found["metrics"]:
        assert set(run.eval["paired"][name]) == {"difference", "low", "high", "n", "level"}
        assert run.evaluation.paired[name].n == 4  # the prompts, not the examples
    assert run.eval["paired"]["rouge_l"]["low"] > 0
    sample = found["samples"][0]
    assert sample["prompt"] in data["test"]["prompt"]
    assert sample["tuned"].endswith("with a plot")
    assert sample["tuned"] != sample["base"]
    again = lorafit.evaluate(run, data)
    assert again["generation"] == found
    assert again["tuned"] == run.eval["tuned"]
    show_evaluation(run.eval)
    shown = capsys.readouterr().out
    assert "answers to 4 prompts, greedy, at most 12 new tokens" in shown
    assert "with a plot" in shown
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "What the models write" in page
    assert "ROUGE-L" in page

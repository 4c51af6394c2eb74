"""The page of runs that `lorafit.train` left, one of each kind of task."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

import lorafit
from lorafit.console.result import show_result
from lorafit.evidence.headline import simple_sentence
from lorafit.evidence.rows import metric_rows
from lorafit.run.commands import predict_command
from lorafit.tasks import tasks
from tests import tiny_text
from tests.report.page import Page

QUICK: dict[str, Any] = {
    "batch_size": 8,
    "max_steps": 6,
    "bf16": False,
    "r": 2,
    "lora_alpha": 4,
    "learning_rate": 1e-2,
    "target_modules": "all-linear",
    "progress": False,
}


def pairs(count: int, seed: int) -> Dataset:
    rows = tiny_text.rows(count, seed)
    columns = {"premise": rows["text"], "hypothesis": ["a good film"] * count}
    return Dataset.from_dict(columns | {"label": rows["label"]})


def several(count: int, seed: int) -> Dataset:
    rows = tiny_text.rows(count, seed)
    labels = [["good", "film"] if name == "pos" else ["bad"] for name in rows["label"]]
    return Dataset.from_dict({"text": rows["text"], "labels": labels})


def numbers(count: int, seed: int) -> Dataset:
    rows = tiny_text.rows(count, seed)
    scores = [0.01 * i + (1.5 if name == "pos" else -0.5) for i, name in enumerate(rows["label"])]
    return Dataset.from_dict({"text": rows["text"], "score": scores})


def tags(count: int, seed: int) -> Dataset:
    words = [text.split() for text in tiny_text.rows(count, seed)["text"]]
    kinds = dict.fromkeys(tiny_text.GOOD, "B-PER") | dict.fromkeys(tiny_text.BAD, "B-LOC")
    named = [[kinds.get(word, "O") for word in row] for row in words]
    return Dataset.from_dict({"tokens": words, "ner_tags": named})


# Rows, settings, what the Data section says, texts to predict.
KINDS: dict[str, tuple[Callable[[int, int], Dataset], dict[str, Any], list[str], list[Any]]] = {
    "classes": (
        tiny_text.rows,
        {},
        [
            "task sequence_classification",
            "text column text",
            "label column label",
            "labels neg pos",
        ],
        ["a good film"],
    ),
    "pairs": (
        pairs,
        {"text": ["premise", "hypothesis"], "label": "label"},
        ["task sequence_classification", "text column premise hypothesis", "labels neg pos"],
        [("a good film", "a bad plot")],
    ),
    "several": (
        several,
        {},
        ["task multi_label_classification", "label column labels", "labels bad film good"],
        ["a good film"],
    ),
    "numbers": (numbers, {}, ["task regression", "label column score"], ["a good film"]),
    "tags": (
        tags,
        {},
        ["task token_classification", "text column tokens", "label column ner_tags"],
        ["a good film"],
    ),
    "text": (
        tiny_text.prompts,
        {"max_new_tokens": 4, "examples": 3},
        ["task causal_lm", "text column prompt", "label column completion"],
        ["the film is good"],
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, lorafit.Run]:
    kind: str = request.param
    make, settings, *_ = KINDS[kind]
    folder = tmp_path_factory.mktemp(kind)
    if kind == "text":
        base = tiny_text.save_language_model(folder / "base", "llama")
    else:
        base = tiny_text.save_base(folder / "base", "bert")
    sizes = {"train": 32, "validation": 8, "test": 12}
    data = DatasetDict({name: make(n, i) for i, (name, n) in enumerate(sizes.items())})
    run = lorafit.train(base, data, **QUICK | settings | {"run.dir": str(folder / "runs")})
    return kind, run


def page_of(run: lorafit.Run) -> Page:
    return Page((run.path / "report.html").read_text(encoding="utf-8"))


def test_the_data_section_has_task_columns_and_labels(trained: tuple[str, lorafit.Run]) -> None:
    kind, run = trained
    said = page_of(run).said
    for fact in KINDS[kind][2]:
        assert fact in said, fact
    task = json.loads((run.adapter / "lorafit.json").read_text())["task"]
    assert run.read_json("data.json")["task"] == task


def test_the_suggested_command_gives_as_many_texts_as_the_task_reads(
    trained: tuple[str, lorafit.Run],
) -> None:
    kind, run = trained
    [text] = KINDS[kind][3]
    command = predict_command(str(run.path), ["a", "b"] if isinstance(text, tuple) else ["a"])
    assert command in page_of(run).text
    assert (r"\t" in command) == (kind == "pairs")
    assert shlex.split(command)[:3] == ["lorafit", "predict", str(run.path)]
    assert len(lorafit.predict(run, [text])) == 1


def test_every_metric_is_on_page_terminal_and_card_as_its_task_describes_it(
    trained: tuple[str, lorafit.Run], capsys: pytest.CaptureFixture[str]
) -> None:
    kind, run = trained
    page, card = page_of(run), (run.adapter / "README.md").read_text(encoding="utf-8")
    assert page.unclosed == []
    assert "could not be read" not in page.said
    show_result(run)
    shown = capsys.readouterr().out
    rows = metric_rows(run.evaluation)
    facts = run.read_json("data.json")["task"]
    task = tasks[facts["name"]].from_dict(facts)
    assert {row.name for row in rows} >= set(task.infos)
    for row in rows:
        assert row.info.greater_is_better is not None
        assert row.tuned is not None
        assert row.info.heading in page.said
        assert " ".join(row.info.note.split()) in page.said
        assert repr(row.tuned.value) in [value for value, _ in page.numbers]
        assert re.search(rf"^{row.label} .*{re.escape(f'{row.tuned:.3f}')}", shown, re.MULTILINE)
        assert f"| {row.info.title}" in card
        assert f"{row.tuned:.3f}" in card
    assert task.metric == rows[0].name
    assert kind != "classes" or "Accuracy" in page.said


def test_what_always_the_same_answer_comes_to_stands_in_all_places(
    trained: tuple[str, lorafit.Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """The terminal's last lines, the report, the card, the notebook."""
    kind, run = trained
    simple, said = run.evaluation.baseline, simple_sentence(run.evaluation)
    assert simple is not None
    show_result(run)
    assert (simple.sentence or simple.by) in " ".join(capsys.readouterr().out.split())
    places = page_of(run).said, Page(run._repr_html_()).said
    card = (run.adapter / "README.md").read_text(encoding="utf-8")
    if kind in ("classes", "pairs"):
        assert all("Always answering" in place for place in (*places, card))
        return
    # A page has its own quotation marks and spaces.
    plain = str.maketrans({"“": '"', "”": '"', "\u202f": None, "\u00a0": " "})
    for place in places:
        assert " ".join(said.split()) in place.translate(plain).replace(" %", "%")
    assert said.partition("_")[0] in card  # where it may be escaped
    assert ("spans" in said or "span" in said) == (kind == "tags")
    assert ("token" in said) == (kind == "text")


def test_what_the_run_wrote_is_typed(trained: tuple[str, lorafit.Run]) -> None:
    _, run = trained
    assert run.eval["schema"] == run.read_json("choices.json")["schema"] == 1
    found = run.evaluation
    assert found.handoff is not None
    assert found.handoff.reloaded == run.eval["handoff"]["reloaded_max_abs_diff"]
    name = found.metric
    assert name is not None
    assert found.tuned[name].value == run.eval["tuned"][name]["value"]
    assert found.paired[name].value == run.eval["paired"][name]["difference"]
    assert run.choices["target_modules"].value == "all-linear"
    assert lorafit.Run.open(run.path).summary.tuned == found.tuned[name].value

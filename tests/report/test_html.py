from __future__ import annotations

import ast
import html
import itertools
import json
import math
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from lorafit.errors import RunError
from lorafit.report.folder import read_folder
from lorafit.report.html import render, write_report
from lorafit.run import RunWriter
from tests.report import folders
from tests.report.page import Page

STATES: list[Callable[[Path], Path]] = [
    folders.finished,
    folders.begun,
    folders.failed,
    folders.hostile,
]


def page_of(path: Path) -> Page:
    return Page(write_report(path).read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return folders.finished(tmp_path / "run")


# Self-contained --------------------------------------------------------------------------


@pytest.mark.parametrize("make", STATES)
def test_the_page_loads_nothing(make: Callable[[Path], Path], tmp_path: Path) -> None:
    page = page_of(make(tmp_path / "run"))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {
        "script", "link", "img", "image", "iframe", "object", "embed", "base", "form", "audio",
        "video", "source", "use", "foreignobject",
    }  # fmt: skip
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "xlink:href", "style", "action"), (tag, name)
            assert not name.startswith("on"), (tag, name)
            if name == "href":
                assert str(value).startswith("#"), value
    assert "url(" not in page.styles
    assert "@import" not in page.styles
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


@pytest.mark.parametrize("make", STATES)
def test_the_page_is_well_formed_and_accessible(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    page = page_of(make(tmp_path / "run"))
    assert page.unclosed == []
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        if "href" in attributes:
            assert str(attributes["href"])[1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels)), levels
    for attributes in page.all("svg"):
        assert attributes.get("aria-label") or "viewbox" in attributes  # nested: part of a chart
    assert page.all("html")[0]["lang"] == "en"
    assert any(m.get("name") == "viewport" for m in page.all("meta"))


def test_data_cannot_add_elements_or_attributes(tmp_path: Path) -> None:
    harmless, hostile = (
        page_of(make(tmp_path / make.__name__)) for make in (folders.finished, folders.hostile)
    )
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in harmless.elements} | {
        "aside", "details", "summary", "span",
    }  # fmt: skip
    known = {name for _, attributes in harmless.elements for name in attributes}
    assert {name for _, attributes in hostile.elements for name in attributes} <= known
    text = (tmp_path / "hostile" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text


def test_hostile_text_is_shown_as_it_is_everywhere(tmp_path: Path) -> None:
    page = page_of(folders.hostile(tmp_path / "run"))
    # model, message, headline, choice name, value, reason, evidence, command, cpu, ...
    assert page.said.count(" ".join(folders.EVIL.split())) > 20


def test_two_reports_of_one_run_are_the_same(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_the_page_is_written_into_the_folder_and_nothing_else(run: Path) -> None:
    before = set(run.rglob("*"))
    assert write_report(run) == run / "report.html"
    assert set(run.rglob("*")) - before == {run / "report.html"}


# Numbers ---------------------------------------------------------------------------------


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def everything_in(run: Path) -> list[Any]:
    found: list[Any] = [run.name]
    for file in run.rglob("*.json"):
        found += leaves(json.loads(file.read_text(encoding="utf-8")))
    for file in run.rglob("*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            found += leaves(json.loads(line))
    found += leaves(parquet.read_table(run / "predictions.parquet").to_pydict())
    found += leaves(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")))
    return found


def test_every_number_shown_comes_from_the_files(run: Path) -> None:
    page = page_of(run)
    found = everything_in(run)
    numbers = {float(x) for x in found if isinstance(x, int | float)}
    per_target = 6 * 2 * 8 * 384  # layers, A and B, r, width
    head = 2 * 384 + 2
    derived = {
        74_498 / 22_787_714,
        float(per_target),
        float(head),
        float(2 * per_target + head),
        6.0,  # layers of a kind
        float((run / "adapter" / "adapter_model.safetensors").stat().st_size),
        3.0,  # packages with a version, and mistakes
        *(420 / 533, 113 / 533, 97 / 533, 436 / 533),  # shares of the confusion matrix
        0.5,  # of the most frequent class
        *(1.0, 2.0),  # gained and lost
        5.0,  # predictions
    }
    assert len(page.numbers) > 150
    for value, text in page.numbers:
        assert float(value) in numbers | derived, (value, text)
        digits = text.replace("\u2212", "-").replace(",", "").replace("\u202f", " ")
        assert re.match(r"[+-]?[0-9.]+", digits), text
    # What is no <data> must be a text of the files: a command, a version, a path, a date.
    texts = [str(x) for x in found] + ["2026-03-14 09:26"]
    words = {word for text in texts for word in re.findall(r"\S*\d\S*", text)}
    for loose in page.loose:
        for word in re.findall(r"\S*\d\S*", loose):
            allowed = {"F1", "F1,", "1", "100"}  # F1 is a name; "1 is perfect"; "of 100 such"
            assert word in words | allowed, loose


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("eval.json", ["tuned", "accuracy", "value"]),
        ("eval.json", ["paired", "accuracy", "low"]),
        ("eval.json", ["handoff", "merged_max_abs_diff"]),
        ("eval.json", ["n"]),
        ("choices.json", ["cost", "runs"]),
        ("environment.json", ["data", "train", "rows"]),
        ("data.json", ["splits", "train", "tokens"]),
        ("eval.json", ["training", "trainable_parameters"]),
        ("adapter/lorafit.json", ["max_length"]),
        ("environment.json", ["memory_bytes"]),
    ],
)
def test_a_number_that_changes_in_a_file_changes_on_the_page(
    run: Path, file: str, keys: list[str]
) -> None:
    content = json.loads((run / file).read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = new = inner[keys[-1]] * 0.93
    folders.write_json(run / file, content)
    assert repr(new) in [value for value, _ in page_of(run).numbers]


def test_numbers_carry_their_units(run: Path) -> None:
    said = page_of(run).said
    for expected in (
        "80.3 %",
        "77.9 % to 82.7 %",
        "+29.1 points",
        "0.436",
        "4 min 8 s",
        "6,095 tokens/s",
        "871.9 MiB",
        "15.6 GiB",
        "0.33 %",
        "321 TFLOP",
        "1.9e-06",
        "12345",  # a seed is a name
    ):
        assert expected in said, expected


def test_the_curves_mark_the_step_with_the_lowest_validation_loss(run: Path) -> None:
    evals = [line for line in folders.metrics() if "eval_loss" in line]
    best = min(evals, key=lambda line: line["eval_loss"])
    said = page_of(run).said
    assert f"best: step {best['step']}" in said
    assert f"step {best['step']}: training {best['train_loss']:.3f}" in said


# Sentences -------------------------------------------------------------------------------


def verdict(run: Path, **accuracy: float) -> str:
    content = json.loads(json.dumps(folders.EVALUATION))
    content["paired"]["accuracy"] = accuracy
    folders.write_json(run / "eval.json", content)
    return page_of(run).said


def test_a_clear_gain_is_called_better(run: Path) -> None:
    said = verdict(run, difference=0.29, low=0.25, high=0.33)
    assert "Better than the base model" in said
    assert "the tuned model is right 80.3 % of the time" in said
    assert "more than luck" in said


def test_a_clear_loss_is_called_worse(run: Path) -> None:
    said = verdict(run, difference=-0.03, low=-0.05, high=-0.01)
    assert "Worse than the base model" in said
    assert "has made the model worse" in said


def test_a_difference_that_may_be_chance_is_called_unclear(run: Path) -> None:
    said = verdict(run, difference=0.004, low=-0.01, high=0.018)
    assert "No clear difference" in said
    assert "may be chance" in said
    assert "Better than" not in said


def test_a_lower_loss_is_better(run: Path) -> None:
    content = folders.EVALUATION | {"metric": "nll"}
    folders.write_json(run / "eval.json", content)
    said = page_of(run).said
    assert "Better than the base model" in said
    assert "lower is better" in said


def test_an_unfinished_run_shows_the_median_speed(tmp_path: Path) -> None:
    speeds = [line["tokens_per_s"] for line in folders.metrics(upto=310)]
    page = page_of(folders.begun(tmp_path / "run"))
    assert repr(statistics.median(speeds)) in [value for value, _ in page.numbers]
    assert "is the median over the run" in page.said


def test_the_code_of_the_model_card_is_shown_with_the_folder_filled_in(run: Path) -> None:
    code = 'from peft import PeftModel\n\nadapter = "path/to/this/folder"'
    card = f"# Card\n\n```python\n{code}\n```\n\n```bash\nrm x\n```\n"
    (run / "adapter" / "README.md").write_text(card, encoding="utf-8")
    text = page_of(run).text
    assert f'adapter = "{run / "adapter"}"' in text
    assert "In Python, with PEFT" in text
    assert "rm x" not in text
    assert "path/to/this/folder" not in text


def test_a_hand_off_that_differs_is_not_called_the_same(run: Path) -> None:
    content = folders.EVALUATION | {"handoff": {"merged_max_abs_diff": 0.25}}
    folders.write_json(run / "eval.json", content)
    said = page_of(run).said
    assert "not the same" in said
    assert "up to rounding" not in said


def test_settings_show_their_origin(run: Path) -> None:
    said = page_of(run).said
    assert "train.learning_rate 0.002 measured" in said
    assert "seed 12345 flag" in said
    assert "validation_fraction 0.1 default" in said
    assert "load_best_model_at_end true default" in said


def test_choices_show_reason_and_evidence(run: Path) -> None:
    said = page_of(run).said
    assert "smallest r whose validation loss is within one standard error of r = 32" in said
    assert "0.0098" in said


def test_the_best_trial_is_marked(run: Path) -> None:
    said = page_of(run).said
    assert re.search(r"2 8 0\.002 0\.4398 34 s ◀ lowest validation loss", said)


@pytest.mark.parametrize("make", [folders.finished, folders.hostile])
def test_the_python_to_load_the_adapter_is_valid(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    text = write_report(make(tmp_path / "it's a run")).read_text(encoding="utf-8")
    blocks = re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", text, re.DOTALL)
    python = [html.unescape(block) for block in blocks if "import " in block]
    assert len(python) == 2
    for code in python:
        tree = ast.parse(code)
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
        assert any(str(tmp_path / "it's a run") in str(text) for text in texts)


# States and damage -----------------------------------------------------------------------


def test_a_finished_run_has_no_banner(run: Path) -> None:
    assert page_of(run).all("aside") == []


def test_a_failed_run_says_why_and_shows_what_there_is(tmp_path: Path) -> None:
    said = page_of(folders.failed(tmp_path / "run")).said
    assert "This run failed" in said
    assert "the loss of step 124 is nan" in said
    assert "lorafit train --resume" in said
    assert "best: step 70" in said
    assert "could not be read" not in said  # the torn last line is no news


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    said = page_of(folders.begun(tmp_path / "run")).said
    assert "This run was interrupted" in said
    assert "Better than" not in said
    assert "Use the adapter" not in said


def test_a_run_in_training_is_not_called_interrupted(tmp_path: Path) -> None:
    path = folders.begun(tmp_path / "run")
    with RunWriter(path).lock():
        assert "This run is still training" in page_of(path).said


def test_an_empty_folder_makes_a_page(tmp_path: Path) -> None:
    assert "This run is not finished" in page_of(tmp_path).said


def test_what_was_said_of_the_data_is_on_the_page_warnings_first(run: Path) -> None:
    said = page_of(run).said
    [warning], [fact] = folders.DATA["warnings"], folders.DATA["facts"]
    assert said.index(f"Warning: {warning}") < said.index(fact)
    for title in ("tokens", "longest", "unknown tokens", "examples of each label"):
        assert title in said
    for title in ("cut off", "nothing learned"):  # zero in every split: they say nothing
        assert title not in said


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        write_report(tmp_path / "none")


FILES = [
    "config.yaml", "status.json", "choices.json", "environment.json", "data.json", "eval.json",
    "metrics.jsonl", "trials.jsonl", "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_leaves_the_rest(run: Path, file: str) -> None:
    (run / file).unlink()
    page = page_of(run)
    assert page.unclosed == []
    assert "could not be read" not in page.said
    if file != "eval.json":
        assert "Better than the base model" in page.said


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", [b'{"half": ', b"\xff\xfe\x00", b"[1, 2]\n"])
def test_a_damaged_file_is_named_and_leaves_the_rest(run: Path, file: str, content: bytes) -> None:
    (run / file).write_bytes(content)
    page = page_of(run)
    assert page.unclosed == []
    torn = file.endswith(".jsonl") and content == b'{"half": '
    odd_yaml = file == "config.yaml" and content.startswith(b"[")
    if not torn and not odd_yaml:
        assert file in page.said
    if file != "eval.json":
        assert "Better than the base model" in page.said


def mutations(value: Any) -> Iterator[Any]:
    """The value with each of its parts replaced by each of some unfitting ones."""
    yield from (None, [], {}, "x", -1, True, [1, {"a": [None]}], math.inf)
    if isinstance(value, dict):
        for key, inner in value.items():
            for changed in mutations(inner):
                yield value | {key: changed}
            yield {k: v for k, v in value.items() if k != key}
    elif isinstance(value, list):
        for changed in mutations(value[0]) if value else ():
            yield [changed, *value[1:]]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("eval.json", {
            "metric": "accuracy", "n": 9, "split": "test", "confidence": 0.9,
            "schema": 1, "metrics": {"accuracy": {"title": "accuracy", "form": "share", "low": 0}},
            "base": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}},
            "tuned": {"accuracy": {"value": 0.8, "low": 0.7, "high": 0.9}},
            "paired": {"accuracy": {"difference": 0.3, "low": 0.2, "high": 0.4}},
            "handoff": {"merged_max_abs_diff": 0.1, "n": 4},
            "tables": [{"title": "t", "columns": ["a", "b"], "rows": [["x", 1]]}],
            "generation": {"n": 2, "num_beams": 1, "max_new_tokens": 4, "metrics": ["bleu"],
                           "samples": [{"prompt": "p", "reference": None, "base": "b",
                                        "tuned": "t"}]},
            "training": {"trainable_parameters": 1, "total_parameters": 2, "time_s": 3.0},
        }),
        ("choices.json", {"r": {"value": 4, "reason": "y", "evidence": {"c": [{"r": 1}]}},
                          "cost": {"runs": 1.4}}),
        ("environment.json", {"command": "x", "versions": {"torch": "2"},
                              "data": {"train": {"rows": 1}}, "threads": {"torch": 2}}),
        ("data.json", {"warnings": ["w"], "facts": ["f"],
                       "splits": {"train": {"tokens": 3, "labels": {"a": 1}}}}),
        ("adapter/lorafit.json", {"task": {"name": "t", "label_names": ["a", "b"]}}),
        ("adapter/adapter_config.json", {"r": 8, "task_type": "SEQ_CLS", "target_modules": ["q"],
                                         "base_model_name_or_path": "b"}),
        ("status.json", {"status": "done", "message": "m", "created_at": "2026-01-01"}),
        ("metrics.jsonl", {"step": 1, "train_loss": 0.5, "eval_loss": 0.4, "tokens_per_s": 9.0}),
        ("trials.jsonl", {"settings": {"r": 1}, "eval_loss": 0.4}),
    ],
)  # fmt: skip
def test_files_of_another_shape_do_not_break_the_page(
    tmp_path: Path, file: str, content: Any
) -> None:
    for changed in mutations(content):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(json.dumps(changed) + "\n")
        assert Page(render(read_folder(tmp_path))).unclosed == [], changed


def test_a_long_run_makes_a_page_of_ordinary_size(tmp_path: Path) -> None:
    path = folders.begun(tmp_path / "run")
    folders.write_lines(path / "metrics.jsonl", folders.metrics(steps=200_000))
    began = time.perf_counter()
    page = write_report(path)
    assert time.perf_counter() - began < 20
    assert page.stat().st_size < 500_000


def test_tables_beside_the_metrics_keep_the_names_of_the_classes(tmp_path: Path) -> None:
    page = render(read_folder(folders.finished(tmp_path / "run")))
    assert '<h2 id="h-classes">Each label</h2>' in page
    assert "<td>fresh</td>" in page

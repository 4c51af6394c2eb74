"""Python callers are never told to type a flag: not by an error, a warning, or a line."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import lorafit
from lorafit.cli import app
from lorafit.comparison.outcome import Comparison
from lorafit.errors import LorafitError
from lorafit.evidence.comparison import ComparisonRecord
from lorafit.settings.spoken import is_typed, speaking, typed
from tests.cli.bad_input import TABLE, Bad, make_files
from tests.report import folders
from tests.report.comparisons import comparison

FLAG = re.compile(r"(^|[\s(`'\"])--[a-z]")

SWITCHES = {"--skip-bad-rows", "--clean-labels", "--dedupe", "--bf16", "--load-in-4bit"}
SAID_OF_FLAGS = {"--set", "--config", "--data", "--resume", "--weight-decay"}
"""Of these the table asks what only the command line can get wrong."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, data, and two runs that were stopped before they had an adapter."""
    path = tmp_path_factory.mktemp("words")
    make_files(path)
    for name in ("first", "stopped"):
        folders.begun(path / "runs" / name)
    for name, content in ODD.items():
        (path / name).write_text(content, encoding="utf-8")
    return path


def many(rows: list[tuple[object, object]], header: str = "text,label") -> str:
    return "\n".join([header, *(f'"{text}","{label}"' for text, label in rows)]) + "\n"


PLAIN: list[tuple[object, object]] = [
    (f"a film of kind {n}", "pos" if n % 2 else "neg") for n in range(60)
]
ODD = {
    "twice.csv": many(PLAIN + PLAIN[:20]),
    "contrary.csv": many(PLAIN + [(text, "pos") for text, _ in PLAIN[:20]]),
    "spelled.csv": many([(f"a film {n}", ("pos", "Pos ", "neg")[n % 3]) for n in range(60)]),
    "several.csv": many([(f"a film {n}", ("a", "b", "a;b")[n % 3]) for n in range(60)]),
    "rare.csv": many([(f"a film {n}", n if n < 40 else "x") for n in range(60)], "text,kind"),
    "gaps2.csv": many([*PLAIN, ("", "pos"), ("a film without a label", "")]),
    "short2.csv": many(PLAIN) + "alone\n",
    "uneven.csv": many([(f"a film {n}", "pos" if n else "neg") for n in range(120)]),
    "long.csv": many([(f"{'a film ' * 40}{n}", "pos" if n % 2 else "neg") for n in range(60)]),
    "tags2.jsonl": "".join(
        json.dumps({"tokens": ["a", "film"], "ner_tags": ["O", "B-X"], "pos_tags": ["D", "N"]})
        + "\n"
        for _ in range(30)
    ),
    "numbered.jsonl": "".join(
        json.dumps({"tokens": ["a", "film"], "ner_tags": [0, 1]}) + "\n" for _ in range(30)
    ),
    "far.csv": many([(f"a film {n}", 1000.5 + n) for n in range(60)], "text,score"),
}
"""Data that can be trained on, and that something is said of."""

ODD_CALLS: list[dict[str, Any]] = [
    *({"data": name} for name in ODD if name != "short2.csv"),
    {"data": "short2.csv", "skip_bad_rows": True},
    {"data": "gaps2.csv", "clean_labels": True, "dedupe": True},
    {"data": "reviews.csv", "max_length": 4},
    {"data": "reviews.csv", "batch_size": 64},
    {"data": "reviews.csv", "method": "ia3", "max_train_samples": 12},
    {"model": "lm", "data": "prompts.jsonl"},
    {"model": "lm", "data": "prompts.jsonl", "max_length": 8},
    {"model": "lm", "data": "text.csv"},
]


def as_call(bad: Bad) -> tuple[str, list[str], dict[str, Any]] | None:
    """A row of the table as a call: its name, positions and keywords; ``None``: it is none."""
    name, *rest = bad.args
    if name not in ("train", "plan", "preview", "compare") or SAID_OF_FLAGS & set(rest):
        return None
    positions: list[str] = []
    keywords: dict[str, Any] = {}
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            positions.append(word)
        elif word in SWITCHES or not rest:
            keywords[word[2:].replace("-", "_")] = True
        else:
            key, value = word[2:].replace("-", "_"), yaml.safe_load(rest.pop(0) or "''")
            keywords[key] = [keywords[key], value] if key in keywords else value
    return (name, positions, keywords) if len(positions) <= 2 else None


CALLS = [(bad, call) for bad in TABLE if (call := as_call(bad)) is not None]


@contextlib.contextmanager
def spoken(caplog: pytest.LogCaptureFixture) -> Any:
    """Collects all that a caller hears inside, and looks for flags in it."""
    heard: list[str] = []
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="lorafit"):
        try:
            yield heard
        except LorafitError as error:
            heard.append(str(error))
    heard += [record.getMessage() for record in caplog.records]
    flags = [sentence for sentence in heard if FLAG.search(sentence)]
    assert not flags


def test_most_rows_of_the_table_are_calls() -> None:
    assert len(CALLS) > 70


@pytest.mark.parametrize(("bad", "call"), CALLS, ids=lambda value: getattr(value, "typed", ""))
def test_bad_input_is_answered_in_keywords(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    bad: Bad,
    call: tuple[str, list[str], dict[str, Any]],
) -> None:
    monkeypatch.chdir(folder)
    name, positions, keywords = call
    with spoken(caplog) as heard:
        try:
            found = getattr(lorafit, name)(*positions, **keywords)
        except TypeError as error:  # what Python refuses by itself
            heard.append(str(error))
        else:
            assert name == "preview", f"{bad.typed} was not refused"
            assert found.truth is None or found.truth.problems
    assert heard or name == "preview"


@pytest.mark.parametrize("given", ODD_CALLS, ids=str)
def test_what_is_said_of_odd_data_has_keywords(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
) -> None:
    monkeypatch.chdir(folder)
    call = {"model": "model"} | given
    with spoken(caplog) as heard:
        found = lorafit.preview(call.pop("model"), call.pop("data"), **call)
        assert not FLAG.search(found._repr_html_())
    assert heard


def test_the_words_of_a_warning_are_those_of_python(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    lorafit.preview("model", "spelled.csv")
    assert "Join them with clean_labels=True." in caplog.text
    caplog.clear()
    result = CliRunner().invoke(app, ["preview", "model", "spelled.csv"])
    assert "Join them with --clean-labels." in result.stdout + result.stderr
    assert not is_typed()


CALLS_ON_RUNS: dict[str, Callable[[], Any]] = {
    "load none": lambda: lorafit.load("none"),
    "load stopped": lambda: lorafit.load("runs/stopped"),
    "load a folder": lambda: lorafit.load("model"),
    "evaluate none": lambda: lorafit.evaluate("none"),
    "evaluate stopped": lambda: lorafit.evaluate("runs/stopped"),
    "evaluate, out exists": lambda: lorafit.evaluate("runs/stopped", out="reviews.csv"),
    "predict stopped": lambda: lorafit.Run("runs/stopped").predict("a text"),
    "merge stopped": lambda: lorafit.merge("runs/stopped", "out"),
    "shrink stopped": lambda: lorafit.shrink("runs/stopped"),
    "the adapter of stopped": lambda: lorafit.Run("runs/stopped").adapter,
    "resume none": lambda: lorafit.train(resume="none"),
    "resume with settings": lambda: lorafit.train(resume="model", r=3),
}


@pytest.mark.parametrize("call", CALLS_ON_RUNS.values(), ids=CALLS_ON_RUNS.keys())
def test_calls_on_runs_that_are_none_speak_python(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[], Any],
) -> None:
    monkeypatch.chdir(folder)
    with spoken(caplog) as heard:
        call()
    assert heard


def test_the_adapter_of_a_stopped_run_says_how_to_go_on_in_both_languages(folder: Path) -> None:
    with pytest.raises(LorafitError, match=r"Finish it with: lorafit\.train\(resume=") as caught:
        _ = lorafit.Run(folder / "runs" / "stopped").adapter
    assert "lorafit train --resume" in caught.value.typed


def test_a_recommendation_of_more_steps_is_a_keyword_and_in_the_record_a_flag() -> None:
    said = "No method is ranked. Train longer: --num-train-epochs 10."
    content = comparison() | {
        "recommendation": {"method": None, "best": None, "sentence": said},
    }
    found = Comparison(Path("x"), ComparisonRecord.from_json(content))
    assert found.recommendation == "No method is ranked. Train longer: num_train_epochs=10."
    assert "num_train_epochs=10" in found._repr_html_()
    assert found.record.recommendation.sentence == said


def test_an_interrupted_call_says_how_to_go_on_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt("stopped. Go on with: lorafit train --resume runs/x")

    monkeypatch.setattr("lorafit.api.from_call", stop)
    with pytest.raises(KeyboardInterrupt, match=r'lorafit\.train\(resume="runs/x"\)'):
        lorafit.plan("model", "data")
    with typed(), pytest.raises(KeyboardInterrupt, match="--resume runs/x"):
        lorafit.plan("model", "data")


def test_only_lorafits_records_are_translated_and_only_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = logging.getLogRecordFactory()
    ours, others = logging.getLogger("lorafit.data"), logging.getLogger("lorafitter")

    def say(log: logging.Logger) -> str:
        log.warning("100%% of %d: choose with --task", 3)
        return caplog.records[-1].getMessage()

    with speaking():
        with speaking():  # a call inside a call
            assert say(ours) == "100% of 3: choose with task=..."
        assert say(ours) == "100% of 3: choose with task=..."
        assert say(others) == "100% of 3: choose with --task"
    assert say(ours) == "100% of 3: choose with --task"
    with speaking():  # a record that cannot be formatted is the handler's affair
        broken = logging.getLogRecordFactory()("lorafit.x", 20, "f", 1, "%d --task", ("a",), None)
    assert broken.msg == "%d --task"
    assert logging.getLogRecordFactory() is before


def test_calls_in_threads_leave_the_logging_as_it_was() -> None:
    before = logging.getLogRecordFactory()
    begun, ended = threading.Barrier(2), threading.Event()

    def first() -> None:
        with speaking():
            begun.wait()
            ended.wait()

    thread = threading.Thread(target=first)
    thread.start()
    with speaking():
        begun.wait()
    assert logging.getLogRecordFactory() is not before
    ended.set()
    thread.join()
    assert logging.getLogRecordFactory() is before

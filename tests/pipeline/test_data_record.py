"""What a run keeps of its data: `data.json`, sentence by sentence, and what the terminal showed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

import lorafit
from lorafit.settings.spoken import in_python
from tests import tiny_text

RECORDS = Path(__file__).with_name("data_records.json")
"""Of each case what the run kept, and what was said until the adapter stood on the model."""

QUICK: dict[str, Any] = {
    "batch_size": 4,
    "max_steps": 1,
    "bf16": False,
    "r": 2,
    "lora_alpha": 4,
    "learning_rate": 1e-2,
    "target_modules": "all-linear",
    "progress": False,
    "strategy": "none",
    "max_new_tokens": 2,
    "examples": 2,
}


def _csv(name: str, rows: list[tuple[str, str]], separator: str, header: str) -> str:
    lines = [separator.join(row) for row in rows]
    Path(name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return name


def _json_lines(name: str, rows: list[Any]) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def _reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    rows = tiny_text.rows(count, seed)
    return list(zip(rows["text"], rows["label"], strict=True))


def guessed() -> tuple[Any, dict[str, Any]]:
    """Semicolons under the name of commas; empty, long, repeated and contradicted texts."""
    rows = _reviews(36)
    doubtful = [("", "pos"), ("a film", ""), (rows[0][0], "pos"), ("[SEP] a film of it", "neg")]
    return _csv("reviews.csv", [*rows, *doubtful], ";", "review;verdict"), {"max_length": 7}


def folder() -> tuple[Any, dict[str, Any]]:
    """Files named after splits under other names, texts in two of them, a filter and limits."""
    Path("reviews").mkdir()
    train, dev = _reviews(40), [*_reviews(8, 1), *_reviews(3)]
    _csv("reviews/train.csv", train, ",", "text,label")
    _csv("reviews/dev.csv", dev, ",", "text,label")
    _csv("reviews/extra.csv", dev, ",", "text,label")
    settings = {
        "where": "text != 'a'",
        "max_train_samples": 20,
        "max_eval_samples": 6,
        "dedupe": True,
    }
    return "reviews", settings


def spelled() -> tuple[Any, dict[str, Any]]:
    """Labels in several spellings, which are joined, and one that is rare."""
    rows = [(text, label.upper() if n % 5 == 0 else label) for n, (text, label) in _numbered(40)]
    rows += [("the plot", "odd"), ("a movie", "neg ")]
    found = [{"text": text, "label": label} for text, label in rows]
    return found, {"clean_labels": True}


def imbalanced() -> tuple[Any, dict[str, Any]]:
    """Spellings that are kept apart; one class far rarer than the other."""
    rows = [text for text, _ in _reviews(72)]
    labels = ["many" if n % 24 else ("few" if n else "Few") for n in range(72)]
    splits = {"train": [{"text": t, "label": i} for t, i in zip(rows, labels, strict=True)]}
    held_out = [{"text": t, "label": i} for t, i in zip(rows, labels, strict=True)][:26]
    return splits | {"validation": held_out, "test": held_out[:25]}, {}


def skipped() -> tuple[Any, dict[str, Any]]:
    """JSON lines of which some are none."""
    rows: list[Any] = [{"text": text, "label": label} for text, label in _reviews(30)]
    return _json_lines("rows.jsonl", [*rows, "no json", "[1]"]), {"skip_bad_rows": True}


def tagged() -> tuple[Any, dict[str, Any]]:
    """A CoNLL file with a sentence that does not fit."""
    kinds = dict.fromkeys(tiny_text.GOOD, "B-PER") | dict.fromkeys(tiny_text.BAD, "B-LOC")
    blocks = [
        "\n".join(f"{word} {kinds.get(word, 'O')}" for word in text.split())
        for text, _ in _reviews(30)
    ]
    Path("tags.conll").write_text("\n\n".join([*blocks, "one two three"]) + "\n", encoding="utf-8")
    return "tags.conll", {"skip_bad_rows": True, "max_length": 7}


def chat() -> tuple[Any, dict[str, Any]]:
    """ShareGPT's words for roles, system prompts beside them, and one that cannot be learned."""
    chats: list[Any] = [
        {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": label}]}
        for text, label in _reviews(30)
    ]
    for row in chats:
        row["system"] = "a very good story"
    chats[3]["conversations"].insert(1, {"from": "tool", "value": "it is"})
    chats[4]["conversations"][0]["from"] = "nobody"
    chats[5]["conversations"][0]["value"] = "a <|endoftext|> film"
    chats[6]["conversations"][1]["value"] = " ".join(["film"] * 60)
    return chats, {"skip_bad_rows": True, "max_length": 30, "max_truncated": 0.2}


def pairs() -> tuple[Any, dict[str, Any]]:
    """Prompts and completions without a space between them; some are repeated, some too long."""
    rows = tiny_text.prompts(30)
    found = {"prompt": list(rows["prompt"]), "completion": list(rows["completion"])}
    found["completion"][2] = " ".join(["film"] * 60)
    return found, {"max_length": 20, "max_truncated": 0.2}


def several() -> tuple[Any, dict[str, Any]]:
    """Lists of labels, written as text."""
    rows = [
        (text, '"[""good"", ""film""]"' if label == "pos" else '"[""bad""]"')
        for text, label in _reviews(32)
    ]
    return _csv("several.csv", rows, ",", "text,labels"), {}


def numbers() -> tuple[Any, dict[str, Any]]:
    """Numbers far from 0, in splits of which one has no label."""
    rows = [{"text": t, "score": 100 + 0.5 * n} for n, (t, _) in _numbered(30)]
    return {"train": rows, "test": [{"text": "a film", "score": None}] * 3}, {}


def _numbered(count: int) -> list[tuple[int, tuple[str, str]]]:
    return list(enumerate(_reviews(count)))


CASES: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    make.__name__: make
    for make in (
        *(guessed, folder, spelled, imbalanced, skipped),
        *(tagged, chat, pairs, several, numbers),
    )
}


def recorded(make: Callable[[], tuple[Any, dict[str, Any]]], records: list[Any]) -> dict[str, Any]:
    """Trains in the present folder: what ``data.json`` has, and the lines that were said."""
    if make in (chat, pairs):
        base = tiny_text.save_language_model(Path("base"), "llama")
    else:
        base = tiny_text.save_base(Path("base"), "bert")
    if make is chat:
        turn = "{{ m['role'] }} : {{ m['content'] }} <|endoftext|>\n"
        template = "{% for m in messages %}" + turn + "{% endfor %}"
        (base / "chat_template.jinja").write_text(template, encoding="utf-8")
    data, settings = make()
    if isinstance(data, dict) and "train" in data:
        data = DatasetDict({name: Dataset.from_list(rows) for name, rows in data.items()})
    records.clear()
    run = lorafit.train(base, data, **QUICK | settings | {"run.dir": "runs"})
    lines = [r.getMessage() for r in records if r.name.split(".")[0] == "lorafit"]
    end = next(n for n, line in enumerate(lines) if line.startswith("adapter: "))
    kept = run.read_json("data.json")
    return {name: kept[name] for name in ("warnings", "facts", "task", "splits")} | {
        "said": lines[:end]
    }


@pytest.mark.parametrize("case", CASES)
def test_a_run_keeps_and_says_what_was_found_in_its_data(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "lorafit")
    expected = json.loads(RECORDS.read_text())[case]
    expected["said"] = [in_python(line) for line in expected["said"]]
    assert recorded(CASES[case], caplog.records) == expected

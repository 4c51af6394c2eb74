"""Text is never a control sequence: whatever is in data, names and files is shown, not obeyed."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import lorafit
from lorafit.console import show_comparison
from lorafit.console.visible import visible
from tests import tiny_text
from tests.faults.terminal import HIDDEN, Seen, run, terminal
from tests.report.comparisons import record

ATTACKS = (
    "\x1b[2J\x1b[H",  # clears the screen
    "\x1b]8;;http://evil.example/\x1b\\here\x1b]8;;\x1b\\",  # a link
    "\x1b]0;owned\x07",  # the window's title
    "\x1bPq\x1b\\",
    "\x9b31m",  # C1: the same without ESC
    "\x85",
    "\x08\x08\x08",
    "\x7f",
    "\u202egnp.exe\u202c",  # right to left
    "\u2066\u2069",
    "\u200f",
    "\u061c",
    "\u2028",
    "\x1b[31m",  # looks like one of ours
)
FLAGS = (
    *("--r", "2", "--set", "train.max_steps=2", "--batch-size", "8", "--max-length", "16"),
    *("--learning-rate", "1e-2", "--strategy", "none"),
)


def hostile(rng: random.Random, words: str) -> str:
    """A text with attacks between its words, and one at each end."""
    found = [rng.choice(ATTACKS)]
    for word in words.split():
        found += [word, rng.choice(("", " ", rng.choice(ATTACKS)))]
    return "".join([*found, rng.choice(ATTACKS)])


def name(rng: random.Random, words: str) -> str:
    """The same for a file, which has neither slashes nor NULs in its name."""
    return hostile(rng, words).replace("/", "").replace("\x00", "")


class World:
    """A model, data and a run whose every name is hostile."""

    def __init__(self, folder: Path, seed: int) -> None:
        rng = random.Random(seed)
        self.model = folder / name(rng, "model")
        tiny_text.save_base(self.model)
        rows = tiny_text.rows(60)
        labels = {label: hostile(rng, label) for label in set(rows["label"])}
        self.text = hostile(rng, "text").strip()  # as names of columns are read
        table = pd.DataFrame(
            {
                self.text: [hostile(rng, text) for text in rows["text"]],
                "label": [labels[label] for label in rows["label"]],
                hostile(rng, "extra column"): "x",
            }
        )
        self.data = folder / name(rng, "data.csv")
        self.data = self.data.with_name(f"{self.data.name}.csv")
        table.to_csv(self.data, index=False)
        self.runs = folder / name(rng, "runs")
        self.run = self.runs / name(rng, "run")
        self.missing = folder / name(rng, "missing")
        self.texts = [hostile(rng, "a great film"), hostile(rng, "dull")]
        self.word = hostile(rng, "word")

    def columns(self) -> list[str]:
        return ["--text", self.text, "--label", "label"]


@pytest.fixture(scope="module", params=[0, 1], ids=["seed 0", "seed 1"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    found = World(tmp_path_factory.mktemp("hostile"), request.param)
    given = lorafit.train(
        str(found.model),
        str(found.data),
        text=found.text,
        label="label",
        r=2,
        max_steps=2,
        per_device_train_batch_size=8,
        max_length=16,
        learning_rate=1e-2,
        strategy="none",
        runs_dir=str(found.runs),
        progress=False,
    )
    given.path.rename(found.run)  # a folder from elsewhere: no rule of ours chose its name
    return found


def commands(world: World, folder: Path) -> dict[str, list[str]]:
    """Every command, where it succeeds and where it fails."""
    where, columns = [str(world.model), str(world.data)], world.columns()
    given, runs_dir = str(world.run), ["--runs-dir", str(world.runs)]
    texts = folder / "texts.txt"
    texts.write_text("\n".join(f"great {attack.strip()}" for attack in ATTACKS[:3]), "utf-8")
    return {
        "train": ["train", *where, *columns, *FLAGS, "--runs-dir", str(folder / "new")],
        "train, wrong column": ["train", *where, "--text", world.word, *FLAGS],
        "train, wrong setting": ["train", *where, "--set", f"train.{world.word}=1"],
        "train, wrong value": ["train", *where, "--set", f"train.max_steps={world.word}"],
        "train, wrong module": ["train", *where, *columns, *FLAGS, "--target-modules", world.word],
        "train, resume a missing one": ["train", "--resume", str(world.missing), *runs_dir],
        "train, no such data": ["train", str(world.model), str(world.missing)],
        "train, no such model": ["train", str(world.missing), str(world.data), *columns],
        "preview": ["preview", *where, *columns],
        "preview, a filter": ["preview", *where, *columns, "--where", f"{world.word} = 1"],
        "plan": ["plan", *where, *columns, "--all"],
        "evaluate": ["evaluate", given, str(world.data)],
        "evaluate, as JSON": ["evaluate", given, "--json"],
        "evaluate, missing": ["evaluate", str(world.missing)],
        "predict": ["predict", given, *world.texts],
        "predict, as JSON": ["predict", given, *world.texts, "--json"],
        "predict, a file": ["predict", given, "--file", str(texts)],
        "predict, to a file": [
            *("predict", given, "--file", str(world.data)),
            *("--out", str(folder / f"{world.word.replace('/', '')}.csv")),
        ],
        "predict, no such file": ["predict", given, "--file", str(world.missing)],
        "runs": ["runs", *runs_dir],
        "runs, as JSON": ["runs", *runs_dir, "--json"],
        "runs, no such folder": ["runs", "--runs-dir", str(world.missing)],
        "report": ["report", given],
        "report, missing": ["report", str(world.missing)],
        "merge": ["merge", given, str(folder / world.missing.name)],
        "merge, not empty": ["merge", given, str(world.runs)],
        "shrink": ["shrink", given, "--r", "1", "--out", str(folder / f"{world.run.name}s")],
        "shrink, missing": ["shrink", str(world.missing), "--r", "1"],
        "compare, no such method": ["compare", *where, *columns, "--methods", world.word],
        "open, missing": ["open", str(world.missing)],
        "doctor": ["doctor"],
        "help": ["help", world.word],
        "an unknown command": [world.word],
        "an unknown flag": ["train", f"--{world.word}"],
        "a wrong number": ["train", *where, "--r", world.word],
        "with a traceback": ["evaluate", str(world.missing), "--debug"],
    }


def assert_nothing_is_obeyed(seen: Seen) -> None:
    assert seen.data
    assert seen.obeyed == []


def test_no_command_sends_a_control_sequence_of_its_input_to_the_terminal(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = {}
    for title, arguments in commands(world, tmp_path).items():
        seen = run(monkeypatch, *arguments)
        if seen.obeyed or not seen.data or (seen.code == 0) != (title in WORKS):
            found[title] = [seen.code, *seen.obeyed[:3], seen.text[-600:]]
    assert found == {}


WORKS = {
    *("train", "preview", "plan", "evaluate", "evaluate, as JSON", "predict", "predict, as JSON"),
    *("predict, a file", "predict, to a file", "runs", "runs, as JSON", "report", "merge"),
    *("shrink", "doctor"),
}
"""What succeeds; the others are errors that quote what they got."""


def test_json_of_predictions_is_ascii_and_says_the_same(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = run(monkeypatch, "predict", str(world.run), *world.texts, "--json", "--quiet")
    lines = [line for line in seen.text.split("\r\n") if line.startswith("{")]
    assert all(line.isascii() and line.isprintable() for line in lines), seen.text
    assert [json.loads(line)["text"] for line in lines] == world.texts


def test_a_comparison_from_elsewhere_is_shown_and_not_obeyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(3)
    content = json.loads(json.dumps(record().to_json()))
    content["recommendation"]["sentence"] = hostile(rng, "take this one")
    with terminal(monkeypatch) as seen:
        show_comparison(content, Path(name(rng, "comparison")))
    assert_nothing_is_obeyed(seen)
    assert r"\x1b" in seen.text or r"\u202e" in seen.text


def test_a_damaged_run_is_listed_without_being_obeyed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(4)
    copy = tmp_path / "runs" / "foreign"
    shutil.copytree(world.run, copy)
    for file, key in (("status.json", "status"), ("eval.json", "metric")):
        content = json.loads((copy / file).read_text("utf-8"))
        content[key] = hostile(rng, "done")
        (copy / file).write_text(json.dumps(content), "utf-8")
    assert_nothing_is_obeyed(run(monkeypatch, "runs", "--runs-dir", str(tmp_path / "runs")))


def test_commands_write_through_the_one_place_that_makes_text_visible() -> None:
    folder = Path(lorafit.__file__).parent / "cli"
    writing = re.compile(r"typer\.echo|click\.echo|\bprint\(|sys\.std(out|err)\.write")
    found = {file.name for file in folder.rglob("*.py") if writing.search(file.read_text("utf-8"))}
    assert found == {"app.py"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_made_visible_is_the_text_in_other_letters(attack: str) -> None:
    shown = visible(f"a{attack}b")
    assert not HIDDEN.search(shown)
    assert shown.startswith("a\\")
    assert shown.endswith("b")
    assert visible(shown) == shown


@pytest.mark.parametrize("text", ["äöü", "中文", "👩‍👩‍👧", "a\tb\nc", "עברית", "e\u0301", "\u00a0"])
def test_texts_in_any_script_stay_as_they_are(text: str) -> None:
    assert visible(text) == text

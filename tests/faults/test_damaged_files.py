"""Files of a run that somebody has damaged or made: one clear error, and the list always comes."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import lorafit
from lorafit.cli import app
from lorafit.errors import LorafitError, RunError
from lorafit.run import config_file
from lorafit.run.listing import list_comparisons, list_runs
from lorafit.training import checkpoint
from tests import tiny_text

DIGITS = "9" * 5_000
CONTENTS = {
    "digits": f'{{"split": {DIGITS}}}',
    "nested lists": "[" * 5_000 + "]" * 5_000,
    "nested objects": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "list": "[]",
    "text": '"x"',
    "null": "null",
    "nothing": "",
    "bytes": "\udcff",
    "base a list": '{"base": [1], "tuned": {}, "metric": "accuracy"}',
    "metric an object": '{"metric": {"a": 1}, "base": {}, "tuned": {}}',
    "value a text": '{"metric": "accuracy", "tuned": {"accuracy": {"value": "x"}}}',
    "not a number": '{"metric": "accuracy", "tuned": {"accuracy": {"value": NaN}}}',
    "infinite": '{"metric": "accuracy", "tuned": {"accuracy": 1e999}}',
    "status an object": '{"status": {"a": 1}}',
    "status a list": '{"status": [1], "created_at": [2], "message": [3]}',
    "status a number": '{"status": 5, "created_at": 7}',
}
RUN_FILES = (
    *("eval.json", "status.json", "choices.json", "data.json", "environment.json"),
    *("metrics.jsonl", "trials.jsonl", "config.yaml", "adapter/adapter_config.json"),
)
FACTS = (
    *("summary", "trials", "metrics", "choices", "choosing_cost", "environment", "evaluation"),
    *("eval", "status", "message", "config", "origins", "predictions"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lorafit.Run:
    folder = tmp_path_factory.mktemp("damaged")
    tiny_text.save_base(folder / "model")
    return lorafit.train(
        str(folder / "model"),
        tiny_text.rows(40),
        r=2,
        max_steps=2,
        learning_rate=1e-2,
        strategy="none",
        max_length=16,
        runs_dir=str(folder / "runs"),
        progress=False,
    )


def command(*args: str) -> Result:
    """A command, which ends with its result or with an error of ours."""
    result = CliRunner().invoke(app, list(args))
    assert "--debug for the traceback" not in result.output, result.output
    assert result.exit_code in (0, 2), result.output
    return result


def copied(run: lorafit.Run, folder: Path) -> Path:
    target = folder / "runs" / "damaged"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(run.path, target)
    return target


def damage(file: Path, content: str) -> None:
    file.write_bytes(content.encode("utf-8", "surrogateescape"))


def assert_readable_or_refused(target: Path) -> None:
    """Everything about a run is its value or an error of ours; the list has it."""
    found = lorafit.Run(target)
    for fact in FACTS:
        with contextlib.suppress(LorafitError):
            getattr(found, fact)
    repr(found)
    assert [one.name for one in list_runs(target.parent)] == [target.name]


@pytest.mark.parametrize("file", RUN_FILES)
def test_a_damaged_file_is_a_clear_error_and_never_ends_the_list(
    run: lorafit.Run, file: str, tmp_path: Path
) -> None:
    for content in CONTENTS.values():
        target = copied(run, tmp_path)
        damage(target / file, content)
        assert_readable_or_refused(target)
    assert command("runs", "--runs-dir", str(target.parent)).exit_code == 0


@pytest.mark.parametrize("content", CONTENTS)
def test_commands_on_damaged_runs_end_with_a_clear_error(
    run: lorafit.Run, content: str, tmp_path: Path
) -> None:
    for file in RUN_FILES:
        target = copied(run, tmp_path)
        damage(target / file, CONTENTS[content])
        command("report", str(target))
        assert command("runs", "--runs-dir", str(target.parent)).exit_code == 0


@pytest.mark.parametrize("file", ["request.json", "compare.json"])
def test_a_damaged_comparison_never_ends_the_list(file: str, tmp_path: Path) -> None:
    target = tmp_path / "runs" / "comparison"
    target.mkdir(parents=True)
    for content in CONTENTS.values():
        (target / "request.json").write_text("{}", "utf-8")
        damage(target / file, content)
        assert [one.name for one in list_comparisons(target.parent)] == ["comparison"]
        command("runs", "--runs-dir", str(target.parent))
        command("report", str(target))


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A file with a piece of it changed, lost, doubled or replaced by what is hard to read."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 2, 8, 40)))
    new = rng.choice(
        (
            *(
                b"",
                data[at:end] * 2,
                bytes([rng.randrange(256)]),
                b"[",
                b"}",
                b'"',
                b"null",
                b"NaN",
            ),
            *(b"NaN", b"1e999", DIGITS.encode(), b"[" * 3_000, b"\xff", b"\x00", b"-1", b"{}"),
        )
    )
    return data[:at] + new + data[end:]


@pytest.mark.parametrize("file", RUN_FILES)
def test_mutants_of_a_runs_files_are_read_or_refused(
    run: lorafit.Run, file: str, tmp_path: Path
) -> None:
    rng = random.Random(file)
    target = copied(run, tmp_path)
    whole = (target / file).read_bytes() if (target / file).exists() else b'{"step": 1}\n'
    for _ in range(60):
        (target / file).write_bytes(mutated(rng, whole))
        assert_readable_or_refused(target)


def test_mutants_of_a_checkpoints_values_are_refused_or_the_same(
    run: lorafit.Run, tmp_path: Path
) -> None:
    rng = random.Random(0)
    step = checkpoint.latest_step(run.checkpoints)
    assert step is not None
    folder = tmp_path / "step"
    shutil.copytree(checkpoint.path_of(run.checkpoints, step), folder)
    whole = (folder / "state.json").read_bytes()
    first = checkpoint.read(folder)
    refused = 0
    for _ in range(300):
        (folder / "state.json").write_bytes(mutated(rng, whole))
        try:
            found = checkpoint.read(folder)
        except RunError:
            refused += 1
        else:
            assert (found.state, found.generators, found.expects, found.step) == (
                first.state,
                first.generators,
                first.expects,
                first.step,
            )
    assert refused > 250


def test_an_edited_generator_state_is_noticed(run: lorafit.Run, tmp_path: Path) -> None:
    folder = tmp_path / "step"
    step = checkpoint.latest_step(run.checkpoints)
    assert step is not None
    shutil.copytree(checkpoint.path_of(run.checkpoints, step), folder)
    values = json.loads((folder / "state.json").read_text("utf-8"))
    values["generators"][0]["python"][1][3] += 1
    (folder / "state.json").write_text(json.dumps(values), "utf-8")
    with pytest.raises(RunError, match="not what was written"):
        checkpoint.read(folder)
    del values["content_sha256"]  # as a version before this one wrote them
    (folder / "state.json").write_text(json.dumps(values), "utf-8")
    assert checkpoint.read(folder).step == step


def test_a_torn_last_line_of_the_trials_is_left_out(run: lorafit.Run, tmp_path: Path) -> None:
    target = copied(run, tmp_path)
    (target / "trials.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a"', "utf-8")
    assert lorafit.Run(target).trials == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("opener", ["[", "{a: ", "- ", "? "])
def test_a_deeply_nested_config_is_refused_and_does_not_end_the_process(opener: str) -> None:
    # libyaml calls itself for each level, and dies of a full stack past some tens of thousands.
    with pytest.raises(yaml.YAMLError):
        config_file.parse(opener * 200_000)


@pytest.mark.parametrize("value", [DIGITS, "[" * 5_000 + "]" * 5_000, "2020-99-99", "{" * 5_000])
def test_settings_that_cannot_be_read_are_refused_in_one_line(value: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"train:\n  max_steps: {value}\n", "utf-8")
    for args in (["--config", str(file)], ["--set", f"train.max_steps={value}"]):
        result = command("plan", "model", "data", *args)
        assert result.exit_code == 2
        assert "ConfigError" in result.output


@pytest.mark.parametrize("seed", [2**32, 2**64, -1])
def test_seeds_that_no_generator_takes_are_refused(seed: int) -> None:
    with pytest.raises(LorafitError, match="seed"):
        lorafit.preview("model", "data", seed=seed)


ODD: tuple[Any, ...] = (
    *(None, 1, b"x", float("nan"), "\ud83d", object(), 3 + 4j, type, {"a": 1}, {"text": [None]}),
    *([1], [None], [b"x"], [float("nan")], ["\ud83d"], [[]], [{}], [{"x": "a"}], [True]),
    *([{"text": None}], [{"text": "\ud83d"}], [["a", None]], [("a", "b")], ""),
)


@pytest.mark.parametrize("index", range(len(ODD)))
def test_what_is_not_a_text_is_refused_by_predict(run: lorafit.Run, index: int) -> None:
    with pytest.raises(LorafitError):
        lorafit.predict(_tuned(run), ODD[index])


_loaded: dict[Path, lorafit.Tuned] = {}


def _tuned(run: lorafit.Run) -> lorafit.Tuned:
    if run.path not in _loaded:
        _loaded[run.path] = lorafit.load(run)
    return _loaded[run.path]


def test_a_mix_of_texts_and_other_things_is_refused_or_answered_whole(run: lorafit.Run) -> None:
    rng = random.Random(1)
    pieces: list[Any] = ["good", "a dull film", "", " ", None, 1, b"x", "\ud83d", "\x00", ["a"], {}]
    for _ in range(200):
        texts = [rng.choice(pieces) for _ in range(rng.randrange(1, 4))]
        try:
            assert len(lorafit.predict(_tuned(run), texts)) == len(texts)
        except LorafitError:
            assert not all(isinstance(text, str) and text.strip() for text in texts) or (
                "\ud83d" in texts or "\x00" in texts
            )

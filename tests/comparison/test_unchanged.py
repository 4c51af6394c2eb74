"""A comparison goes on with what it began with, or says what is not that any more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
import transformers as hf
from benchmarks.soak import mutate

import lorafit
from lorafit.comparison import records
from lorafit.comparison.arm import Arm
from lorafit.comparison.outcome import conclude
from lorafit.comparison.request import Request, begun
from lorafit.errors import DataError, LorafitError, ModelError, RunError
from lorafit.run.listing import list_comparisons
from tests import tiny_text
from tests.faults.test_closing import CHANGES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, data, and a finished comparison of one method; tests copy all of it."""
    top = tmp_path_factory.mktemp("made")
    tiny_text.save_base(top / "base", "bert")
    write(top, 16)
    compare(top)
    return top


@pytest.fixture
def top(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "top")
    monkeypatch.chdir(tmp_path / "top")
    return tmp_path / "top"


def write(top: Path, rows: int, seed: int = 0) -> None:
    for split, one in tiny_text.splits(rows, seed).items():
        one.to_json(top / "data" / f"{split}.jsonl")


def compare(top: Path, **more: Any) -> Any:
    settings: dict[str, Any] = {"methods": "bitfit", "seeds": 1, "max_steps": 2, "bf16": False}
    settings |= {"batch_size": 8, "run.name": "it", "progress": False, **more}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        return lorafit.compare("./base", "./data", **settings)


def unfinished(top: Path) -> Path:
    folder = top / "runs" / "it"
    (folder / "compare.json").unlink()
    return folder


@pytest.mark.parametrize("said", CHANGES)
def test_a_comparison_does_not_go_on_with_another_base(top: Path, said: str) -> None:
    folder = unfinished(top)
    before = sorted(folder.rglob("*"))
    CHANGES[said](top / "base")
    with pytest.raises(ModelError, match=f"its {said}.*Bring the old files back to go on with it"):
        compare(top)
    assert sorted(folder.rglob("*")) == before
    # An arm looks again: the base may change while the others are trained.
    with pytest.raises(ModelError, match=f"its {said}"):
        Arm(folder, "bitfit", print).run()


def test_a_comparison_of_this_name_does_not_go_on_with_other_rows(top: Path) -> None:
    folder = unfinished(top)
    write(top, 16, seed=5)
    with pytest.raises(
        DataError, match=r"train, validation and test|train and validation.*other rows now"
    ) as raised:
        compare(top)
    assert "Bring the old rows back to go on with it, or choose another run name" in str(
        raised.value
    )
    assert not (folder / "compare.json").exists()


def test_without_a_name_other_rows_are_another_comparison_and_that_is_said(
    top: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, request = unfinished(top), Request.read(top / "runs" / "it")
    rows = {name: known | {"sha256": "0"} for name, known in request.data.items()}
    now = Request(**(vars(request) | {"data": rows, "steps": request.steps + 1}))
    assert begun(folder.parent, None, now) is None
    assert "is not finished, and its data changed since it began" in caplog.text
    caplog.clear()
    (folder / "compare.json").touch()
    assert begun(folder.parent, None, now) is None
    assert caplog.text == ""


def test_an_arm_does_not_train_on_rows_that_changed_in_the_folder(top: Path) -> None:
    folder = unfinished(top)
    rows = tiny_text.splits(16, 9)
    shutil.rmtree(folder / "data" / "train")
    rows["train"].save_to_disk(str(folder / "data" / "train"))
    with pytest.raises(DataError, match=r"train has other rows now\. Delete the folder"):
        Arm(folder, "bitfit", print).run()


def test_the_same_and_one_of_an_earlier_version_go_on(top: Path) -> None:
    folder = unfinished(top)
    assert compare(top).path == Path("runs/it")
    file = folder / "request.json"
    content = json.loads(file.read_text())
    assert content["identity"]["weights"]
    del content["identity"]  # an earlier version did not note it
    file.write_text(json.dumps(content))
    CHANGES["config is not what it was"](top / "base")
    assert compare(top).path == Path("runs/it")


def test_a_damaged_request_is_the_same_or_another_and_never_a_raw_error(top: Path) -> None:
    file = top / "runs" / "it" / "request.json"
    whole, good, passed = file.read_bytes(), Request.read(file.parent), 0
    for number in range(200):
        file.write_bytes(mutate.json_damaged(whole, Random(f"request:{number}")))
        try:
            found = begun(top / "runs", None, good)
        except LorafitError:  # it says that it began with other rows, or another base
            continue
        if found is None:
            passed += 1
        else:
            read = Request.read(found)
            assert (read.key, read.data, read.rates) == (good.key, good.data, good.rates)
    assert passed > 100
    assert len(list_comparisons(top / "runs")) == 1


def test_an_arm_says_that_its_request_is_damaged(top: Path) -> None:
    file = top / "runs" / "it" / "request.json"
    for content in (
        "[]",
        "{}",
        "null",
        '{"key": 1}',
        file.read_text().replace('"seeds": 1', '"seeds": "1"'),
    ):
        file.write_text(content)
        with pytest.raises(RunError, match=r"damaged: it is not what lorafit compare writes"):
            Arm(file.parent, "bitfit", print)


def concluded(folder: Path, good: Any) -> str | None:
    """The error of a conclusion; ``None``: it is the same as before."""
    try:
        found = conclude(folder, Request.read(folder), {}, {})
    except RunError as error:
        return str(error)
    assert found.content["arms"] == good
    return None


def test_what_an_arm_left_is_what_it_wrote_or_is_refused(top: Path) -> None:
    folder = unfinished(top)
    own = folder / "arms" / "bitfit"
    kept = sorted(file.name for file in own.iterdir() if file.suffix in (".json", ".npz"))
    assert kept == [
        *("seed-0.json", "seed-0.npz", "trials.json", "update.json", "update.npz"),
        *("yardsticks.json", "yardsticks.npz"),
    ]
    good = conclude(folder, Request.read(folder), {}, {}).content["arms"]
    for name in kept:
        file = own / name
        whole, refused = file.read_bytes(), 0
        change = mutate.json_damaged if name.endswith(".json") else mutate.damaged
        for number in range(20):
            file.write_bytes(change(whole, Random(f"{name}:{number}")))
            error = concluded(folder, good)
            refused += error is not None
            assert error is None or f'Delete the folder "{own}"' in error
        assert refused > 10, name
        file.write_bytes(whole)


def test_files_of_another_arm_are_not_this_ones(top: Path) -> None:
    folder = unfinished(top)
    shutil.copytree(folder / "arms" / "bitfit", folder / "arms" / "lora")
    with pytest.raises(RunError, match=r"seed-0\.json.*is damaged"):
        records.read(folder / "arms" / "lora" / "seed-0.json")


def test_a_search_does_not_go_on_from_other_trials(top: Path) -> None:
    folder = unfinished(top)
    own = folder / "arms" / "bitfit"
    (own / "seed-0.json").unlink()
    trials = (own / "trials.json").read_text()
    content = json.loads(trials)
    content["trials"][0]["validation_loss"] = 0.0  # the best, then
    (own / "trials.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"trials\.json.*the same command measures that method"):
        Arm(folder, "bitfit", print).run()
    assert not (own / "seed-0.json").exists()


def test_a_live_models_folder_that_changed_is_refused(tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "made", "bert")
    model = hf.AutoModelForSequenceClassification.from_pretrained(base)
    tokenizer = hf.AutoTokenizer.from_pretrained(base)
    given: dict[str, Any] = {"run.dir": str(tmp_path), "run.name": "it", "progress": False}
    given |= {"methods": "bitfit", "seeds": 1, "max_steps": 2, "bf16": False, "batch_size": 8}
    found = lorafit.compare(model, tiny_text.splits(16), tokenizer=tokenizer, **given)
    Arm(found.path, "bitfit", print).check_unchanged()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        file = found.path / "base" / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        with pytest.raises(ModelError, match="is not the model that this comparison began with"):
            Arm(found.path, "bitfit", print).check_unchanged()
        file.write_bytes(whole)

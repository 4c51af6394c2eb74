"""What a run keeps of its test split: the predictions of both models, whatever the task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

import lorafit
from lorafit.config import Config
from lorafit.data.answers import write_table
from lorafit.errors import DataError, RunError
from lorafit.evaluation.score import Scores
from lorafit.evidence.predictions import FILE, Predictions
from lorafit.pipeline.predictions import Said, table, text_hash
from lorafit.run import RunWriter
from lorafit.tasks.causal_lm import CausalLM
from lorafit.tasks.sequence_classification import SequenceClassification
from tests import tiny_text
from tests.report.test_real_runs import KINDS, QUICK

N = 12


@pytest.fixture(scope="module", params=KINDS)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, lorafit.Run, DatasetDict]:
    kind: str = request.param
    make, settings, *_ = KINDS[kind]
    folder = tmp_path_factory.mktemp(kind)
    save: Any = tiny_text.save_language_model if kind == "text" else tiny_text.save_base
    base = save(folder / "base", "llama" if kind == "text" else "bert")
    sizes = {"train": 16, "validation": 8, "test": N}
    data = DatasetDict({name: make(n, i) for i, (name, n) in enumerate(sizes.items())})
    options = QUICK | settings | {"max_steps": 2, "run.dir": str(folder / "runs")}
    return kind, lorafit.train(base, data, **options), data


def test_there_is_a_row_for_each_test_example(
    trained: tuple[str, lorafit.Run, DatasetDict],
) -> None:
    kind, run, data = trained
    found = run.predictions
    assert found.row.tolist() == list(range(N))
    assert found.source_row.isna().all()  # data in memory: nobody counted its rows
    columns = {
        "pairs": ["premise", "hypothesis"],
        "tags": ["tokens"],
        "text": ["prompt"],
    }.get(kind, ["text"])
    rows = list(zip(*(data["test"][name] for name in columns), strict=True))
    assert found.text_hash.tolist() == [text_hash(row) for row in rows]
    kept = [name for name in found if name.startswith("text") and name != "text_hash"]
    assert kept == (["text_1", "text_2"] if kind == "pairs" else ["text"])
    plain = [tuple(list(v) if kind == "tags" else v for v in row) for row in rows]
    shown = [
        tuple(list(v) if kind == "tags" else v for v in row)
        for row in found[kept].itertuples(index=False)
    ]
    assert shown == plain


def test_they_agree_with_the_metrics_and_with_predict(
    trained: tuple[str, lorafit.Run, DatasetDict],
) -> None:
    kind, run, data = trained
    found, measured = run.predictions, run.evaluation
    for name, side in (("base", measured.base), ("tuned", measured.tuned)):
        loss = found[f"{name}_loss"].mean()
        known = side.get("nll") or side["mse"]
        if kind not in ("tags", "text"):  # there the mean is one of tokens
            assert loss == pytest.approx(known.value, rel=1e-5)
        if kind in ("classes", "pairs"):
            assert found[f"{name}_right"].mean() == side["accuracy"].value
            probabilities = np.stack(found[f"{name}_probabilities"])
            np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
            names = found.attrs["label_names"]
            said = [names[index] for index in probabilities.argmax(axis=1)]
            assert said == found[name].tolist()
            np.testing.assert_allclose(found[f"{name}_probability"], probabilities.max(axis=1))
        if kind == "several":
            assert found[f"{name}_right"].mean() == side["exact_match"].value
        if kind == "numbers":
            error = np.sqrt(((found[name] - found.label) ** 2).mean())
            assert error == pytest.approx(side["rmse"].value, rel=1e-5)
    if kind == "classes":
        answers = lorafit.predict(run, data["test"]["text"])
        assert [one["label"] for one in answers] == found.tuned.tolist()
    if kind == "several":
        answers = lorafit.predict(run, data["test"]["text"])
        assert [one["labels"] for one in answers] == [list(said) for said in found.tuned]
        assert found.label.map(list).tolist() == [sorted(x) for x in data["test"]["labels"]]
    if kind == "tags":
        answers = lorafit.predict(run, data["test"]["tokens"])
        assert [one["tags"] for one in answers] == [list(said) for said in found.tuned]
        assert found.label.map(list).tolist() == data["test"]["ner_tags"]
        assert [len(p) for p in found.tuned_probabilities] == [len(t) for t in found.tuned]


def test_texts_that_were_written_stand_beside_their_prompts(
    trained: tuple[str, lorafit.Run, DatasetDict],
) -> None:
    kind, run, data = trained
    if kind != "text":
        assert "base" in run.predictions
        return
    found = run.predictions
    written = found[found.tuned.notna()]
    assert 3 <= len(written) < N or len(set(data["test"]["prompt"])) <= 3
    samples = {s["prompt"]: s for s in run.eval["generation"]["samples"]}
    for row in written.itertuples():
        if row.text in samples:
            assert row.tuned == samples[row.text]["tuned"]
            assert row.base == samples[row.text]["base"]
    truth = dict(zip(range(N), data["test"]["completion"], strict=True))
    assert all(row.label.strip() == truth[row.row].strip() for row in written.itertuples())


def test_mistakes_and_flips_are_rows_of_them(
    trained: tuple[str, lorafit.Run, DatasetDict],
) -> None:
    kind, run, _ = trained
    found, wrong, flips = run.predictions, run.mistakes(), run.flips()
    assert len(run.mistakes(2)) == min(2, len(wrong))
    if kind in ("classes", "pairs", "several", "tags"):
        assert set(wrong.row) == set(found[~found.tuned_right].row)
        assert wrong.tuned_probability.is_monotonic_decreasing
        gained = found[found.tuned_right & ~found.base_right]
        assert set(flips[flips.flip == "gained"].row) == set(gained.row)
        lost = found[~found.tuned_right & found.base_right]
        assert set(flips[flips.flip == "lost"].row) == set(lost.row)
    elif kind == "numbers":
        assert (wrong.tuned - wrong.label).abs().is_monotonic_decreasing
        assert len(flips) == 0
    else:
        assert wrong.tuned_loss.is_monotonic_decreasing
        assert len(flips) == 0


def test_the_page_shows_them(trained: tuple[str, lorafit.Run, DatasetDict]) -> None:
    _, run, _ = trained
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert 'id="mistakes"' in page


def test_texts_are_not_kept_unless_they_may_be(tmp_path: Path) -> None:
    base = tiny_text.save_base(tmp_path / "base", "bert")
    frame = pd.DataFrame(tiny_text.rows(40, 0).to_dict())
    file = tmp_path / "rows.csv"
    frame.to_csv(file, index=False)
    options = QUICK | {"max_steps": 1, "run.dir": str(tmp_path / "runs")}
    run = lorafit.train(base, file, **options, keep_texts=False)
    found = run.predictions
    assert not [name for name in found if name.startswith("text") and name != "text_hash"]
    assert b"film" not in (run.path / FILE).read_bytes()
    # The test rows were set aside from a file: each is known there.
    rows = frame.iloc[found.source_row]
    assert found.text_hash.tolist() == [text_hash([text]) for text in rows.text]
    assert found.label.tolist() == rows.label.tolist()


def test_a_run_without_says_so(tmp_path: Path) -> None:
    config = Config.model_validate({"model": {"name_or_path": "m"}, "data": {"path": "d"}})
    base = RunWriter.create(config, tmp_path / "runs", "old").path
    run = lorafit.Run(base)
    with pytest.raises(RunError, match="kept none"):
        run.predictions  # noqa: B018
    (base / FILE).write_bytes(b"PAR1 damaged")
    with pytest.raises(RunError, match="cannot read"):
        run.mistakes()


# What `evaluate` keeps ----------------------------------------------------------------------


def same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Floats of two computations of the same batches are equal."""
    assert list(ours) == list(theirs)
    pd.testing.assert_frame_equal(ours, theirs)
    assert ours.attrs == theirs.attrs


def test_an_evaluation_has_the_predictions_of_its_rows_and_keeps_them(
    trained: tuple[str, lorafit.Run, DatasetDict], tmp_path: Path
) -> None:
    kind, run, data = trained
    found = run.evaluate(data, tmp_path / "said.parquet")
    same(found.predictions, run.predictions)
    same(found.mistakes(), run.mistakes())
    same(found.flips(), run.flips())
    assert found.evaluation.tuned == run.evaluation.tuned
    assert found.path is not None
    assert found.path.parent == run.path / "evaluations"
    kept = json.loads((found.path / "eval.json").read_text())
    assert (kept["data"], kept["split"]) == ("(live object)", "test")
    assert kept["trained_on"] == found["trained_on"]
    assert kept["tuned"] == found["tuned"]
    for file in (found.path / FILE, tmp_path / "said.parquet"):
        same(Predictions.read(file).frame(), run.predictions)
    simple = found.evaluation.baseline
    assert simple is not None  # every task has a constant answer
    assert simple.ahead is not None
    assert bool(simple.sentence) == (kind == "tags")


def test_predictions_are_written_as_tables(
    trained: tuple[str, lorafit.Run, DatasetDict], tmp_path: Path
) -> None:
    kind, run, _ = trained
    found = run.predictions
    for ending in ("csv", "tsv", "jsonl"):
        path = tmp_path / f"said.{ending}"
        write_table(path, Predictions.read(run.path / FILE).table, named=kind != "tags")
        if ending != "jsonl":
            table = pd.read_csv(path, sep="\t" if ending == "tsv" else ",")
            assert list(table) == [name for name in found if not name.endswith("_probabilities")]
            assert np.allclose(table.tuned_loss, found.tuned_loss, rtol=1e-5)
            assert table.text_hash.tolist() == found.text_hash.tolist()
            continue
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert [line["row"] for line in lines] == found.row.tolist()
        assert list(lines[0]) == list(found)
        if kind in ("classes", "pairs", "several"):
            names = found.attrs["label_names"]
            assert list(lines[0]["tuned_probabilities"]) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "said.csv",
        "said.jsonl",
        "said.tsv",
    ]


def test_evaluations_are_numbered_and_files_never_overwritten(
    trained: tuple[str, lorafit.Run, DatasetDict], tmp_path: Path
) -> None:
    kind, run, data = trained
    if kind != "classes":
        assert run.predictions is not None
        return
    file = tmp_path / "reviews.csv"
    data["test"].to_csv(file, index=False)
    folders = [run.evaluate(file).path for _ in range(2)]
    assert [folder and folder.name for folder in folders] == ["reviews-001", "reviews-002"]
    assert run.evaluate(file).predictions.source_row.tolist() == list(range(N))
    for bad, says in (
        (file, "exists and is not overwritten"),
        (tmp_path / "a.xlsx", "answers cannot be written"),
        (tmp_path / "none" / "a.csv", "there is no folder"),
    ):
        with pytest.raises(DataError, match=says):
            run.evaluate(file, bad)
    before = sorted((run.path / "evaluations").iterdir())
    with pytest.raises(DataError):
        run.evaluate(tmp_path / "none.csv")
    assert sorted((run.path / "evaluations").iterdir()) == before


def test_an_evaluation_that_cannot_be_kept_is_a_warning(
    trained: tuple[str, lorafit.Run, DatasetDict],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kind, run, data = trained
    if kind != "classes":
        assert run.predictions is not None
        return
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("evaluations"))
    (copy / "evaluations").write_text("a file is in the way")
    found = lorafit.evaluate(copy, data)
    assert found.path is None
    assert len(found.predictions) == N
    assert "the evaluation is not kept: cannot write" in caplog.text


# Rows that are not the examples -----------------------------------------------------------


def said(count: int, outputs: Any = None) -> Said:
    zeros = np.zeros(count, dtype=np.float32)
    kept = np.zeros((count, 2)) if outputs is None else outputs
    return Said(Scores(kept, np.zeros(count, dtype=np.int64), zeros), kept)


CONFIG = Config(model={"name_or_path": "m"}, data={"path": "d.csv"})  # type: ignore[arg-type]


def test_rows_that_encoding_left_out_are_counted(tmp_path: Path) -> None:
    tokenizer = tiny_text.bert_tokenizer(tmp_path)
    rows = Dataset.from_dict({"text": ["a", "", "c", "d"], "label": ["x", "x", None, "y"]})
    task = SequenceClassification(["text"], "label", ["x", "y"])
    encoded = task.encode(rows, tokenizer, 8)
    found = table(task, rows, encoded, said(2), said(2), CONFIG).to_pydict()
    assert found["row"] == found["source_row"] == [0, 3]
    assert found["text"] == ["a", "d"]
    assert found["text_hash"] == [text_hash(["a"]), text_hash(["d"])]


def test_a_long_text_makes_several_examples_of_one_row(tmp_path: Path) -> None:
    import transformers

    base = tiny_text.save_language_model(tmp_path / "base", "llama")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    rows = Dataset.from_dict({"text": ["the film is good", "the film is bad " * 6]})
    task = CausalLM(["text"])
    encoded = task.encode(rows, tokenizer, 8)
    count = len(encoded)
    assert count > 2
    found = table(task, rows, encoded, said(count), said(count), CONFIG).to_pydict()
    assert found["row"] == [0] + [1] * (count - 1)
    assert found["text_hash"] == [text_hash([rows["text"][at]]) for at in found["row"]]

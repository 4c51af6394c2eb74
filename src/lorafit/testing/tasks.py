"""What every task promises, as tests to inherit.

A subclass in a test module names a registered task and makes rows for it; pytest then runs each
test below on tiny models with random weights, made in memory, and trains one of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import lorafit
from lorafit.api import Tuned
from lorafit.config import Config, DataConfig, ModelConfig, TrainConfig
from lorafit.data.batches import Example
from lorafit.engine.base import Engine
from lorafit.errors import DataError, LorafitError, ModelError
from lorafit.evaluation.score import Scores, check_labelled, intervals, score
from lorafit.evidence import MetricInfo
from lorafit.model.kind import kind_of_model
from lorafit.pipeline.measure import said
from lorafit.tasks import tasks
from lorafit.tasks.base import Task
from lorafit.tasks.guess import guess_task
from lorafit.tasks.parts.generative import GenerativeTask
from lorafit.tasks.parts.labels import UNKNOWN
from lorafit.tasks.parts.metrics import Metric
from lorafit.tasks.parts.places import rows_of
from lorafit.testing import words
from lorafit.testing.subject import (
    LONGEST,
    Subject,
    beginners,
    check_alone,
    check_answering,
    model_for,
    same,
    saved,
    subject,
    tokenizer_for,
)
from lorafit.training import head

_TRAINING: Mapping[str, Any] = {
    "strategy": "none",
    "num_train_epochs": 6,
    "per_device_train_batch_size": 8,
    "learning_rate": 3e-3,
    "max_new_tokens": 4,
    "bf16": False,
    "progress": False,
}


class TaskChecks(ABC):
    """The promises of one task, each a test.

    Attributes:
        task: The registered name.
        text: The text columns of `row`.
        label: Its label column, or several; ``None``: the task learns from text alone.
        columns: What has to be said of the columns (``text``, ``label``) for the task to find
            them; usually nothing.
        infers: Whether these columns and a model of the first family are known to be the task's
            when nobody names it. One that says nothing in `Task.fits` is taken when asked for.
        families: The models to test it on, keys of `lorafit.testing.tiny.CONFIGS`; the first
            is trained.
        fast: Those of them that the fast engine computes; ``None``: whichever.
        refused: Changes to a row after which it is refused, by a name for each, with what the
            refusal says (a regular expression) beside the row's number.
        training: Settings of the training besides the usual ones.
    """

    task: ClassVar[str]
    text: ClassVar[tuple[str, ...]] = ("text",)
    label: ClassVar[str | list[str] | None] = "label"
    columns: ClassVar[Mapping[str, Any]] = {}
    infers: ClassVar[bool] = True
    families: ClassVar[tuple[str, ...]] = ("bert", "gpt2", "t5")
    fast: ClassVar[Collection[str] | None] = None
    refused: ClassVar[Mapping[str, tuple[Mapping[str, Any], str]]] = {}
    training: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def row(self, said: list[str]) -> dict[str, Any]:
        """A labelled row whose text is made of these words.

        The label follows from the words in a way that a tiny model learns in a few steps, and
        every label occurs among the rows of a few dozen lists of words.

        Args:
            said: Two words or more, most of them of `lorafit.testing.words`.
        """

    def tokenizer(self, family: str) -> PreTrainedTokenizerBase:
        """A tokenizer such as models of the family come with."""
        return tokenizer_for(family)

    def rows(self, count: int, seed: int = 0, **drawing: Any) -> Dataset:
        """Labelled rows of random words, see `lorafit.testing.words.sentences`."""
        drawn = words.sentences(count, seed, **{"shortest": 2} | drawing)
        return Dataset.from_list([self.row(one) for one in drawn])

    def made(self) -> Task:
        """The task, bound to rows of its own."""
        config = DataConfig(path="memory", **self.columns)
        return tasks[self.task].from_data(DatasetDict(train=self.rows(48)), config)

    def subject(self, family: str) -> Subject:
        """A tiny model of the family that does the task, in every engine."""
        return subject(self.made(), family, self.tokenizer(family))

    def model(self) -> tuple[Tuned, Engine]:
        """A tiny model that does the task, computed by plain torch."""
        family = self.families[0]
        found = subject(self.made(), family, self.tokenizer(family), ["eager"])
        return found.tuned, found.engines[0]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Runs what is asked of a family on each."""
        if "family" in metafunc.fixturenames:
            metafunc.parametrize("family", self.families)

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, tmp_path_factory: pytest.TempPathFactory) -> lorafit.Run:
        """A finished run on a tiny model."""
        checks = cls()
        folder = tmp_path_factory.mktemp("task")
        family = checks.families[0]
        base = saved(checks.made(), family, checks.tokenizer(family), folder / "base")
        asked = {} if checks.infers else {"task": checks.task}
        return lorafit.train(
            base,
            checks.splits(),
            **{**_TRAINING, **asked, **checks.columns, **checks.training},
            runs_dir=str(folder / "runs"),
        )

    def splits(self) -> DatasetDict:
        """What is trained on, and measured."""
        return DatasetDict(train=self.rows(64), validation=self.rows(16, 1), test=self.rows(16, 2))

    # 1. It reads its columns, and is stored -----------------------------------------------

    def test_it_reads_its_columns_off_the_data(self) -> None:
        """And says why it took them."""
        task = self.made()
        assert task.name == self.task
        assert type(task) is tasks[self.task]
        assert (task.text, task.label) == (self.text, self.label)
        assert task.reasons.get("text")

    def test_it_is_taken_for_its_columns_or_when_it_is_asked_for(self) -> None:
        """By the columns and the kind of model, as `infers` says."""
        splits, config = DatasetDict(train=self.rows(48)), DataConfig(path="x", **self.columns)
        kind = kind_of_model(model_for(self.made(), self.families[0]))
        fit = tasks[self.task].fits(splits["train"], config, kind)
        assert (fit is not None) == self.infers
        if fit is not None:
            assert fit.reason
            assert guess_task(splits, config, kind)[0] is tasks[self.task]

    def test_a_column_that_does_not_exist_is_refused(self) -> None:
        """Whether text or label, before anything is trained."""
        splits = DatasetDict(train=self.rows(48))
        for column in ("text", "label"):
            asked: Mapping[str, Any] = {**self.columns, column: ["no_such"]}
            with pytest.raises(DataError, match=r"no_such|no column"):
                tasks[self.task].from_data(splits, DataConfig(path="x", **asked))

    def test_it_is_stored_as_json_and_read_back(self) -> None:
        """Without the data; what is damaged, or of another task, is refused."""
        task = self.made()
        again = type(task).from_dict(json.loads(json.dumps(task.to_dict())))
        assert again.to_dict() == task.to_dict()
        assert (again.text, again.label) == (task.text, task.label)
        assert again.model_kwargs() == task.model_kwargs()
        assert list(again.metrics) == list(task.metrics)
        with pytest.raises(DataError, match='"another" task'):
            type(task).from_dict(task.to_dict() | {"name": "another"})
        with pytest.raises(DataError, match="lacks text"):
            type(task).from_dict({"name": task.name})

    # 2. Rows to features ------------------------------------------------------------------

    def test_rows_are_encoded_unpadded_within_the_longest_length(self) -> None:
        """A label each, or a label a token; each example knows its row."""
        (tuned, _), rows = self.model(), self.rows(12, seed=3)
        encoded = _encoded(tuned, rows)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        assert 0 < min(lengths) <= max(lengths) <= LONGEST
        assert not any(encoded["truncated"])
        if tuned.task.supervision in ("token", "next_token"):
            assert [len(labels) for labels in encoded["labels"]] == lengths
        places = rows_of(encoded, len(rows))
        assert places is not None, "examples do not know their rows (lorafit.tasks.parts.places)"
        for ids, place in zip(encoded["input_ids"], places.tolist(), strict=True):
            assert ids in list(_encoded(tuned, rows.select([place]))["input_ids"])

    def test_what_is_too_long_is_cut_and_said(self, caplog: pytest.LogCaptureFixture) -> None:
        """Or becomes several examples."""
        tuned, _ = self.model()
        rows = self.rows(3, shortest=8)
        limit = min(len(ids) for ids in _encoded(tuned, rows)["input_ids"]) - 1
        caplog.set_level("INFO", "lorafit")
        encoded = tuned.task.encode(rows, tuned.tokenizer, limit)
        assert max(len(ids) for ids in encoded["input_ids"]) <= limit
        assert all(encoded["truncated"]) or len(encoded) > len(rows)
        assert f"{limit} tokens" in caplog.text

    def test_a_batch_has_a_row_an_example_whichever_side_the_tokenizer_pads_on(self) -> None:
        """Masked where it is padded."""
        tuned, _ = self.model()
        task, tokenizer = tuned.task, tuned.tokenizer
        examples = list(_encoded(tuned, self.rows(6, seed=3)))
        batches = []
        for side in ("left", "right"):
            tokenizer.padding_side = side
            batches.append(task.collate(examples, tokenizer))
        one, other = batches
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert {len(tensor) for tensor in one.values()} == {len(examples)}
        assert one["input_ids"].shape == one["attention_mask"].shape
        lengths = [len(example["input_ids"]) for example in examples]
        assert one["attention_mask"].sum(dim=1).tolist() == lengths

    # 3. Losses ----------------------------------------------------------------------------

    def test_losses_are_finite_float32_sums_over_units(self) -> None:
        """Of every example one sum, whatever the format of the logits, with a gradient."""
        task, logits, labels, examples = self._computed()
        logits.requires_grad_()
        losses, units = task.losses(logits, labels), task.units(labels)
        assert (losses.shape, losses.dtype) == ((len(examples),), torch.float32)
        assert losses.isfinite().all()
        assert (units.shape, units.dtype) == ((len(examples),), torch.int64)
        assert units.min() > 0
        assert task.count(examples) == int(units.sum())
        torch.autograd.backward(losses.sum())
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert logits.grad.flatten(1).any(dim=1).all()
        half = task.losses(logits.detach().bfloat16(), labels)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, losses.detach(), rtol=0.1, atol=0.1)

    def test_what_is_not_known_has_no_loss(self) -> None:
        """Nor is it scored; of labels of tokens the loss is the sum over those that are known."""
        task, logits, labels, _ = self._computed()
        if task.supervision == "example":
            tuned, engine = self.model()
            asked = Dataset.from_list([self._text_of(row) for row in self.rows(4)])
            encoded = tuned.task.encode(asked, tuned.tokenizer, LONGEST)
            assert len(encoded) == 4, "rows without a label column are to be predicted"
            answers = engine.answers(engine.collate(list(encoded)))
            assert not answers.losses.any()
            with pytest.raises(DataError, match="4 of 4 examples have no label"):
                check_labelled(Scores(answers.kept, answers.labels, answers.losses))
            return
        parts = []
        for keep in (0, 1):
            chosen = (torch.arange(labels.shape[1]) % 2 == keep).expand_as(labels)
            parts.append(labels.where(chosen, UNKNOWN))
        sums = torch.stack([task.losses(logits, part) for part in parts]).sum(dim=0)
        torch.testing.assert_close(sums, task.losses(logits, labels))
        units = torch.stack([task.units(part) for part in parts]).sum(dim=0)
        assert torch.equal(units, task.units(labels))
        none = torch.full_like(labels, UNKNOWN)
        assert not task.losses(logits, none).any()
        assert not task.units(none).any()

    # 4. An answer depends on its text alone -----------------------------------------------

    def test_an_answer_depends_on_its_text_alone(self, family: str) -> None:
        """Not on the rest of the batch, nor on the tokenizer's side, in any engine."""
        found = self.subject(family)
        names = [engine.name for engine in found.engines]
        if self.fast is not None:
            assert ("fast" in names) == (family in self.fast), names
        found.tuned.tokenizer.padding_side = "left"  # the wrong one of nearly all models
        drawn = {"seed": self.families.index(family), "odd": True}
        rows = self.rows(4, **drawn)
        check_alone(found, rows)
        # Otherwise all that is asked here would hold of anything.
        engine, examples = found.engines[0], list(_encoded(found.tuned, rows))
        logits = engine.logits(engine.collate(examples))
        assert (logits[1:] - logits[:1]).abs().max() > 0.01

    def test_the_engine_that_answers_computes_what_plain_torch_does(self, family: str) -> None:
        """Packed, with the adapter merged into its copy of the weights; the model stays."""
        found = self.subject(family)
        rows = self.rows(5, seed=self.families.index(family), odd=True)
        check_answering(found.tuned, list(_encoded(found.tuned, rows)))

    # 5. Metrics ---------------------------------------------------------------------------

    def test_metrics_are_described_once(self) -> None:
        """A title, a note, which way is better; no page knows them by their names."""
        task = self.made()
        assert task.metric in task.metrics
        assert task.loss_name not in task.metrics
        assert task.loss_info.greater_is_better is False
        for name, metric in task.metrics.items():
            assert isinstance(metric, Metric), f"{name} is a function without a description"
        for name, info in task.infos.items():
            assert isinstance(info, MetricInfo)
            assert info.title, name
            assert info.note, name
            assert info.greater_is_better is not None, f"{name}: which way is better?"
            assert info.form in ("share", "number")
            if info.low is not None and info.high is not None:
                assert info.low < info.high, name
            if info.is_share:
                assert (info.low, info.high) == (0, 1), name

    def test_metrics_are_finite_and_within_their_bounds(self) -> None:
        """Of few examples and of many, and where all are alike."""
        task, scores = self._scores()
        alike = [np.zeros(5, dtype=np.int64), np.arange(1), np.arange(2), np.arange(len(scores))]
        for name, metric in task.metrics.items():
            for chosen in alike:
                value = metric(scores.logits[chosen], scores.labels[chosen])
                assert isinstance(value, float), name
                assert np.isfinite(value), name
                _assert_within(value, metric.info)

    def test_what_resampling_is_told_is_what_the_metric_computes(self) -> None:
        """`Metric.counted` from counts of pairs, `Metric.right` as a mean."""
        task, scores = self._scores()
        random = np.random.default_rng(0)
        for name, metric in task.metrics.items():
            chosen = random.integers(len(scores), size=(3, len(scores)))
            drawn = [(scores.logits[one], scores.labels[one]) for one in chosen]
            expected = [metric(*one) for one in drawn]
            if metric.right is not None:
                right = [metric.right(*one) for one in drawn]
                assert {(one.shape, one.dtype.kind) for one in right} == {((len(scores),), "b")}
                assert [float(one.mean()) for one in right] == pytest.approx(expected), name
            if metric.counted is not None:
                pairs = np.stack([scores.labels, scores.logits.argmax(axis=-1)], axis=1)
                cells, cell = np.unique(pairs, axis=0, return_inverse=True)
                counts = [np.bincount(cell[one], minlength=len(cells)) for one in chosen]
                found = metric.counted(np.array(counts), cells[:, 0], cells[:, 1])
                assert list(found) == pytest.approx(expected), name

    def test_intervals_are_ordered_and_within_the_bounds(self) -> None:
        """And the same when computed again."""
        task, scores = self._scores()
        found = intervals(scores, task)
        assert list(found) == [*task.metrics, task.loss_name]
        for name, interval in found.items():
            assert interval.low <= interval.high, name
            for value in (interval.low, interval.value, interval.high):
                assert np.isfinite(value), name
                _assert_within(value, task.infos[name])
        assert intervals(scores, task) == found

    def test_the_constant_answer_is_scored_like_any_other(self) -> None:
        """If the task has one; tables have a cell a column."""
        (tuned, engine), rows = self.model(), self.rows(24, seed=5)
        task, encoded = tuned.task, _encoded(tuned, rows)
        scores, found = score(engine, encoded, 8), task.constant(encoded)
        constant = [] if found is None else [found.kept, found.yardstick]
        for kept in [scores.logits, *constant]:
            assert len(kept) == len(scores)
            for metric in task.metrics.values():
                _assert_within(metric(kept, scores.labels), metric.info)
            missed = task.never_predicted(kept, scores.labels)
            assert all(isinstance(name, str) for name in missed)
            for table in task.tables(kept, scores.labels):
                assert table["title"]
                assert {len(row) for row in table["rows"]} <= {len(table["columns"])}
                json.dumps(table)
        assert found is None or found.by

    # 6. Answers ---------------------------------------------------------------------------

    def test_predictions_are_what_predict_answers(self) -> None:
        """What the run keeps of each example is what `lorafit.predict` says of its text."""
        (tuned, engine), rows = self.model(), self.rows(10, seed=4)
        answers = lorafit.predict(tuned, rows)
        assert len(answers) == len(rows)
        assert {next(iter(answer)) for answer in answers} == {next(iter(answers[0]))}
        json.dumps(answers)
        encoded = _encoded(tuned, rows)
        outcome = said(engine, tuned.task, encoded, 4)
        predicted = tuned.task.predicted(outcome.outputs, outcome.scores.labels, encoded)
        if isinstance(tuned.task, GenerativeTask):
            assert predicted is None
            assert all(isinstance(answer["generated"], str) for answer in answers)
            return
        assert predicted is not None
        assert len(predicted.answers) == len(predicted.labels) == len(rows)
        for kept, answer in zip(predicted.answers, answers, strict=True):
            assert any(same(kept, value) for value in answer.values()), (kept, answer)
        assert pa.array(predicted.labels).type == pa.array(predicted.answers).type
        if predicted.right is not None:
            pairs = zip(predicted.labels, predicted.answers, strict=True)
            assert predicted.right.tolist() == [label == answer for label, answer in pairs]
        if predicted.probability is not None:
            assert predicted.probability.shape == (len(rows),)
            assert ((predicted.probability >= 0) & (predicted.probability <= 1)).all()
        if predicted.probabilities is not None:
            assert len(predicted.probabilities) == len(rows)

    def test_an_empty_text_is_refused_with_its_place(self) -> None:
        """Before anything is computed."""
        tuned, _ = self.model()
        asked = [self._text_of(row) for row in self.rows(3)]
        asked[1] = {name: _emptied(value) for name, value in asked[1].items()}
        with pytest.raises(DataError, match=r"\b2\b"):
            lorafit.predict(tuned, asked)

    def test_bad_rows_are_refused_with_their_numbers(self) -> None:
        """As `refused` has them."""
        tuned, _ = self.model()
        for name, (changes, message) in self.refused.items():
            rows = self.rows(5).to_list()
            rows[2] |= changes
            with pytest.raises(LorafitError, match=message) as caught:
                _encoded(tuned, Dataset.from_list(rows))
            assert re.search(r"\b3\b", str(caught.value)), (name, str(caught.value))

    def test_a_live_model_with_another_head_is_refused(self) -> None:
        """If the task says how many outputs it needs."""
        task = self.made()
        outputs = task.model_kwargs().get("num_labels")
        if outputs is None:
            return
        model = model_for(task, self.families[0])
        task.check(model)
        model.config.num_labels = outputs + 1
        with pytest.raises(ModelError, match=rf"{outputs + 1}\D+{outputs}\b"):
            task.check(model)

    # 7. A new head ------------------------------------------------------------------------

    def test_a_new_head_begins_as_the_best_linear_layer(self, family: str) -> None:
        """On what reaches it in training, in any engine; nothing else of the model changes."""
        config = Config(
            model=ModelConfig(name_or_path="memory"),
            data=DataConfig(path="memory"),
            train=TrainConfig(num_train_epochs=3, per_device_eval_batch_size=8),
        )
        for engine, learner, new in beginners(
            self.made(), family, self.tokenizer(family), self.rows
        ):
            if learner.task.supervision not in ("example", "token"):
                assert not head.wanted(learner, config, new)
                continue
            assert head.wanted(learner, config, new)
            before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
            generators = torch.get_rng_state()
            found = head.begin(learner, config, new)
            assert torch.equal(torch.get_rng_state(), generators)
            # The last token of an untrained decoder may say less than nothing of its text.
            assert bool(found.weights) == (found.loss < found.loss_before), found.reason
            assert np.isfinite(found.loss), (engine, found.reason)
            rest = score(learner.engine, learner.validation, 8)
            units = len(rest) if rest.units is None else rest.units.sum()
            # What was solved for apart from the model is what the model now says.
            said = min(found.loss, found.loss_before)
            assert rest.losses.sum() / units == pytest.approx(said, rel=1e-3), engine
            for name, parameter in learner.model.named_parameters():
                changed = learner.trainable.get(name) is parameter and name in found.weights
                assert changed or torch.equal(parameter, before[name]), name

    # 8. A run of it -----------------------------------------------------------------------

    def test_a_run_learns_and_its_adapter_computes_what_was_trained(self, run: lorafit.Run) -> None:
        """The loss falls; reloaded the same bit for bit, merged up to rounding."""
        task = self.made()
        assert run.status == "done"
        assert run.choices["task"].value == self.task
        found = run.eval
        assert found["metric"] == task.metric
        assert found["metrics"].keys() >= task.infos.keys()
        learned = lorafit.evaluate(run, self.splits()["train"], progress=False)
        before, after = (learned[side][task.loss_name]["value"] for side in ("base", "tuned"))
        assert after < before
        assert found["handoff"]["reloaded_max_abs_diff"] == 0.0
        assert found["handoff"]["merged_max_abs_diff"] < 1e-4
        page = (run.path / "report.html").read_text("utf-8")
        assert task.infos[task.metric].title.lower() in page.lower()

    def test_the_adapter_brings_its_task_along(self, run: lorafit.Run) -> None:
        """With its labels, so that nothing else is needed to predict."""
        settings = json.loads((run.adapter / "adapter_config.json").read_text("utf-8"))
        assert settings["task_type"] == self.made().task_type
        tuned = lorafit.load(run.adapter)
        assert type(tuned.task) is tasks[self.task]
        asked = [self._text_of(row) for row in self.rows(3)]
        assert lorafit.predict(tuned, asked) == lorafit.predict(run, asked)

    def test_a_run_is_measured_again_with_the_same_result(self, run: lorafit.Run) -> None:
        """On the rows of the same test split, and on fewer."""
        again = lorafit.evaluate(run, self.splits()["test"], progress=False)
        assert same(again["tuned"], run.eval["tuned"])
        assert lorafit.evaluate(run, self.rows(5, seed=2), progress=False)["n"] <= run.eval["n"]

    def test_the_merged_model_needs_nothing_of_ours(self, run: lorafit.Run, tmp_path: Path) -> None:
        """It computes the same in transformers, and the code of the model card reads it."""
        lorafit.merge(run, tmp_path / "plain")
        tuned = lorafit.load(run)
        auto: Any = tuned.task.auto_model
        model = auto.from_pretrained(tmp_path / "plain").eval()
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
        examples = list(tuned.task.encode(self.rows(4), tuned.tokenizer, tuned.max_length))
        batch = tuned.task.collate(examples, tuned.tokenizer)
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        with torch.no_grad():
            expected = tuned.model(**inputs).logits
            torch.testing.assert_close(model(**inputs).logits, expected, rtol=1e-4, atol=1e-4)
        scope = {"torch": torch, "tokenizer": tokenizer, "model": model}
        scope["id2label"] = model.config.id2label
        code = "\n".join([*tuned.task.asking(tuned.max_length), *tuned.task.reading])
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, scope)
        assert printed.getvalue()

    def _text_of(self, row: Example) -> Example:
        return {name: row[name] for name in self.text}

    def _computed(self) -> tuple[Task, torch.Tensor, torch.Tensor, list[Example]]:
        """The task, logits and labels of a few examples, and these."""
        tuned, engine = self.model()
        examples = list(_encoded(tuned, self.rows(6, seed=3, shortest=6)))
        batch = engine.collate(examples)
        logits = engine.logits(batch).detach().float().cpu().clone()
        return tuned.task, logits, batch["labels"].cpu(), examples

    def _scores(self) -> tuple[Task, Scores]:
        """What a model that was not trained says of some rows."""
        tuned, engine = self.model()
        return tuned.task, score(engine, _encoded(tuned, self.rows(24, seed=5)), 8)


def _encoded(tuned: Tuned, rows: Dataset) -> Dataset:
    return tuned.task.encode(rows, tuned.tokenizer, LONGEST)


def _emptied(value: Any) -> Any:
    """A text without words, a list of words or a conversation without one."""
    return " " if isinstance(value, str) else []


def _assert_within(value: float, info: MetricInfo) -> None:
    assert info.low is None or value >= info.low - 1e-9, info.title
    assert info.high is None or value <= info.high + 1e-9, info.title

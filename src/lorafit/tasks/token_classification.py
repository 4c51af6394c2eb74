"""One tag per word: named entities and other spans, or parts of speech.

The first token of a word carries its tag; the others, and special tokens, have no loss.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, DatasetDict
from scipy.special import softmax
from torch.nn import functional as F
from transformers import AutoModelForTokenClassification, PreTrainedModel, PreTrainedTokenizerBase

from lorafit.config import DataConfig
from lorafit.data.batches import Example
from lorafit.data.columns.choose import BY_NAME, require_columns
from lorafit.data.columns.tagged import find_tagged, tag_names, tagged_rows
from lorafit.data.columns.values import column_values, features_of
from lorafit.data.findings import Findings
from lorafit.data.read.splits import train_rows
from lorafit.errors import DataError, ModelError
from lorafit.evidence import MetricInfo, Table
from lorafit.evidence.json import Json
from lorafit.evidence.tables import Cell
from lorafit.tasks import tasks
from lorafit.tasks.base import Fit, ModelKind, Supervision, Task, check_texts
from lorafit.tasks.parts.answers import Predicted
from lorafit.tasks.parts.constant import Constant
from lorafit.tasks.parts.labels import UNKNOWN, check_names, named_head
from lorafit.tasks.parts.metrics import NLL_OF_TOKENS, Metric
from lorafit.tasks.parts.padding import ensure_pad_token
from lorafit.tasks.parts.places import with_rows
from lorafit.tasks.parts.tables import scores_of_classes
from lorafit.tasks.tags import metrics
from lorafit.tasks.tags.align import align
from lorafit.tasks.tags.spans import OUTSIDE, Span, check_iob1, scheme_of, spans, split_tag
from lorafit.units import listed

_WORD = re.compile(r"\w+|[^\w\s]")


@tasks.register("token_classification")
class TokenClassification(Task):
    """Tags words; spans are scored whole, as seqeval and the CoNLL tasks do.

    Attributes:
        text: The column with lists of words.
        label: The column with lists of tags, one a word.
        label_names: The tags; a tag's number is its place here.
    """

    name: ClassVar[str] = "token_classification"
    task_type: ClassVar[str] = "TOKEN_CLS"
    auto_model: ClassVar[type] = AutoModelForTokenClassification
    metric: str = "f1"
    loss_info: ClassVar[MetricInfo] = NLL_OF_TOKENS
    supervision: ClassVar[Supervision] = "token"
    reading: ClassVar[Sequence[str]] = (
        "with torch.no_grad():",
        "    tags = model(**inputs).logits.argmax(dim=-1)[0]",
        "tokens = tokenizer.convert_ids_to_tokens(inputs.input_ids[0])",
        "print([(token, id2label[tag]) for token, tag in zip(tokens, tags.tolist())])",
    )
    fields: ClassVar[tuple[str, ...]] = ("text", "label", "label_names")
    needs: ClassVar[str] = "a column of lists of words and one of lists of tags, one a word"

    label: str

    def __init__(self, text: Sequence[str], label: str, label_names: Sequence[str]) -> None:
        """Binds the task to columns and tags.

        Raises:
            DataError: There is not one column of words, or not two different tags.
        """
        if len(text) != 1:
            raise DataError(f"one column of words is needed, got {len(text)}.")
        self.text = tuple(text)
        self.label = label
        self.label_names = check_names(label_names, "tags")
        self.scheme = scheme_of(self.label_names)
        if self.scheme is None:
            self.metric = "accuracy"
        self.kinds = self._kinds()
        self._place = {kind: index for index, kind in enumerate(self.kinds)}

    def _kinds(self) -> list[str]:
        """What is counted: the types of spans, or the single tags."""
        if self.scheme is None:
            return self.label_names
        return sorted({split_tag(tag)[1] for tag in self.label_names if tag != OUTSIDE})

    @classmethod
    def fits(cls, rows: Dataset, config: DataConfig, model: ModelKind) -> Fit | None:
        """Lists of words, and lists of tags as long."""
        found = find_tagged(rows, config)
        if not found:
            return None
        words, tags = found[0]
        return Fit(f"lists of words in {words}, and as many tags in {tags}")

    @classmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> TokenClassification:
        """Reads columns and tags off the data; what is guessed is said.

        Args:
            splits: At least ``train``.
            config: ``text`` and ``label``; ``None``: guess.

        Raises:
            DataError: There are no such columns, a row has more words than tags, or another
                split has a tag that train lacks.
        """
        train = train_rows(splits)
        found = find_tagged(train, config)
        if not found:
            raise DataError(
                "no column holds lists of words with lists of as many tags beside it. Name them: "
                "--text tokens --label ner_tags."
            )
        words, tags = found[0]
        why = "as asked" if config.label else BY_NAME if len(found) > 1 else "lists of tags"
        others = [other for _, other in found[1:]]
        findings = Findings()
        more = f" (there is also {', '.join(others)}: --label)" if others else ""
        findings.note(f"word column: {words}; tag column: {tags}{more}")
        names = tag_names(splits, words, tags)
        task = cls([words], tags, names)
        task.findings = findings
        task.reasons = {"text": "as asked" if config.text else "lists of words", "label": why}
        task._say_scheme(train)
        return task

    def _say_scheme(self, train: Dataset) -> None:
        if self.scheme is None:
            self.findings.note(f"{len(self.label_names)} tags: {listed(self.label_names)}")
            if all(name.isdigit() for name in self.label_names):
                self.findings.warn(
                    f'the tags in "{self.label}" are numbers without names, so that spans cannot '
                    "be scored; give tags such as B-PER, or a ClassLabel feature with names"
                )
            return
        scheme = self.scheme
        if scheme == "IOB":
            rows = tagged_rows(train, self.text[0], self.label)
            scheme = "IOB1" if check_iob1([tags for _, tags in rows if tags]) else "IOB2"
        kinds = listed(self.kinds)
        self.findings.note(f"{len(self.label_names)} tags in the {scheme} scheme; spans: {kinds}")

    def model_kwargs(self) -> dict[str, Any]:
        """The number and the names of the tags."""
        return named_head(self.label_names)

    def encode(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Tokenizes sentences and gives the first token of each word its tag.

        Rows without words or without tags are dropped and counted, unless the rows have no
        column of tags at all (they are to be predicted).

        Returns:
            ``input_ids``, ``labels`` (-100: no loss), ``words`` (the word that a token begins,
            or -1) as lists, unpadded, and ``truncated`` (bool).

        Raises:
            DataError: A column is missing, no row is left, or a tag is not known.
            ModelError: The tokenizer cannot be aligned with words.
        """
        (column,) = self.text
        require_columns(rows, self.text, "which holds the words here")
        labelled = self.label in features_of(rows)
        found = tagged_rows(rows, column, self.label if labelled else None)
        filled = [
            (place, words, tags)
            for place, (words, tags) in enumerate(found)
            if words and tags is not None
        ]
        places = [place for place, *_ in filled]
        kept = [(words, tags) for _, words, tags in filled]
        if len(kept) < len(found):
            self.findings.warn(
                f"dropped {len(found) - len(kept):,} of {len(found):,} rows without words or "
                "without tags"
            )
        if not kept:
            raise DataError(f"every one of the {len(found):,} rows is without words or tags.")
        numbers = {name: index for index, name in enumerate(self.label_names)}
        unseen: dict[str, int] = {}
        for place, (_, tags) in zip(places, kept, strict=True):
            for tag in tags if labelled else ():
                if tag not in numbers:
                    unseen.setdefault(tag, place)
        if unseen:
            raise DataError(
                f'tag {listed(sorted(unseen))} of column "{self.label}" (first row '
                f"{min(unseen.values()) + 1:,}) never occurs in train. "
                f"The tags are {listed(self.label_names)}."
            )
        aligned = align(
            [words for words, _ in kept], tokenizer, max_length, self.special_tokens, self.findings
        )
        labels = [
            [numbers[tags[word]] if labelled and word >= 0 else UNKNOWN for word in one.words]
            for one, (_, tags) in zip(aligned, kept, strict=True)
        ]
        self._say_lost(aligned, kept, max_length)
        integers = pa.list_(pa.int32())
        table = pa.table(
            {
                "input_ids": pa.array([one.input_ids for one in aligned], integers),
                "labels": pa.array(labels, integers),
                "words": pa.array([one.words for one in aligned], integers),
                "truncated": pa.array([one.truncated for one in aligned]),
            }
        )
        return Dataset(datasets.table.InMemoryTable(with_rows(table, places, len(rows))))

    def _say_lost(
        self, aligned: Sequence[Any], kept: Sequence[tuple[list[str], Any]], max_length: int
    ) -> None:
        """Words that the model does not see, because they are cut off or have no token."""
        cut = [
            (len(words) - sum(word >= 0 for word in one.words), len(words))
            for one, (words, _) in zip(aligned, kept, strict=True)
            if one.truncated
        ]
        if cut:
            self.findings.warn(
                f"{len(cut):,} of {len(kept):,} sentences are longer than {max_length} tokens: "
                f"their last {sum(n for n, _ in cut):,} words are cut off, and are neither learned "
                "nor scored"
            )
        lost = sum(
            len(words) - sum(word >= 0 for word in one.words)
            for one, (words, _) in zip(aligned, kept, strict=True)
            if not one.truncated
        )
        if lost:
            self.findings.warn(f"{lost:,} words have no token of their own and are left out")

    def collate(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, torch.Tensor]:
        """Pads encoded examples at the end.

        Returns:
            ``input_ids``, ``attention_mask`` and ``labels``, ``(n, longest)``, int64.
        """
        ensure_pad_token(tokenizer, self.findings)
        batch = tokenizer.pad(
            [{"input_ids": example["input_ids"]} for example in examples],
            padding_side="right",
            return_tensors="pt",
            return_attention_mask=True,
            verbose=False,
        )
        labels = [torch.tensor(example["labels"], dtype=torch.int64) for example in examples]
        padded = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=UNKNOWN)
        return {**batch, "labels": padded}

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Summed cross entropy over the tagged words of each example, in nats, float32.

        Args:
            logits: ``(n, tokens, tags)``, any float type.
            labels: ``(n, tokens)``, int64.
        """
        losses = F.cross_entropy(
            logits.float().transpose(1, 2), labels, reduction="none", ignore_index=UNKNOWN
        )
        return losses.sum(dim=1)

    def units(self, labels: torch.Tensor) -> torch.Tensor:
        """The tagged words of each example."""
        return (labels != UNKNOWN).sum(dim=1)

    def count(self, examples: Sequence[Example]) -> int:
        """All tagged words."""
        return sum(label != UNKNOWN for example in examples for label in example["labels"])

    def keep(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Counts of each example.

        Returns:
            ``(n, 1 + 3 * kinds)`` int64: words tagged right, and of each kind of span how many
            are right, predicted and true; and ``(n,)`` the words, ``UNKNOWN`` where none is
            tagged.
        """
        said, true = logits.argmax(dim=-1).cpu().numpy(), labels.cpu().numpy()
        mask = true != UNKNOWN
        counts = np.zeros((len(true), 1 + 3 * len(self.kinds)), dtype=np.int64)
        for row in range(len(true)):
            predicted, wanted = said[row][mask[row]], true[row][mask[row]]
            found, right = self._spans(predicted), self._spans(wanted)
            self._count(counts[row], (predicted == wanted).sum(), found, right)
        words = mask.sum(axis=1)
        return counts, np.where(words == 0, UNKNOWN, words)

    def _count(self, counts: np.ndarray, words: int, found: set[Span], right: set[Span]) -> None:
        """Fills an example's row of what `keep` returns."""
        counts[0] = words
        for column, some in enumerate((found & right, found, right)):
            for kind, *_ in some:
                counts[1 + 3 * self._place[kind] + column] += 1

    def _spans(self, tags: np.ndarray) -> set[Span]:
        names = [self.label_names[tag] for tag in tags]
        if self.scheme is None:
            return {(name, index, index) for index, name in enumerate(names)}
        return set(spans(names))

    @property
    def metrics(self) -> dict[str, Metric]:
        """Spans: F1, precision and recall over all of them, accuracy of words.

        Single tags (parts of speech): accuracy, and F1 averaged over the tags.
        """
        if self.scheme is None:
            return dict(metrics.OF_TAGS)
        return dict(metrics.OF_SPANS)

    def predicted(
        self, outputs: np.ndarray | Sequence[np.ndarray], labels: np.ndarray, encoded: Dataset
    ) -> Predicted | None:
        """A tag for each word that the model saw; right if all of them are.

        The probability of an answer is the product of those of its tags.
        """
        true, said, chances = [], [], []
        for values, wanted in zip(outputs, encoded["labels"], strict=True):
            known = np.flatnonzero(np.asarray(wanted) != UNKNOWN)
            probabilities = softmax(np.asarray(values, dtype=np.float64)[known], axis=-1)
            true.append([self.label_names[wanted[place]] for place in known.tolist()])
            said.append([self.label_names[int(tag)] for tag in probabilities.argmax(axis=-1)])
            chances.append(probabilities.max(axis=-1))
        return Predicted(
            labels=true,
            answers=said,
            right=np.array([a == b for a, b in zip(true, said, strict=True)]),
            probability=np.array([float(row.prod()) for row in chances]),
            probabilities=[row.tolist() for row in chances],
        )

    def constant(self, encoded: Dataset) -> Constant:
        """The most frequent tag; of spans that is mostly the one outside, which finds none.

        Then a model is also held against whatever single tag has the highest F1.
        """
        true = [row[row != UNKNOWN] for row in map(np.array, encoded["labels"])]
        spans_of = [self._spans(row) for row in true]
        often = np.bincount(np.concatenate(true), minlength=len(self.label_names))
        most = int(often.argmax())
        kept, answer = self._always(most, true, spans_of), f'"{self.label_names[most]}"'
        if self.scheme is None:
            return Constant(answer, kept)
        others = (self._always(tag, true, spans_of) for tag in range(len(self.label_names)))
        right, _, total = metrics.totals(kept)
        spans_found = f"{right:,} of the {total:,} spans" if right else "no span"
        return Constant(
            answer,
            kept,
            sentence=(
                f"Always answering {answer} would be right on {often[most] / often.sum():.1%} of "
                f"the words and find {spans_found}."
            ),
            strongest=max(others, key=lambda counts: metrics.f1(counts, counts)),
        )

    def _always(
        self, tag: int, true: Sequence[np.ndarray], spans_of: Sequence[set[Span]]
    ) -> np.ndarray:
        """What `keep` would return for one tag for all words.

        Args:
            tag: Its number.
            true: The tags of each example.
            spans_of: The spans of each example.
        """
        counts = np.zeros((len(true), 1 + 3 * len(self.kinds)), dtype=np.int64)
        found = functools.cache(lambda words: self._spans(np.full(words, tag)))
        for row, (tags, right) in enumerate(zip(true, spans_of, strict=True)):
            self._count(counts[row], (tags == tag).sum(), found(len(tags)), right)
        return counts

    def tables(self, kept: np.ndarray, labels: np.ndarray) -> list[Table]:
        """Precision, recall and F1 of each kind of span, or of each tag."""
        rows: list[list[Cell]] = []
        for kind, (right, said, true) in zip(self.kinds, metrics.by_kind(kept), strict=True):
            precision, recall, f1 = right / max(said, 1), right / max(true, 1), 0.0
            if right:
                f1 = 2 * right / (said + true)
            rows.append([kind, float(precision), float(recall), float(f1), int(true)])
        what = "tag" if self.scheme is None else "span"
        columns = [what, "precision", "recall", "f1", f"{what}s"]
        return [scores_of_classes(what, columns, rows)]

    def rows(self, texts: Sequence[Any]) -> Dataset:
        """Texts to predict, as lists of words: given so, or split at spaces and punctuation."""
        found = [_WORD.findall(text) if isinstance(text, str) else list(text) for text in texts]
        empty = next((i for i, words in enumerate(found) if not words), None)
        if empty is not None:
            raise DataError(f"text {empty + 1} of {len(found):,} is empty; there is no answer.")
        check_texts(found)
        return Dataset.from_dict({self.text[0]: found})

    def decode(
        self,
        logits: Sequence[np.ndarray] | np.ndarray,
        encoded: Dataset | None = None,
        rows: Dataset | None = None,
    ) -> list[Json]:
        """The spans of each example, and the tag of each word (``None``: it was cut off)."""
        if encoded is None or rows is None:
            raise DataError("token classification needs the rows beside the logits.")
        result = []
        for values, starts, words in zip(
            logits, encoded["words"], column_values(rows, self.text[0]), strict=True
        ):
            tags: list[str | None] = [None] * len(words)
            sure = [1.0] * len(words)
            for position, word in enumerate(starts):
                if word >= 0:
                    chances = softmax(np.asarray(values[position], dtype=np.float64))
                    tags[word] = self.label_names[int(chances.argmax())]
                    sure[word] = float(chances.max())
            result.append(self._answer(words, tags, sure))
        return result

    def _answer(self, words: list[str], tags: list[str | None], sure: list[float]) -> Json:
        if self.scheme is None:
            said = " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))
            return {"label": said, "words": words, "tags": tags}
        found = [
            {
                "type": kind,
                "text": " ".join(words[first : last + 1]),
                "first_word": first,
                "last_word": last,
                "probability": min(sure[first : last + 1]),
            }
            for kind, first, last in spans([tag or OUTSIDE for tag in tags])
        ]
        said = ", ".join(f"{span['text']} ({span['type']})" for span in found)
        return {"label": said, "spans": found, "words": words, "tags": tags}

    def check(self, model: PreTrainedModel) -> None:
        """Refuses a live model without a head for these tags.

        Raises:
            ModelError: It has another number of outputs.
        """
        wanted = len(self.label_names)
        if model.config.num_labels != wanted:
            raise ModelError(
                f"{type(model).__name__} has {model.config.num_labels} labels and the data has "
                f"{wanted} ({listed(self.label_names)}). Load it with "
                f"AutoModelForTokenClassification.from_pretrained(..., num_labels={wanted})."
            )

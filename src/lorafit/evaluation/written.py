"""How good texts are that a model wrote: exact match, ROUGE-L, BLEU, with intervals.

Every metric here is a function of numbers that are summed over the texts: right answers, F
measures, counts of n-grams. A resample of the texts is then a weighted sum, so that intervals
and paired differences of all of them come from one product of matrices.

The texts are the sampling units. ROUGE-L is rouge-score's (Lin 2004), BLEU is sacreBLEU's with
its default settings (Post 2018, arXiv 1804.08771).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from lorafit.evaluation.bootstrap import resampled_sums
from lorafit.evaluation.compare import as_difference
from lorafit.evaluation.intervals import of_difference, of_metric, percentiles
from lorafit.evidence import Difference, Interval, MetricInfo

Numbers = dict[str, np.ndarray]
"""For each metric what is summed: ``(texts, k)``, float64."""


class _Words:
    """Runs of letters and digits in lower case.

    What rouge-score's own tokenizer finds in English; that one drops all letters beyond a to z.
    """

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())


def measured(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Numbers:
    """Compares each answer with its references; the best one counts for ROUGE-L.

    Args:
        answers: What a model wrote, ``n`` texts.
        references: For each at least one right text.
    """
    # Here: only who writes texts needs these packages and their 40 MB.
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

    rouge, bleu = RougeScorer(["rougeL"], tokenizer=_Words()), BLEU(effective_order=True)
    rows: dict[str, list[list[float]]] = {name: [] for name in _METRICS}
    for answer, right in zip(answers, references, strict=True):
        exact = any(_plain(answer) == _plain(text) for text in right)
        rows["exact_match"].append([float(exact), 1.0])
        found = rouge.score_multi(list(right), answer)["rougeL"].fmeasure
        rows["rouge_l"].append([float(found), 1.0])
        counts = bleu.sentence_score(answer, list(right))
        rows["bleu"].append([*counts.counts, *counts.totals, counts.sys_len, counts.ref_len])
    return {name: np.array(values, dtype=np.float64) for name, values in rows.items()}


def intervals(numbers: Numbers, confidence: float, seed: int = 0) -> dict[str, Interval]:
    """Returns each metric with its interval (percentile bootstrap over the texts)."""
    result = {}
    for name, (metric, info) in _METRICS.items():
        drawn = resampled_sums(metric, numbers[name], np.random.default_rng(seed))
        value = metric(numbers[name].sum(axis=0))
        found = percentiles(value, drawn, len(numbers[name]), confidence)
        result[name] = of_metric(found, info)
    return result


def paired(
    base: Numbers, tuned: Numbers, confidence: float, seed: int = 0
) -> dict[str, Difference]:
    """Returns tuned minus base; both answered the same prompts in the same order."""
    result = {}
    for name, (metric, info) in _METRICS.items():
        value = metric(tuned[name].sum(axis=0)) - metric(base[name].sum(axis=0))
        # The same seed draws the same texts for both.
        before, after = (
            resampled_sums(metric, numbers[name], np.random.default_rng(seed))
            for numbers in (base, tuned)
        )
        found = percentiles(value, after - before, len(base[name]), confidence)
        same = np.array_equal(base[name], tuned[name])
        result[name] = as_difference(of_difference(found, info, same))
    return result


def infos() -> dict[str, MetricInfo]:
    """What each metric is."""
    return {name: info for name, (_, info) in _METRICS.items()}


def _plain(text: str) -> str:
    return " ".join(text.split())


def _mean(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1])


def _bleu(sums: np.ndarray) -> float:
    """Corpus BLEU from 0 to 100."""
    from sacrebleu.metrics.bleu import BLEU

    counts = [round(value) for value in sums]
    *ngrams, written, right = counts
    correct, total = ngrams[: len(ngrams) // 2], ngrams[len(ngrams) // 2 :]
    found = BLEU.compute_bleu(correct, total, written, right, smooth_method="exp")
    return float(found.score)


_METRICS: dict[str, tuple[Callable[[np.ndarray], float], MetricInfo]] = {
    "exact_match": (
        _mean,
        MetricInfo(
            "exact match",
            "share of examples of which everything is right",
            form="share",
            low=0,
            high=1,
        ),
    ),
    "rouge_l": (
        _mean,
        MetricInfo(
            "ROUGE-L",
            "longest run of words in common with the right answer, as F measure; 1 is perfect",
            low=0,
            high=1,
        ),
    ),
    "bleu": (
        _bleu,
        MetricInfo(
            "BLEU",
            "word sequences in common with the right answer (sacreBLEU, 0 to 100)",
            low=0,
            high=100,
        ),
    ),
}
"""Each as a function of sums, and what it is."""

"""Which prompts of a split a model is to answer, and what its answers are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorafit.evaluation import written
from lorafit.evidence import Difference, Interval, MetricInfo, Sample
from lorafit.tasks.parts.generative import Prompt

SAMPLES = 5
"""Answers that are kept to be read."""


@dataclass(frozen=True)
class Question:
    """A prompt with all answers that the data has to it.

    Attributes:
        prompt: What the model is asked.
        references: The right answers; none for plain text.
        places: Of the prompts that are the same, in the data.
    """

    prompt: Prompt
    references: tuple[str, ...]
    places: tuple[int, ...] = ()


def choose_questions(prompts: Sequence[Prompt], count: int) -> list[Question]:
    """Returns different prompts, evenly spaced in the data.

    A prompt that stands there several times, each time with another answer, is asked once:
    each of these answers is right.

    Args:
        prompts: Of a split.
        count: Questions at most.
    """
    found: dict[tuple[int, ...], list[int]] = {}
    for place, prompt in enumerate(prompts):
        found.setdefault(tuple(prompt.input_ids), []).append(place)
    different = list(found.values())
    chosen = np.linspace(0, len(different) - 1, min(count, len(different))).round().astype(int)
    questions = []
    for places in (different[number] for number in chosen):
        same = [prompts[place] for place in places]
        references = tuple(one.reference for one in same if one.reference is not None)
        questions.append(Question(same[0], references, tuple(places)))
    return questions


@dataclass(frozen=True)
class Answered:
    """What both models' answers are worth.

    Attributes:
        base: The metrics of one; empty where there are no right answers to compare with.
        tuned: Those of the other.
        paired: Tuned minus base.
        infos: What each metric is.
        samples: Some of the answers.
    """

    base: dict[str, Interval]
    tuned: dict[str, Interval]
    paired: dict[str, Difference]
    infos: dict[str, MetricInfo]
    samples: list[Sample]


def compare_answers(
    questions: Sequence[Question],
    base: Sequence[str],
    tuned: Sequence[str],
    confidence: float,
    seed: int,
) -> Answered:
    """Returns metrics of both models' answers, their paired differences, and samples.

    Args:
        questions: What both were asked.
        base: The answers of one.
        tuned: The answers of the other.
        confidence: Level of the intervals.
        seed: Of the resampling.
    """
    places = np.linspace(0, len(questions) - 1, min(SAMPLES, len(questions))).round().astype(int)
    samples = [
        Sample(
            prompt=questions[place].prompt.text,
            reference=next(iter(questions[place].references), None),
            base=base[place],
            tuned=tuned[place],
        )
        for place in places
    ]
    if not all(question.references for question in questions):
        return Answered({}, {}, {}, {}, samples)
    references = [question.references for question in questions]
    before, after = (written.measured(answers, references) for answers in (base, tuned))
    return Answered(
        base=written.intervals(before, confidence, seed),
        tuned=written.intervals(after, confidence, seed),
        paired=written.paired(before, after, confidence, seed),
        infos=written.infos(),
        samples=samples,
    )

"""What a card says of the model in sentences: what it does, what it is for, what to know."""

from __future__ import annotations

from collections.abc import Sequence

from lorafit.evidence import Evaluation, Table
from lorafit.evidence.confusion import class_scores, largest_confusions
from lorafit.evidence.headline import simple_sentence
from lorafit.evidence.same_answer import baseline_of, never_predicted
from lorafit.export.card.card import Card
from lorafit.export.card.names import data_name
from lorafit.export.card.text import escaped, quoted_name

_MOST_CONFUSIONS = 5

_FEW = 30
"""Test examples of a label below which its scores say little."""


def does(card: Card) -> str:
    """What the model does, as the end of a sentence."""
    names = getattr(card.task, "label_names", None) or []
    known = {
        "sequence_classification": f"gives a text one of {len(names)} labels",
        "multi_label_classification": f"gives a text any of {len(names)} labels",
        "regression": "gives a text a number",
        "token_classification": f"gives each word of a text one of {len(names)} tags",
        "causal_lm": "goes on with a text",
        "seq2seq": "reads one text and writes another",
    }
    return known.get(card.task.name, f"does {card.task.name.replace('_', ' ')}")


def weights(card: Card) -> str:
    """Which step the weights are of; empty: not known."""
    trained = {} if card.evaluation is None else card.evaluation.training
    steps, best = card.steps or trained.get("steps"), trained.get("best_step")
    if not steps:
        return ""
    if not card.config.train.load_best_model_at_end or best is None:
        return f"step {steps:,} of {steps:,}, the last"
    return f"step {best:,} of {steps:,}, where the validation loss was lowest"


def same_answer(evaluation: Evaluation | None) -> str:
    """What always the same answer would come to; empty: there is none."""
    found = None if evaluation is None else baseline_of(evaluation)
    if evaluation is None or found is None:
        return ""
    if evaluation.metric is None or not evaluation.info(evaluation.metric).is_share:
        return escaped(simple_sentence(evaluation))
    shares = [value for name, value in found.metrics.items() if evaluation.info(name).is_share]
    if not shares:
        return ""
    answer = escaped(found.answer)
    return f"Always answering {answer} would be right {100 * shares[0]:.1f} % of the time."


def confusions(tables: Sequence[Table]) -> list[str]:
    """The largest confusions, a phrase each."""
    return [
        f"{count:,} x {quoted_name(true)} called {quoted_name(said)}"
        for true, said, count in largest_confusions(tables, _MOST_CONFUSIONS)
    ]


def use(card: Card) -> str:
    """What it is for."""
    columns = " and ".join(quoted_name(name) for name in card.task.text)
    one = len(card.task.text) == 1
    return (
        f"Texts like those it was trained on (column{'' if one else 's'} {columns} of "
        f"{escaped(data_name(card))}). For other texts, another language or another time, measure "
        "it first: `lorafit evaluate` does."
    )


def limits(card: Card) -> list[str]:
    """What a user of the model has to know, a sentence each."""
    found = []
    evaluation = card.evaluation
    if evaluation is not None:
        found.append(
            f"The scores are of {int(evaluation.n or 0):,} held-out examples of the same data. "
            "On texts of another origin they are likely lower."
        )
        scores, never = class_scores(evaluation.tables), never_predicted(evaluation)
        if never:
            found.append(f"Never answered on these: {', '.join(map(quoted_name, never))}.")
        rare = [] if scores is None else [
            str(row[0]) for row in scores["rows"] if isinstance(row[-1], int) and row[-1] < _FEW
        ]  # fmt: skip
        if rare:
            names = ", ".join(map(quoted_name, rare[:8]))
            names += f" and {len(rare) - 8} more" if len(rare) > 8 else ""
            found.append(f"Fewer than {_FEW} test examples, so the scores say little: {names}.")
    if card.task.name in ("causal_lm", "seq2seq"):
        found.append("What it writes may be wrong or offensive; check it before it is relied on.")
    elif card.task.name != "regression":
        found.append(
            "It answers every text, also one that none of its labels fits. Its probabilities were "
            "not calibrated."
        )
    found.append(f"Inputs of more than {card.max_length:,} tokens are cut.")
    found.append("It inherits the biases of the base model and of the data.")
    return found

"""Which task the columns and the model are for. Each task says so itself (`Task.fits`)."""

from __future__ import annotations

from datasets import DatasetDict

from lorafit.config import DataConfig
from lorafit.data.columns.chats import (
    find_messages,
    refuse_chats_of_other_names,
    refuse_unread_chats,
)
from lorafit.data.columns.choose import check_asked, described
from lorafit.data.columns.prompts import refuse_preferences
from lorafit.data.findings import UNKEPT, Findings
from lorafit.errors import DataError
from lorafit.tasks import tasks
from lorafit.tasks.base import Fit, ModelKind, Task

CHAT_TASK = "causal_lm"
"""The task that learns from conversations."""


def guess_task(
    splits: DatasetDict, config: DataConfig, model: ModelKind, findings: Findings = UNKEPT
) -> tuple[type[Task], str]:
    """Asks every task whether it fits; says which does, and why.

    Args:
        splits: The data; ``train`` is looked at, or the first split there is.
        config: ``text`` and ``label`` count.
        model: The kind of model.
        findings: Takes which task it is, and why.

    Returns:
        The task's class and the reason.

    Raises:
        DataError: No task fits, or more than one does; the message names them. Or a column
            that was asked for does not exist.
    """
    rows = splits["train" if "train" in splits else next(iter(splits))]
    check_asked(rows, config)
    refuse_preferences(rows, config)
    refuse_unread_chats(rows, config)
    found = {name: fit for name in tasks if (fit := tasks[name].fits(rows, config, model))}
    best = {name: fit for name, fit in found.items() if fit.certain} or found
    chats = None if config.text or config.label else find_messages(rows, config)
    if chats is not None and CHAT_TASK not in best:
        raise DataError(
            f'the column "{chats}" holds conversations, from which only a language model learns; '
            f"the model is {model}. Take one, or name other columns: --text COLUMN --label COLUMN."
        )
    if not best:
        if model.generates:
            refuse_chats_of_other_names(rows, config)
        wanted = "; ".join(
            f"{name} needs {tasks[name].needs}" for name in tasks if hasattr(tasks[name], "needs")
        )
        raise DataError(
            f"no task fits. The columns are {described(rows)}, and the model is {model}. "
            f"{wanted}. Name the columns (--text, --label), or choose with --task."
        )
    if len(best) > 1:
        raise DataError(
            f"more than one task fits the columns {described(rows)}: {_listed(best)}. "
            f"Choose one with --task, for example --task {next(iter(best))}."
        )
    ((name, fit),) = best.items()
    findings.note(f"task: {name.replace('_', ' ')} ({fit.reason})")
    return tasks[name], fit.reason


def _listed(fits: dict[str, Fit]) -> str:
    return ", ".join(f"{name} ({fit.reason})" for name, fit in fits.items())

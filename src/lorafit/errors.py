"""The errors lorafit raises.

Every error also inherits the standard-library exception that fits it, so that
``except ValueError`` keeps working. A message has up to three parts: what we got,
what would be right, and what to do next. ``exit_code`` is what the command line
returns: 2 for wrong usage (the input has to change), 1 for a failure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LorafitError(Exception):
    """Base class of everything lorafit raises on purpose."""

    exit_code = 1
    _typed: str | None = None

    @property
    def typed(self) -> str:
        """The message as the command line says it, with flags."""
        return str(self) if self._typed is None else self._typed

    def speak(self, message: str) -> None:
        """Says it in other words, for a caller who types none; `typed` stays."""
        self._typed = self.typed
        self.args = (message, *self.args[1:])


class ConfigError(LorafitError, ValueError):
    """A setting is unknown, of the wrong type, or contradicts another one."""

    exit_code = 2


class TargetError(ConfigError):
    """A pattern, layer index or module name selects nothing in the model."""


class DataError(LorafitError, ValueError):
    """The data cannot be read, or cannot be trained on."""

    exit_code = 2


class ModelError(LorafitError, ValueError):
    """The model cannot be found, loaded or adapted."""

    exit_code = 2


class AdapterError(LorafitError, ValueError):
    """An adapter cannot be saved, loaded, or does not fit the model."""

    exit_code = 2


class RunError(LorafitError, OSError):
    """A run folder is missing, incomplete, or cannot be written."""

    exit_code = 2


class TrainingError(LorafitError, RuntimeError):
    """Training cannot go on."""


class DivergenceError(TrainingError):
    """The loss or a gradient is not finite."""


class HandoffError(LorafitError, RuntimeError):
    """The saved or the merged adapter does not compute what the live one computes."""


def clause(error: BaseException) -> str:
    """What an error says, without the full stop that the sentence around it has.

    >>> clause(OSError("The file is no zip file.")), clause(KeyError("facts"))
    ('The file is no zip file', "'facts'")
    """
    return str(error).strip().rstrip(".").rstrip()


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Returns `` Did you mean "x"?`` for the closest candidates, or ``""``.

    One letter is close to nothing: ``r`` is half of ``lr`` and means something else.

    >>> did_you_mean("q_proj", ["q_lin", "v_lin", "out_lin"])
    ' Did you mean "q_lin"?'
    """
    spelled = {
        candidate.lower(): candidate for candidate in sorted(set(candidates)) if len(candidate) > 1
    }
    close = difflib.get_close_matches(name.lower(), spelled, n=2, cutoff=0.5)
    if not close:
        return ""
    return " Did you mean " + " or ".join(f'"{spelled[match]}"' for match in close) + "?"

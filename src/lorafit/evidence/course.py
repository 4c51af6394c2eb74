"""How a training went: how long it was, and whether it should have been longer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Course:
    """How long a training was, and whether that was enough.

    Attributes:
        steps: Optimizer steps that were taken.
        epochs: The same in passes over the training examples.
        most_steps: The most there might have been, where the validation loss decided; ``None``:
            the number was known.
        falling: Whether the validation loss was still falling; ``None``: too few evaluations to
            say.
        setting: Name of the setting to try then.
        value: The value to try.
    """

    steps: int
    epochs: float
    most_steps: int | None = None
    falling: bool | None = None
    setting: str | None = None
    value: float | None = None

    @property
    def advice(self) -> str | None:
        """One sentence; ``None``: there is nothing to try."""
        if not self.falling or self.setting is None or self.value is None:
            return None
        flag = self.setting.replace("_", "-")
        return f"the validation loss was still falling at the end: try --{flag} {self.value:g}"

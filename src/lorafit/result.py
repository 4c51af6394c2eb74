"""A run as callers get it: what its folder holds, and what one does with its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from lorafit import run
from lorafit.trust import TrustKeywords

if TYPE_CHECKING:
    from lorafit.evidence.evaluated import Evaluated


class Run(run.Run):
    """A run: what its folder holds, and what one does with its model.

    Args:
        path: The folder, or just the run's name below ``dir``.
        dir: Folder of the runs, for names.

    Raises:
        RunError: There is none, or the folder is not a run.
    """

    # What needs a model or a page is imported when it is asked for: opening a run is quick.

    def predict(
        self,
        texts: Any,
        *,
        device: str = "auto",
        progress: bool = True,
        **trust: Unpack[TrustKeywords],
    ) -> list[dict[str, Any]]:
        """Predicts with the tuned model; see `lorafit.predict`.

        The model is loaded at each call: for many, `lorafit.load` the run once.

        Args:
            texts: As for `lorafit.predict`.
            device: As for `lorafit.load`.
            progress: As for `lorafit.predict`.
            **trust: As for `lorafit.load`.
        """
        from lorafit.using import predict

        return predict(self, texts, device=device, progress=progress, **trust)

    def evaluate(
        self,
        data: Any = None,
        out: str | Path | None = None,
        *,
        encoding: str | None = None,
        device: str = "auto",
        progress: bool = True,
        **trust: Unpack[TrustKeywords],
    ) -> Evaluated:
        """Scores the base and the tuned model; see `lorafit.evaluate`.

        Args:
            data: As for `lorafit.evaluate`.
            out: As for `lorafit.evaluate`.
            encoding: As for `lorafit.evaluate`.
            device: As for `lorafit.load`.
            progress: As for `lorafit.evaluate`.
            **trust: As for `lorafit.load`.
        """
        from lorafit.using import evaluate

        return evaluate(
            self, data, out, encoding=encoding, device=device, progress=progress, **trust
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict."""
        from lorafit.report.card import run_card

        return run_card(self.path)

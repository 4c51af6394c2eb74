"""``report_to``: experiment trackers, through accelerate."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration

from lorafit.config import Config
from lorafit.errors import ConfigError
from lorafit.run import Run

log = logging.getLogger(__name__)

PROJECT = "lorafit"


def check_trackers(names: Sequence[str]) -> None:
    """Makes sure that the trackers' packages are installed; call it before anything slow.

    Raises:
        ConfigError: One is missing; the message says what to install.
    """
    available = {str(tracker) for tracker in get_available_trackers()}
    missing = [name for name in names if name not in available]
    if missing:
        raise ConfigError(
            f"train.report_to names {', '.join(missing)}, which is not installed. "
            f"Install it with: pip install {' '.join(missing)}"
        )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested settings to ``{"train.learning_rate": 0.002, ...}``, as trackers want them."""
    flat: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            plain = isinstance(value, str | int | float | bool)
            flat[prefix + name] = value if plain else str(value)
    return flat


class Trackers:
    """The trackers of a run, as a context; with none asked for, every call does nothing.

    Args:
        config: ``train.report_to``, and everything as hyperparameters.
        run: Its name is the trackers' run name; TensorBoard's files go to its folder.
        enabled: ``False`` in processes that do not report.

    Raises:
        ConfigError: A package is missing, or there is no run folder.
    """

    def __init__(self, config: Config, run: Run | None, enabled: bool = True) -> None:
        self._trackers: list[Any] = []
        names = config.train.report_to
        if not names or not enabled:
            return
        check_trackers(names)
        if run is None:
            raise ConfigError("train.report_to needs a run folder")
        folder = str(run.path)
        accelerator = Accelerator(
            log_with=list(names),
            project_config=ProjectConfiguration(
                project_dir=folder, logging_dir=str(run.path / "tensorboard")
            ),
        )
        # A resumed run goes on in the same wandb run.
        identity = hashlib.sha256(str(run.path.resolve()).encode()).hexdigest()[:8]
        accelerator.init_trackers(
            PROJECT,
            config=flatten(config.model_dump(mode="json")),
            init_kwargs={
                "wandb": {
                    "name": run.name,
                    "dir": folder,
                    "id": f"{run.name[:50]}-{identity}",
                    "resume": "allow",
                },
                "trackio": {"name": run.name, "resume": "allow"},
                "mlflow": {"run_name": run.name},
            },
        )
        self._trackers = accelerator.trackers

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def log(self, line: Mapping[str, Any], step: int) -> None:
        """Sends one line of the metrics."""
        for tracker in self._trackers:
            tracker.log({name: value for name, value in line.items() if name != "step"}, step=step)

    def close(self) -> None:
        """Ends the trackers' runs; a tracker that fails here is only reported."""
        # Not Accelerator.end_training: it would also end the group of processes.
        for tracker in self._trackers:
            try:
                tracker.finish()
            except Exception as error:  # noqa: BLE001 of packages that raise anything
                log.warning("%s did not close: %s", tracker.name, error)
        self._trackers = []

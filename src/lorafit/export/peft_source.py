"""Where an adapter's files are, and their tensors: local folders and the Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from safetensors import SafetensorError, safe_open

from lorafit.errors import AdapterError
from lorafit.export.peft_config import CONFIG_FILE
from lorafit.hub import asked

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"


def read_tensors(folder: Path, *, source: str | None = None) -> dict[str, torch.Tensor]:
    """Reads an adapter's tensors, under their names in the file.

    Raises:
        AdapterError: There are none, only pickled ones, a number is not finite, or the file is
            damaged.
    """
    source = source or str(folder)
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        if (folder / PICKLE_FILE).is_file():
            raise AdapterError(
                f"{source} has only {PICKLE_FILE}, a pickle, which can run any code when it is "
                f"read. Convert it where you trust it: load it with PEFT and `save_pretrained` "
                f"again, which writes {WEIGHTS_FILE}."
            )
        raise AdapterError(f"{source} has no {WEIGHTS_FILE}: the adapter is incomplete.")
    try:
        with safe_open(file, framework="pt") as weights:
            tensors = {key: weights.get_tensor(key) for key in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AdapterError(
            f"{source}: {WEIGHTS_FILE} is damaged or not safetensors ({error}); "
            "copy or save it again."
        ) from None
    for key, tensor in tensors.items():
        # Float8 has no test of its own. The sum of finite numbers may not be, so not that.
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            raise AdapterError(
                f"{source}: {key} in {WEIGHTS_FILE} has numbers that are not finite (NaN or "
                "infinity); whatever it computes would have none either."
            )
    return tensors


def locate(
    path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    **hub: Any,
) -> Path:
    """The local folder of an adapter; from the Hub only the two files are fetched.

    Args:
        path: A folder or a Hub id.
        revision: Branch, tag or commit on the Hub.
        subfolder: Where the adapter stands inside ``path``.
        **hub: Further arguments of `huggingface_hub.snapshot_download` (``token`` ...).

    Raises:
        AdapterError: There is no such folder, and no such repository that we can reach.
    """
    folder = Path(path)
    if folder.is_dir():
        folder = folder / (subfolder or "")
        if not folder.is_dir():
            raise AdapterError(f'"{path}" has no subfolder "{subfolder}".')
        return folder
    inside = f"{subfolder}/" if subfolder else ""
    try:
        with asked():
            fetched = snapshot_download(
                str(path),
                revision=revision,
                allow_patterns=[inside + CONFIG_FILE, inside + WEIGHTS_FILE],
                **hub,
            )
    except HFValidationError:
        raise AdapterError(
            f'there is no folder "{path}", and this is not a Hub id either.'
        ) from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError):
        raise AdapterError(
            f'there is no folder "{path}", and as a Hub id it is not in the cache and the Hub '
            "cannot be reached (offline, or HF_HUB_OFFLINE is set). Check the spelling, or go "
            "online once."
        ) from None
    except (HfHubHTTPError, EntryNotFoundError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AdapterError(
            f'there is no folder "{path}", and the Hub has no adapter of that name: {reason}'
        ) from None
    return Path(fetched) / (subfolder or "")

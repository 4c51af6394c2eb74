"""Where a model's files fail: checks before reading, and one clear line for what goes wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from packaging.version import Version
from safetensors import SafetensorError
from transformers import PreTrainedConfig

from lorafit.errors import LorafitError, ModelError, did_you_mean
from lorafit.trust import built_in

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_EXPERTS = (None, "batched_mm", "eager", "grouped_mm")
"""What transformers 5 has for mixtures of experts; the others (deepgemm, sonicmoe) it fetches."""
_PICKLED = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def check_folder(folder: Path, gguf_file: str | None, name: str) -> None:
    """Refuses a folder that holds no model that can be read safely.

    Raises:
        ModelError: It is an adapter, lacks its config or weights, or has pickled weights only.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ModelError(f'"{name}" cannot be read: no permission.')
    files = sorted(entry.name for entry in folder.iterdir())
    ggufs = [file for file in files if file.lower().endswith(".gguf")]
    if gguf_file is not None:
        try:
            there = (folder / gguf_file).is_file()
        except OSError:  # a name longer than names can be
            there = False
        if not there:
            raise ModelError(
                f'"{name}" has no file "{gguf_file:.200}".{did_you_mean(gguf_file, ggufs)}'
                f" Its GGUF files: {', '.join(ggufs) or 'none'}."
            )
        return
    if "config.json" not in files:
        if "adapter_config.json" in files:
            raise ModelError(
                f'"{name}" is an adapter, not a model. Give the model it was trained on '
                "(base_model_name_or_path in its adapter_config.json)."
            )
        if ggufs:
            raise ModelError(
                f'"{name}" has no config.json, but GGUF files. Set gguf_file to one of them: '
                f"{', '.join(ggufs)}."
            )
        shown = ", ".join(files[:8]) or "nothing"
        raise ModelError(f'"{name}" is not a model: it has no config.json. It has {shown}.')
    if "adapter_config.json" in files:
        raise ModelError(
            f'"{name}" holds an adapter beside a model (adapter_config.json); transformers would '
            "load both. Give a folder with the model only."
        )
    if any(file in files for file in _WEIGHTS):
        return
    pickled = sorted(entry.name for pattern in _PICKLED for entry in folder.glob(pattern))
    if pickled:
        raise ModelError(
            f'"{name}" has pickled weights only ({", ".join(pickled[:3])}), which can run code '
            "when they are read, and are refused. If you trust them, convert them once: "
            "AutoModel.from_pretrained(folder, use_safetensors=False).save_pretrained(new_folder)."
        )
    raise ModelError(
        f'"{name}" has no weights: there is no model.safetensors. It has {", ".join(files[:8])}.'
    )


GGUF_NEEDS = Version("5.6")
"""transformers before it (5.0 to 5.5.4 were tried) reads the tokenizer of a Llama as that of Code
Llama, with five tokens that the file does not have."""


def check_gguf(name: str) -> None:
    """Refuses a GGUF file where its tokenizer would not be the file's.

    Raises:
        ModelError: transformers is too old.
    """
    if Version(transformers.__version__) < GGUF_NEEDS:
        raise ModelError(
            f'"{name}" is a GGUF file, and transformers {transformers.__version__} misreads the '
            f'tokenizers of such files: pip install "transformers>={GGUF_NEEDS}".'
        )


def check_attention(config: PreTrainedConfig, name: str) -> None:
    """Refuses a model whose own ``config.json`` asks for a kernel.

    Args:
        config: As it was read, before anything is set on it.
        name: What to call the model in messages.

    Raises:
        ModelError: It names an attention that is not built in.
    """
    for wanted in _asked(config, "_attn_implementation"):
        if not built_in(wanted):
            raise ModelError(
                f'the config.json of "{name}" asks for the attention {wanted!r:.80}, which may be '
                "code that is fetched and run. Choose one yourself: --attn-implementation sdpa."
            )


def check_experts(config: PreTrainedConfig, name: str) -> None:
    """The same for the experts of a mixture: refuses a kernel.

    Raises:
        ModelError: It names a way to compute them that is not built in.
    """
    for wanted in _asked(config, "_experts_implementation"):
        if wanted not in _EXPERTS:
            raise ModelError(
                f'the config.json of "{name}" asks for the experts {wanted!r:.80}, which may be '
                "code that is fetched and run. Take experts_implementation out of it."
            )


def _asked(config: PreTrainedConfig, what: str) -> Iterator[Any]:
    """An attribute of a configuration and of the ones inside it."""
    yield getattr(config, what, None)
    for name in getattr(config, "sub_configs", None) or {}:
        inner = getattr(config, name, None)
        if isinstance(inner, PreTrainedConfig):
            yield from _asked(inner, what)


@contextlib.contextmanager
def translated(name: str, revision: str | None) -> Iterator[None]:
    """Turns whatever goes wrong while loading into one `ModelError`.

    The cause is kept for ``--debug``.
    """
    try:
        yield
    except LorafitError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        raise ModelError(_explain(error, name, revision)) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _explain(error: BaseException, name: str, revision: str | None) -> str:
    chain = list(_chain(error))
    text = " ".join(str(link) for link in chain)

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if caused_by(GatedRepoError):
        return (
            f'"{name}" is gated on the Hub. Ask for access on its page '
            f"(https://huggingface.co/{name}), then log in: hf auth login."
        )
    if caused_by(RevisionNotFoundError):
        return f'"{name}" has no revision "{revision}" on the Hub. Check its branches and tags.'
    if caused_by(RepositoryNotFoundError):
        return (
            f'there is no model "{name}": not a local folder, and not on the Hub (or it is '
            "private: hf auth login). Check the spelling."
        )
    if caused_by(HFValidationError):
        return f'"{name}" is neither a local folder nor a Hub id (owner/name).'
    if "trust_remote_code" in text:
        return (
            f'"{name}" brings its own code, which is not run unless you trust it. Read the code, '
            "then give --trust-remote-code."
        )
    if "does not appear to have a file named model.safetensors" in text:
        return (
            f'"{name}" has no safetensors weights on the Hub; pickled weights can run code and '
            'are refused. Look for a revision with safetensors (often "refs/pr/1"), or another '
            "copy of the model."
        )
    if caused_by(OfflineModeIsEnabled, LocalEntryNotFoundError) or "couldn't connect" in text:
        return (
            f'there is no local folder "{name}", and as a Hub id it is not in the cache and the '
            "Hub cannot be reached (offline, or HF_HUB_OFFLINE is set). Check the spelling, go "
            "online once, or give a local folder or package:NAME/path."
        )
    if caused_by(SafetensorError):
        return f'the weights of "{name}" are damaged: {_first_line(error)}. Download them again.'
    if "gguf" in text.lower() and caused_by(ImportError):
        return f'"{name}" is a GGUF file, which needs one more package: pip install gguf.'
    return f'"{name}" cannot be loaded: {_first_line(error)}'


def _first_line(error: BaseException) -> str:
    """The first line of a message, which is what fits on a terminal."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."

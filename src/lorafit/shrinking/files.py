"""The files of a LoRA adapter at a smaller rank.

Works on the tensors in the files, so no model is needed: only the factors of LoRA change;
modules trained whole, biases and DoRA's lengths are taken over as they are.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lorafit.errors import AdapterError
from lorafit.evidence import Difference
from lorafit.evidence.json import parsed
from lorafit.export.folder import copy_regular, staged
from lorafit.export.peft import PREFIX, locate, read_config, read_tensors
from lorafit.export.peft_config import CONFIG_FILE
from lorafit.export.peft_source import WEIGHTS_FILE
from lorafit.methods.lora import LoraConfig
from lorafit.methods.lora.truncate import Directions, directions, truncated
from lorafit.run import atomic

TAKEN = frozenset(
    {"added_tokens.json", "chat_template.jinja", "merges.txt", "sentencepiece.bpe.model"}
    | {"special_tokens_map.json", "spiece.model", "tokenizer.json", "tokenizer.model"}
    | {"tokenizer_config.json", "vocab.json", "vocab.txt", "lorafit.json"}
)
"""What is taken over: the tokenizer's files and ours. Not the card, which has the old rank and the
figures of the old adapter, and nothing else: the folder is for publishing."""

log = logging.getLogger(__name__)

_PAIRS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))


@dataclass(frozen=True)
class RankQuality:
    """One rank on the validation examples.

    Attributes:
        r: The rank.
        energy: Smallest share, over layers, of the mean squared output that is kept.
        plain: Paired difference of the loss against the adapter as it was, nats (positive is
            worse), by plain SVD, with its 90 % interval: with 95 % confidence no more than its
            upper end is lost. ``None`` without data.
        weighted: By activation-weighted SVD.
        retrained: The latter, trained on for a few steps; ``None``: not done.
    """

    r: int
    energy: float
    plain: Difference | None = None
    weighted: Difference | None = None
    retrained: Difference | None = None


@dataclass(frozen=True)
class Shrunk:
    """What `lorafit.shrink` returns.

    Attributes:
        path: Folder of the smaller adapter, in PEFT's format.
        r: Its rank.
        r_before: Largest rank of the adapter as it was.
        way: ``plain``, ``weighted`` or ``retrained``.
        reason: Why this rank, one plain sentence.
        curve: Every rank that was looked at, largest first.
        gain: Validation loss of the base less that of the adapter, nats; ``None``: no data.
        test: Paired differences on the test split, shrunk minus as it was.
    """

    path: Path
    r: int
    r_before: int
    way: str
    reason: str
    curve: list[RankQuality]
    gain: float | None = None
    test: dict[str, Difference] | None = None


@dataclass(frozen=True)
class Source:
    """An adapter as it is on disk.

    Attributes:
        folder: Where its files are.
        config: Its configuration.
        tensors: All its tensors, by their names in the file.
        factors: Module path to the names of ``A (r, d_in)`` and ``B (d_out, r)``.
    """

    folder: Path
    config: LoraConfig
    tensors: dict[str, Tensor]
    factors: dict[str, tuple[str, str]]

    @property
    def r(self) -> int:
        """The largest rank of all layers."""
        return max(self.rank(path) for path in self.factors)

    def rank(self, path: str) -> int:
        """The rank at a module path."""
        return self.tensors[self.factors[path][0]].shape[0]

    def pair(self, path: str) -> tuple[Tensor, Tensor]:
        """``A`` and ``B`` at a module path."""
        A, B = self.factors[path]
        return self.tensors[A], self.tensors[B]


def read(source: str | Path) -> Source:
    """Reads a LoRA adapter.

    Raises:
        AdapterError: There is none, it is not LoRA, or its file needs a changed base.
    """
    folder = locate(source)
    config = read_config(folder)
    if not isinstance(config, LoraConfig):
        raise AdapterError(f"{source} is {config.peft_type}, which has no rank; only LoRA has.")
    if config.has_origin:
        raise AdapterError(
            f"{source} was saved relative to a base that init_lora_weights="
            f"{config.init_lora_weights} changed. Load it with lorafit.peft and save it again: "
            "that writes an ordinary LoRA."
        )
    if config.target_parameters:
        raise AdapterError(
            f"{source} adapts weights that are no layers (target_parameters), whose rank cannot be "
            "made smaller afterwards. Train it with a smaller --r."
        )
    tensors = read_tensors(folder, source=str(source))
    factors = {
        key.removeprefix(PREFIX).removesuffix(a): (key, key.removesuffix(a) + b)
        for key in tensors
        for a, b in _PAIRS
        if key.endswith(a)
    }
    for path, pair in factors.items():
        for key in pair:
            wrong = key in tensors and not (
                tensors[key].is_floating_point() and tensors[key].ndim == 2
            )
            if wrong:
                shape, kind = tuple(tensors[key].shape), str(tensors[key].dtype).split(".")[-1]
                raise AdapterError(f"{source}: {key} is {kind} {shape}, and no matrix of weights")
        if pair[1] in tensors and tensors[pair[0]].shape[0] != tensors[pair[1]].shape[1]:
            raise AdapterError(f"{source}: the two factors of {path} have different ranks")
    lacking = [b for _, b in factors.values() if b not in tensors]
    if lacking or not factors:
        raise AdapterError(f"{source} is incomplete: it has no {lacking[0] if lacking else 'LoRA'}")
    return Source(folder, config, tensors, factors)


def all_directions(
    source: Source, moments: Mapping[str, Tensor] | None = None
) -> dict[str, Directions]:
    """The directions of every layer; see `lorafit.methods.lora.truncate.directions`."""
    moments = moments or {}
    return {p: directions(*source.pair(p), moments.get(p)) for p in source.factors}


def tensors_at(source: Source, found: Mapping[str, Directions], k: int) -> dict[str, Tensor]:
    """The adapter's tensors with every layer at rank ``k``, or its own where that is less."""
    tensors = dict(source.tensors)
    for path, (a, b) in source.factors.items():
        tensors[a], tensors[b] = truncated(
            *source.pair(path), min(k, source.rank(path)), found[path]
        )
    return tensors


def projected(source: Source, found: Mapping[str, Directions], k: int) -> dict[str, Tensor]:
    """The same update as `tensors_at`, in tensors of the old shapes."""
    tensors = dict(source.tensors)
    for path, (_, b) in source.factors.items():
        U, B = found[path].vectors[:, :k], source.tensors[b]
        tensors[b] = (U @ (U.T @ B.double())).to(B.dtype)
    return tensors


def config_at(source: Source, k: int) -> LoraConfig:
    """The configuration at rank ``k``: every layer keeps its scale ``lora_alpha / r``."""
    config = source.config
    ranks = {path: min(k, source.rank(path)) for path in source.factors}
    alphas = {
        path: config.scaling(path) * (math.sqrt(r) if config.use_rslora else r)
        for path, r in ranks.items()
    }
    first = next((path for path, r in ranks.items() if r == k), next(iter(ranks)))
    alpha = alphas[first]
    return config.model_copy(
        update={
            "r": k,
            "lora_alpha": _number(alpha),
            "rank_pattern": {path: r for path, r in ranks.items() if r != k},
            "alpha_pattern": {
                path: _number(own) for path, own in alphas.items() if not math.isclose(own, alpha)
            },
        }
    )


def write(source: Source, tensors: Mapping[str, Tensor], k: int, out: Path, facts: Any) -> None:
    """Writes the adapter at rank ``k``, and takes the files of `TAKEN` over.

    Args:
        source: The adapter that was shrunk.
        tensors: The new tensors.
        k: Their rank.
        out: A folder that does not exist or is empty.
        facts: JSON values for ``shrink.json``: what was measured.

    Raises:
        AdapterError: The folder has files or cannot be written.
    """
    fields = parsed((source.folder / CONFIG_FILE).read_text(encoding="utf-8"))
    config = config_at(source, k)
    changed = ("r", "lora_alpha", "rank_pattern", "alpha_pattern")
    fields |= {name: getattr(config, name) for name in changed}
    with staged(out, last=CONFIG_FILE) as stage:
        left = copy_regular(source.folder, stage, TAKEN)
        if left:
            log.warning("not copied, for they are links or no files: %s", ", ".join(left))
        ready = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        atomic.save_tensors(stage / WEIGHTS_FILE, ready, {"format": "pt"})
        text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
        (stage / CONFIG_FILE).write_text(text, encoding="utf-8")
        (stage / "shrink.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value

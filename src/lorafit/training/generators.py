"""The states of the random generators, as JSON values and tensors, so that nothing is pickled."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import torch


class NumpyState(TypedDict):
    """The state of NumPy's generator, as `numpy.random.get_state` gives it.

    Attributes:
        bit_generator: Its name.
        key: Its words.
        pos: Which of them is next.
        has_gauss: Whether a normal number is left over.
        gauss: That number.
    """

    bit_generator: str
    key: list[int]
    pos: int
    has_gauss: int
    gauss: float


class Generators(TypedDict):
    """The states of Python's and NumPy's generators, as JSON values.

    Attributes:
        python: Version, words and left-over normal number of `random.getstate`.
        numpy: Of NumPy's.
    """

    python: list[Any]
    numpy: NumpyState


def generator_states() -> tuple[Generators, dict[str, torch.Tensor]]:
    """The states of this process's random generators: JSON values, and torch's as tensors."""
    version, words, gauss = random.getstate()
    bits = np.random.get_state(legacy=False)
    assert isinstance(bits, dict)
    values: Generators = {
        "python": [version, list(words), gauss],
        "numpy": {
            "bit_generator": bits["bit_generator"],
            "key": bits["state"]["key"].tolist(),
            "pos": int(bits["state"]["pos"]),
            "has_gauss": int(bits["has_gauss"]),
            "gauss": float(bits["gauss"]),
        },
    }
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"cuda.{index}"] = state
    if torch.backends.mps.is_available():
        tensors["mps"] = torch.mps.get_rng_state()
    return values, tensors


def restore_generators(values: Generators, tensors: Mapping[str, torch.Tensor]) -> None:
    """Inverse of `generator_states`; states of devices that are not here are left out."""
    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    bits = values["numpy"]
    np.random.set_state(
        {
            "bit_generator": bits["bit_generator"],
            "state": {"key": np.array(bits["key"], dtype=np.uint32), "pos": bits["pos"]},
            "has_gauss": bits["has_gauss"],
            "gauss": bits["gauss"],
        }
    )
    torch.set_rng_state(tensors["torch"])
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if f"cuda.{index}" in tensors:
                torch.cuda.set_rng_state(tensors[f"cuda.{index}"], index)
    if "mps" in tensors and torch.backends.mps.is_available():
        torch.mps.set_rng_state(tensors["mps"])

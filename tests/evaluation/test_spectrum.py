from __future__ import annotations

import numpy as np
import pytest
import torch

from lorafit.evaluation.spectrum import describe, singular_values, summarise


def test_an_update_of_rank_k_with_equal_directions_has_every_rank_k() -> None:
    u, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))
    for k in (1, 3, 10):
        delta = torch.tensor(u[:, :k] @ u[:, :k].T)
        found = describe(singular_values(delta))
        assert found["stable_rank"] == pytest.approx(k, rel=1e-5)
        assert found["entropy_rank"] == pytest.approx(k, rel=1e-3)
        assert found["r99"] == k
        assert found["norm"] == pytest.approx(k**0.5, rel=1e-5)


def test_energy_shares_count_squares() -> None:
    found = describe(np.array([3.0, 1.0, 0.1]))
    # 9, 1 and 0.01 of 10.01: one direction holds 89.9 %, two hold 99.9 %.
    assert found["r90"] == 2
    assert found["r99"] == 2
    assert found["stable_rank"] == pytest.approx(10.01 / 9)


def test_no_update_has_no_rank() -> None:
    found = describe(np.zeros(4))
    assert set(found.values()) == {0.0}


def test_directions_above_the_noise_are_counted_weight_by_weight() -> None:
    spectra = {"a": np.array([5.0, 2.0, 1.0]), "b": np.array([4.0, 0.5, 0.1])}
    noise = {"a": np.array([1.5, 1.0, 0.5]), "b": np.array([1.0, 0.4, 0.1])}
    found = summarise(spectra, noise)
    assert found["above_noise"] == 1.5  # two and one
    assert found["weights"] == 2
    assert found["full_rank"] == 3
    assert "above_noise" not in summarise(spectra)

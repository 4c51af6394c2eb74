import pytest
import torch

from lorafit.engine.kernels.counter import Drop, Seeds


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_share_of_dropped_elements_is_p(p):
    kept = Drop(p, 11).kept(torch.arange(600), 900)
    deviation = (p * (1 - p) / kept.numel()) ** 0.5
    assert abs(1 - kept.double().mean().item() - p) < 4 * deviation
    for shares in (kept.double().mean(0), kept.double().mean(1)):
        expected = (p * (1 - p) / (kept.numel() / shares.numel())) ** 0.5
        assert 0.8 < shares.std().item() / expected < 1.2


def test_rows_and_neighbouring_columns_are_uncorrelated():
    kept = Drop(0.3, 11).kept(torch.arange(800), 640).double()
    centred = (kept - 0.7) / (0.7 * 0.3) ** 0.5
    bound = 4 / kept.numel() ** 0.5
    for shift in (1, 2, 16, 32):
        assert (centred[:, shift:] * centred[:, :-shift]).mean().abs() < bound
        assert (centred[shift:] * centred[:-shift]).mean().abs() < bound


def test_another_seed_gives_another_mask():
    seeds = Seeds(0)
    rows = torch.arange(50)
    one, two = (seeds.drop(0.5).kept(rows, 64) for _ in range(2))
    assert 0.4 < (one == two).double().mean() < 0.6


def test_mean_is_kept():
    drop = Drop(0.1, 3)
    assert abs(drop.apply(torch.ones(1000, 1000)).mean().item() - 1) < 2e-3
    assert drop.keep_scale == pytest.approx(1 / 0.9, rel=2e-5)


def test_no_dropout_is_the_identity():
    x = torch.randn(3, 4)
    assert Drop().apply(x) is x


def test_torch_seed_governs_the_seeds():
    def draw() -> int:
        torch.manual_seed(5)
        return Seeds.from_torch().drop(0.1).seed

    assert draw() == draw()


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_impossible_probability_is_refused(p):
    with pytest.raises(ValueError, match="probability"):
        Drop(p)

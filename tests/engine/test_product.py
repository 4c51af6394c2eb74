"""The bfloat16 product of the package itself, against float64."""

import pytest
import torch
from torch.nn import functional as F

from lorafit.engine import product
from lorafit.engine.frozen import padded_rows
from lorafit.engine.kernels import checked as kernels
from lorafit.engine.product import OneDnnWeight, PanelWeight, PlainWeight, multiplier, pack

SIZES = [(1, 2, 1), (5, 6, 63), (7, 64, 64), (48, 10, 65), (49, 130, 200), (301, 384, 192)]
"""Rows, inputs, outputs: below, at and above each block of the kernel."""


def tolerated(weight, bias, x, y, fault=1.0):
    """Largest error of y over the rounding of its own bfloat16 and of the sums."""
    exact = x.double() @ (fault * weight.double()).t() + (0 if bias is None else bias.double())
    size = x.double().abs() @ weight.double().abs().t() + 1
    return ((y.double() - exact).abs() / (2**-8 * exact.abs() + 1e-6 * size)).max()


def parts(rows, d_in, d_out, with_bias):
    weight = torch.randn(d_out, d_in).bfloat16()
    bias = torch.randn(d_out).bfloat16() if with_bias else None
    return weight, bias, torch.randn(rows, d_in).bfloat16()


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_product_is_the_exact_one_rounded(size: tuple[int, int, int], with_bias, implementation):
    weight, bias, x = parts(*size, with_bias)
    y = pack(weight, bias)(x)
    assert y.dtype == torch.bfloat16
    assert y.shape == (size[0], size[2])
    assert tolerated(weight, bias, x, y) < 1
    assert tolerated(weight, bias, x, y, fault=1.01) > 1


def test_the_layouts_agree_with_each_other():
    weight, bias, x = parts(33, 70, 130, with_bias=True)
    for make in (OneDnnWeight, PlainWeight):
        assert tolerated(weight, bias, x, make(weight, bias)(x)) < 1


def test_nothing_is_written_outside_the_result(implementation):
    weight, bias, x = parts(6, 8, 70, with_bias=True)
    around = torch.full((3, 6, 70), 7.0, dtype=torch.bfloat16)
    if implementation is None or not implementation.multiplies:
        return
    packed = PanelWeight(implementation, weight, bias)
    implementation.calls.lorafit_product(
        *(6, 8, 70, x.data_ptr(), 8, packed.weight.data_ptr(), packed.bias.data_ptr()),
        *(around[1].data_ptr(), 70),
    )
    assert bool((around[0] == 7).all())
    assert bool((around[2] == 7).all())
    assert torch.equal(around[1], packed(x))


def test_rows_may_have_gaps_and_there_may_be_none():
    weight, bias, x = parts(9, 16, 24, with_bias=True)
    wide = torch.cat([x, torch.randn(9, 4).bfloat16()], dim=1)
    packed = pack(weight, bias)
    assert torch.equal(packed(wide[:, :16].contiguous()), packed(x))
    assert packed(x[:0]).shape == (0, 24)


def test_nan_in_a_row_or_a_weight_stays_where_it_belongs():
    weight, bias, x = parts(7, 8, 70, with_bias=True)
    weight[3, 2] = float("nan")
    x[5, 1] = float("nan")
    nan = pack(weight, bias)(x).isnan()
    assert bool(nan[5].all())
    assert bool(nan[:, 3].all())
    assert int(nan.sum()) == 70 + 7 - 1


def test_odd_inputs_and_float32_are_left_to_onednn():
    assert multiplier(torch.float32, 8) is None
    assert multiplier(torch.bfloat16, 7) is None
    weight, bias, x = parts(5, 7, 9, with_bias=False)
    assert tolerated(weight, bias, x, pack(weight, bias)(x)) < 1
    y = pack(weight.float(), None)(x.float())
    assert torch.allclose(y, F.linear(x.float(), weight.float()), rtol=1e-5, atol=1e-5)


def test_cpus_with_matrix_tiles_keep_onednn(monkeypatch):
    monkeypatch.setattr(product, "bf16_flags", lambda: ["amx_bf16", "avx512_bf16"])
    product.has_tiles.cache_clear()
    try:
        assert multiplier(torch.bfloat16, 8) is None
    finally:
        product.has_tiles.cache_clear()


def test_a_wrong_call_is_refused(implementation):
    if implementation is None or not implementation.multiplies:
        return
    weight, bias, x = parts(5, 8, 9, with_bias=False)
    packed = PanelWeight(implementation, weight, bias)
    for wrong in (x.float(), x[:, :6], x.t(), x[None]):
        with pytest.raises(ValueError, match=r"x (has|is)"):
            packed(wrong)
    with pytest.raises(ValueError, match="even"):
        PanelWeight(implementation, weight[:, :7], bias)


def test_rows_are_rounded_up_only_for_onednn():
    with kernels.using(None):
        for rows in (1, 17, 100, 257, 1000, 4097):
            padded = padded_rows(rows, torch.bfloat16)
            assert rows <= padded <= max(rows + 15, rows * 17 / 16)
        assert len({padded_rows(rows, torch.bfloat16) for rows in range(600, 1200)}) < 20
    if multiplier(torch.bfloat16, 2) is not None:  # a product of ours, on CPUs without tiles
        assert padded_rows(1001, torch.bfloat16) == 1001

"""The bound holds for products as this machine computes them, and is not idle."""

from __future__ import annotations

import pytest
import torch

from mlkd.knn.similarity_precision import (
    BF16,
    FP32,
    Arithmetic,
    Precision,
    arithmetic_of,
    error_bound,
    matmul_precision,
)
from mlkd.knn.unit_vectors import GRID, distinct_vectors

_CPU = torch.device("cpu")


@pytest.mark.parametrize("arithmetic", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dim", [1, 7, 256, 1024])
@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_no_product_is_further_off_than_the_bound(arithmetic: Arithmetic, dim: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(dim)
    source, target = (
        distinct_vectors(torch.randn(200, dim, generator=generator) + offset, "source", _CPU, arithmetic.stored).rows
        for _ in range(2)
    )
    num_source, num_target = len(source), len(target)
    with matmul_precision(arithmetic):
        product = (
            source.as_stored(slice(0, num_source), num_source) @ target.as_stored(slice(0, num_target), num_target).T
        )
    exact = source.on_grid(slice(0, num_source)) @ target.on_grid(slice(0, num_target)).T / GRID**2
    error = (product.double() - exact).abs() - arithmetic.output_rounding * exact.abs()
    bound = error_bound(arithmetic, source.residual, float(target.residual.max()), dim)
    assert bool((error <= bound[:, None]).all())
    # Sharp enough to be of use: bf16 entries are off by 2^-9.8 on average, those of both sides by twice that at most.
    assert float(bound.max()) < (0.009 if arithmetic is BF16 else 1e-4)


def test_bound_by_hand() -> None:
    arithmetic = Arithmetic(torch.float32, torch.int32, 0.001, 0.00001, 0.0)
    # own 0.003, other 0.002: 0.003 + 1.003 x 0.002 = 0.005006; sums 18 x 0.00001.
    bound = error_bound(arithmetic, torch.tensor([0.002], dtype=torch.float64), 0.001, 10)
    assert float(bound) == pytest.approx(1.01 * (0.005006 + 0.00018) + 2.0**-23, rel=1e-12)


def test_auto_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, expected in (({"avx512_bf16": True}, BF16), ({"amx_bf16": True}, BF16), ({"avx2": True}, FP32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert arithmetic_of(Precision.auto, _CPU) is expected
    assert arithmetic_of(Precision.bf16, _CPU) is BF16
    assert arithmetic_of(Precision.fp32, _CPU) is FP32

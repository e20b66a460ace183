"""Precision of similarities: how they are multiplied first, and how far that can be from the exact product.

Shapes: N rows, D dimensions.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mlkd.errors import fail


class Precision(enum.Enum):
    """Of the first look at every pair; results do not depend on it. `auto` is bf16 where the device multiplies it
    natively, else fp32."""

    auto = "auto"
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A way to multiply, with its worst errors.

    Args:
        stored: type of the rows and of the product.
        bits: integer type of the same width; positive floats are ordered as their bits are.
        input_rounding: relative error of an entry as it enters the multiplier, beyond that of `stored`.
        sum_rounding: error of one addition, relative to the sum of the absolute products.
        output_rounding: relative error of the final sum.
    """

    stored: torch.dtype
    bits: torch.dtype
    input_rounding: float
    sum_rounding: float
    output_rounding: float


# IEEE additions err by 2^-24. Tensor cores truncate, and align all addends of a step to the largest: Fasi, Higham,
# Mikaitis & Pranesh 2021, "Numerical behavior of NVIDIA tensor cores", section 4; 2^-22 leaves room for both.
FP32 = Arithmetic(torch.float32, torch.int32, 0.0, 2.0**-24, 0.0)
TF32 = Arithmetic(torch.float32, torch.int32, 2.0**-10, 2.0**-22, 0.0)
BF16 = Arithmetic(torch.bfloat16, torch.int16, 0.0, 2.0**-22, 2.0**-8)


def arithmetic_of(precision: Precision, device: torch.device) -> Arithmetic:
    """How `device` multiplies under `precision`.

    Raises:
        MlkdError: E501 where the device has no such products.
    """
    if precision is Precision.tf32:
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
            remedy = "search.precision=auto, or a GPU since Ampere"
            raise fail("E501", f"search.precision=tf32, but {device} has no TF32 products", remedy=remedy)
        return TF32
    if precision is Precision.bf16 or (precision is Precision.auto and _has_native_bf16(device)):
        return BF16
    return FP32


def error_bound(arithmetic: Arithmetic, residual_N: torch.Tensor, worst_residual: float, dim: int) -> torch.Tensor:
    """How far the computed product of a row with any row of the other side can be from the exact one.

    By Cauchy-Schwarz: |u.v - u'.v'| <= |u - u'| |v| + |u'| |v - v'| for rows u, v of length 1 and u', v' as stored.

    Args:
        arithmetic: how it is multiplied; its `output_rounding` is not part of the bound.
        residual_N: (N,) float64 distance between each row and its stored form.
        worst_residual: the largest such distance on the other side.
        dim: D.

    Returns:
        (N,) float64.
    """
    own_N, other = residual_N + arithmetic.input_rounding, worst_residual + arithmetic.input_rounding
    product_N = own_N + (1 + own_N) * other
    sums = (dim + 8) * arithmetic.sum_rounding
    # 1.01: lengths differ from 1 by less than 1%, rows as stored included. 2^-23: a similarity is rounded to float32.
    return 1.01 * (product_N + sums) + 2.0**-23


@contextlib.contextmanager
def matmul_precision(arithmetic: Arithmetic) -> Iterator[None]:
    """No gradient, products as `arithmetic` says whatever training has switched on, and float32 sums of bf16."""
    before = torch.get_float32_matmul_precision()
    reduced = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("high" if arithmetic is TF32 else "highest")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = reduced


def _has_native_bf16(device: torch.device) -> bool:
    """GPUs since Ampere, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))

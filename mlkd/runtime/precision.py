"""Where bf16 is decided: the precision that a configuration asks for, and the autocast type it means on a device."""

from __future__ import annotations

from enum import Enum

import torch


class Precision(Enum):
    """fp32, or bf16 autocast with fp32 weights and optimiser; auto is bf16 where the device multiplies it natively."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


def autocast_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The autocast type that `precision` means on `device`, None for full precision."""
    automatic = precision is Precision.auto and has_native_bf16(device)
    return torch.bfloat16 if precision is Precision.bf16 or automatic else None


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 products are faster than fp32 ones: on GPUs since Ampere, on CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))

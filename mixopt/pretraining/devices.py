"""What a device can compute, for the MFU."""

from __future__ import annotations

import torch

# Dense bfloat16 (V100: float16), as the makers state it without sparsity; the first that fits.
_PEAK_FLOPS = (
    ("B200", 2.25e15),
    ("GH200", 989e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("A40", 150e12),
    ("A10", 125e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("V100", 125e12),
    ("MI300X", 1307e12),
    ("MI250X", 191e12),
)


def peak_flops(device: torch.device) -> float | None:
    """Return the operations per second of a known GPU; None for others, and for CPUs."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in _PEAK_FLOPS if part in name), None)

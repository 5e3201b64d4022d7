"""Device and precision of a stack, and settings that change only during a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from mixopt.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_device(name: str) -> torch.device:
    """Return the device of `training.device`; `auto` takes the GPU if there is one.

    Raises:
        ConfigError: No such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(f"no support for {device.type}")
    except RuntimeError as error:
        raise ConfigError(
            f"proxy.device: {name!r} is not a device; give auto, cpu or cuda"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(
            f"proxy.device: {name!r} is not available ({found} GPUs); give auto or cpu"
        )
    return device


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the precision of the products; `auto` takes bf16 where the hardware has it."""
    if precision != "auto":
        return DTYPES[precision]
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 matrices faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Older releases of PyTorch cannot say; they get fp32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy token ids to the device as int64."""
    return torch.from_numpy(array).to(device).long()


@contextmanager
def thread_limit(threads: int) -> Iterator[None]:
    """Let PyTorch use so many threads inside the block; 0 changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

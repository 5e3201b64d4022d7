"""Device and precision of a stack, and settings that apply only during a run."""

import ctypes
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mixopt.errors import ConfigError
from mixopt.pretraining import has_bfloat16
from mixopt_proxies.decoder.size_options import Compile, Precision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Operations from which compiling a run saves time.
WORTHWHILE_FLOPS = {"cpu": 2e11, "cuda": 2e14}
_TRIM_THRESHOLD = -1  # of malloc.h
_MMAP_THRESHOLD = -3  # of malloc.h
_MAX_KEPT = 1 << 30  # bytes
# Bytes; the final value of glibc's dynamic adjustment, after a block of 32 MiB has been freed.
_USUAL_MMAP = 32 << 20

logger = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """Return the device of `training.device`; `auto` uses the GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= count:
        raise ConfigError(
            f"proxy.device: {name!r} is not available ({count} GPUs); give auto or cpu"
        )
    return torch.device(name)


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the precision of the products; `auto` uses bf16 if the hardware has it."""
    if precision != "auto":
        return DTYPES[precision]
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy token ids to the device as int64."""
    return torch.from_numpy(array).to(device).long()


@contextmanager
def thread_limit(threads: int) -> Iterator[None]:
    """Limit PyTorch's threads inside the block; 0: no limit."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """Keep freed memory in the process inside the block, on a CPU with glibc."""
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _MAX_KEPT)
    libc.mallopt(_TRIM_THRESHOLD, _MAX_KEPT)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL_MMAP)
        libc.malloc_trim(0)


def should_compile(choice: Compile, device: torch.device, flops: float) -> bool:
    """Return whether to compile a run with `flops` operations."""
    if choice != "auto":
        return choice
    return flops >= WORTHWHILE_FLOPS.get(device.type, float("inf")) and has_compiler(device)


def has_compiler(device: torch.device) -> bool:
    """Return whether the compiler that `torch.compile` needs for the device is installed."""
    if device.type == "cuda":
        return find_spec("triton") is not None
    return shutil.which(os.environ.get("CXX", "g++")) is not None


class Compiled:
    """A computation that is compiled at its first call, and runs eagerly if compilation fails."""

    def __init__(self, eager: Callable[..., Any], *, dynamic: bool = False) -> None:
        """Wrap a function; the first call compiles it."""
        self._eager = eager
        self._compiled = torch.compile(eager, dynamic=dynamic)
        self.failed = False

    def __call__(self, *args: Any) -> Any:
        """Run the compiled function, or the eager one."""
        if not self.failed:
            try:
                return self._compiled(*args)
            except Exception as error:  # compiler, cache and disk raise any type
                first = str(error).strip().partition("\n")[0]
                logger.warning("torch.compile failed, continuing without it: %s", first)
                self.failed = True
        return self._eager(*args)

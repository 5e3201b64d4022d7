"""Keep freed memory while a stack trains on a CPU.

glibc gives large freed blocks back to the kernel and gets them again as empty pages, step
after step; a fifth to a quarter of a small model's step is page faults. Between entering and
leaving, freed blocks are kept for the next step; on leaving they are given back. Other C
libraries are left alone.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# malloc.h
TRIM_THRESHOLD = -1
MMAP_THRESHOLD = -3

KEEP = 1 << 30
# What glibc's own adjustment ends at, once a block of 32 MiB has been freed.
USUAL_MMAP = 32 << 20
USUAL_TRIM = 2 * USUAL_MMAP


@contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """Keep freed memory inside the block, where the device is a CPU and the C library glibc."""
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    _set_thresholds(libc, KEEP, KEEP)
    try:
        yield
    finally:
        _set_thresholds(libc, USUAL_MMAP, USUAL_TRIM)
        libc.malloc_trim(0)


def _set_thresholds(libc: ctypes.CDLL, mmap: int, trim: int) -> None:
    libc.mallopt(MMAP_THRESHOLD, mmap)
    libc.mallopt(TRIM_THRESHOLD, trim)

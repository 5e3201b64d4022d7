"""Map a file into memory without keeping a descriptor of it."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray


def map_file(descriptor: int, size: int) -> NDArray[np.uint8]:
    """Return the first bytes of a file as a read-only array, unmapped with its last use."""
    if not size:
        return np.empty(0, np.uint8)
    if not _CALLS:
        return np.frombuffer(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ), np.uint8)
    return np.asarray(_Mapping(descriptor, size))


class _Mapping:
    """Pages of a file, as numpy's array interface describes them."""

    def __init__(self, descriptor: int, size: int) -> None:
        map_pages, self._unmap = _CALLS
        address = map_pages(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == ctypes.c_void_p(-1).value:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._place = (address, size)
        self.__array_interface__ = {
            "data": (address, True), "shape": (size,), "typestr": "|u1", "version": 3,
        }  # fmt: skip

    def __del__(self) -> None:
        place = vars(self).get("_place")
        if place is not None:
            self._unmap(*place)


def _calls() -> tuple[Any, ...]:
    """Return the C library's `mmap` and `munmap`; nothing where it has none."""
    if os.name != "posix":
        return ()
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return library.mmap, library.munmap


_CALLS = _calls()

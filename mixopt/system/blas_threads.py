"""One thread of BLAS for products of small matrices."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MOST_ROWS = 512


@contextmanager
def one_blas_thread(rows: int) -> Iterator[None]:
    """Let BLAS use one thread while the block runs, and as many as before after it."""
    if rows > MOST_ROWS:
        yield
        return
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with suppress(ImportError):
        importlib.import_module("scipy.linalg")  # has a BLAS of its own, which must be there by now
    with threadpool_limits(1, user_api="blas"):
        yield

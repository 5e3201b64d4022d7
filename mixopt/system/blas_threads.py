"""One thread of BLAS for products of small matrices.

A fit of a hundred trials multiplies and factors thousands of small matrices. OpenBLAS gives each of
them to all cores, whose threads wait for each other by spinning: on a machine with other work that
costs many times the CPU seconds of one thread, and waits longer. What a user has set is not raised.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MOST_ROWS = 512


@contextmanager
def one_blas_thread(rows: int) -> Iterator[None]:
    """Let BLAS use one thread while the block runs, and as many as before after it.

    Nothing is done for many rows, nor where threadpoolctl, which comes with scikit-learn, is not
    installed.

    Args:
        rows: Of the matrices, such as the trials of a fit.
    """
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

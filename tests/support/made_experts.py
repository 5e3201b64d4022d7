"""Assignments of given choices, for the tests of what is said of them."""

import numpy as np

from mixopt.routing import Assignments, LayerAssignments


def made_layer(counts_DE, layer=0, top_k=1, router="", dropped_D=None):
    """Return a layer of these counts, half of each at even places."""
    counts_DE = np.asarray(counts_DE, np.int64)
    dropped_D = np.zeros(len(counts_DE), np.int64) if dropped_D is None else np.array(dropped_D)
    return LayerAssignments(
        layer=layer,
        top_k=top_k,
        counts_HDE=np.stack([counts_DE // 2, counts_DE - counts_DE // 2]),
        dropped_HD=np.stack([dropped_D, 0 * dropped_D]),
        router=router,
    )


def counted(counts_LDE, top_k=1, names=None):
    layers = [made_layer(counts_DE, n, top_k) for n, counts_DE in enumerate(counts_LDE)]
    domains = names or tuple(f"d{d}" for d in range(len(counts_LDE[0])))
    return Assignments(domains, tuple(layers))

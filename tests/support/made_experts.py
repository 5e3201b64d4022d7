"""Assignments and probes of given choices, for the tests of what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixopt.routing import Assignments, LayerProbe, ProbeResult
from mixopt.routing.assignments import no_layer

NAMES = ("web", "code")


def counted(counts_LDE, top_k=1):
    """Return assignments of these counts, half of each at even places."""
    layers = []
    for number, counts_DE in enumerate(counts_LDE):
        tokens_D = counts_DE.sum(1) / top_k
        empty = no_layer(number, counts_DE.shape[1], top_k, len(counts_DE))
        even = np.ones_like(counts_DE) / counts_DE.shape[1]
        layers.append(
            replace(
                empty,
                counts_HDE=np.stack([counts_DE // 2, counts_DE - counts_DE // 2]),
                probability_DE=even * tokens_D[:, None],
                entropy_D=np.log(counts_DE.shape[1]) * tokens_D,
            )
        )
    return Assignments(tuple(f"d{d}" for d in range(len(counts_LDE[0]))), tuple(layers))


def probed(ids_LUT, domain_U, experts=4):
    """Return a probe of sequences whose tokens chose these experts, one each."""
    sequences, tokens = ids_LUT[0].shape
    layers = []
    for number, ids_UT in enumerate(ids_LUT):
        counts_UE = np.stack([np.bincount(ids, minlength=experts) for ids in ids_UT])
        unknown_D = np.full(len(NAMES), np.nan)
        layers.append(LayerProbe(number, 1, counts_UE, ids_UT.reshape(-1, 1), unknown_D))
    return ProbeResult(
        NAMES,
        np.asarray(domain_U),
        np.full(sequences, tokens),
        np.repeat(domain_U, tokens),
        tuple(layers),
    )

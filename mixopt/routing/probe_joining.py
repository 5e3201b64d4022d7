"""Join probes of parts of the batches, which several ranks have run, into one of all of them.

Shapes: D domains, P parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixopt.routing.probe_result import LayerProbe, ProbeResult
from mixopt.system import Array


def join_probes(parts: Sequence[ProbeResult]) -> ProbeResult:
    """Return what all parts saw, in their order.

    Args:
        parts: Of the same model, at least one.

    Raises:
        RoutingError: They are of other domains or experts.
    """
    first = parts[0].assignments()
    for part in parts[1:]:
        first.check_sizes(part.domains, part.assignments().sizes, "a part of the probe")
    tokens_PD = np.array(
        [np.bincount(p.domain_U, p.tokens_U, len(first.domains)) for p in parts], float
    )
    return ProbeResult(
        first.domains,
        np.concatenate([part.domain_U for part in parts]),
        np.concatenate([part.tokens_U for part in parts]),
        np.concatenate([part.domain_T for part in parts]),
        tuple(
            _layer([part.layers[place] for part in parts], tokens_PD)
            for place in range(len(parts[0].layers))
        ),
    )


def _layer(parts: Sequence[LayerProbe], tokens_PD: Array) -> LayerProbe:
    return LayerProbe(
        layer=parts[0].layer,
        top_k=parts[0].top_k,
        counts_UE=np.concatenate([part.counts_UE for part in parts]),
        ids_TK=np.concatenate([part.ids_TK for part in parts]),
        shared_D=_mean(np.array([part.shared_D for part in parts]), tokens_PD),
    )


def _mean(shared_PD: Array, tokens_PD: Array) -> Array:
    """Return the mean over tokens, NaN where it is not known of any."""
    weight_PD = np.where(np.isfinite(shared_PD), tokens_PD, 0)
    total_D = weight_PD.sum(0)
    sum_D = (weight_PD * np.nan_to_num(shared_PD)).sum(0)
    return np.asarray(np.divide(sum_D, total_D, out=np.full(len(sum_D), np.nan), where=total_D > 0))

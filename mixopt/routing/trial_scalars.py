"""The numbers about experts that are shown beside a trial's losses, by the names of a run's."""

from __future__ import annotations

from mixopt.routing.expert_counts import ExpertCounts
from mixopt.routing.scalars import Named, comparing_scalars, training_scalars


def trial_scalars(counts: ExpertCounts) -> dict[str, float]:
    """Return the numbers of a trial at its end."""
    layers = [layer.layer for layer in counts.train.layers]
    named = Named.within_budget(layers, counts.train.domains)
    told = [
        (one.layer, one.corrected, one.chance, one.specialisation) for one in counts.information
    ]
    return {
        **training_scalars(counts.train, named),
        **comparing_scalars(told, counts.held_out, named),
    }

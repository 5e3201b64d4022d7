"""Which mixtures to try: sampled for the first round, chosen by a fit in later ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.designs.anneals import (
        ANNEAL as ANNEAL,
        CONTROL as CONTROL,
        anneal_mixtures as anneal_mixtures,
        base_epochs as base_epochs,
        base_mixture as base_mixture,
        repeated_line as repeated_line,
        source_epochs as source_epochs,
    )
    from mixopt.designs.first_round import (
        design_constraints as design_constraints,
        make_design as make_design,
        sample_mixtures as sample_mixtures,
        trial_seeds as trial_seeds,
    )
    from mixopt.designs.next_batch import (
        Acquisition as Acquisition,
        Batch as Batch,
        choose_batch as choose_batch,
        draw_candidates as draw_candidates,
    )
    from mixopt.designs.surrogate import Surrogate as Surrogate, fit_surrogate as fit_surrogate
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "anneals": [
                "ANNEAL",
                "CONTROL",
                "anneal_mixtures",
                "base_epochs",
                "base_mixture",
                "repeated_line",
                "source_epochs",
            ],
            "first_round": ["design_constraints", "make_design", "sample_mixtures", "trial_seeds"],
            "next_batch": ["Acquisition", "Batch", "choose_batch", "draw_candidates"],
            "surrogate": ["Surrogate", "fit_surrogate"],
        },
    )

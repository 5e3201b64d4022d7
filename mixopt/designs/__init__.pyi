from .anneals import (
    ANNEAL as ANNEAL,
    CONTROL as CONTROL,
    anneal_mixtures as anneal_mixtures,
    base_epochs as base_epochs,
    base_mixture as base_mixture,
    repeated_line as repeated_line,
    source_epochs as source_epochs,
)
from .first_round import (
    design_constraints as design_constraints,
    make_design as make_design,
    sample_mixtures as sample_mixtures,
    trial_seeds as trial_seeds,
)
from .next_batch import (
    Acquisition as Acquisition,
    Batch as Batch,
    choose_batch as choose_batch,
    draw_candidates as draw_candidates,
)
from .surrogate import Surrogate as Surrogate, fit_surrogate as fit_surrogate

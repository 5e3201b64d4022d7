from .anneals import anneal_effects as anneal_effects, anneal_lines as anneal_lines
from .best_mixture import (
    propose_mixture as propose_mixture,
    search_steps as search_steps,
)
from .decision import Decision as Decision, Gain as Gain, Recommendation as Recommendation
from .forecast import (
    Forecast as Forecast,
    predict_mixture as predict_mixture,
    predict_own_mixture as predict_own_mixture,
    predicted_costs as predicted_costs,
)
from .mixture_search import search as search
from .next_round import (
    Batch as Batch,
    choose_batch as choose_batch,
    draw_candidates as draw_candidates,
)
from .pareto_front import Front as Front, propose_front as propose_front
from .problem import Problem as Problem
from .proposal import Interval as Interval, Proposal as Proposal
from .request import (
    ConstraintsLike as ConstraintsLike,
    ProposalRequest as ProposalRequest,
    RiskLike as RiskLike,
)
from .surrogate import fit_surrogate as fit_surrogate
from .validation import (
    VERDICTS as VERDICTS,
    Comparison as Comparison,
    Validation as Validation,
    looks as looks,
    with_validated as with_validated,
)
from .validation_plan import (
    PROPOSAL as PROPOSAL,
    FullRun as FullRun,
    ValidationPlan as ValidationPlan,
    baseline_mixture as baseline_mixture,
    fresh_seeds as fresh_seeds,
    is_proposal as is_proposal,
    listed as listed,
    mixture_of as mixture_of,
    named as named,
    proposal_name as proposal_name,
    tempered as tempered,
    unimax as unimax,
)

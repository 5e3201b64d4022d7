from .anneals import anneal_effects as anneal_effects, anneal_lines as anneal_lines
from .baselines import baseline_mixture as baseline_mixture, best_trial as best_trial
from .best_mixture import (
    Forecast as Forecast,
    predict_mixture as predict_mixture,
    predict_own_mixture as predict_own_mixture,
    predicted_other_losses as predicted_other_losses,
    propose_mixture as propose_mixture,
)
from .decision import Decision as Decision, Recommendation as Recommendation, guarded as guarded
from .pareto_front import Front as Front, propose_front as propose_front
from .proposal import (
    PROPOSAL as PROPOSAL,
    Interval as Interval,
    Proposal as Proposal,
    Region as Region,
    baseline_breaks as baseline_breaks,
    is_proposal as is_proposal,
    listed as listed,
    named as named,
    proposal_name as proposal_name,
    read_phases as read_phases,
)
from .request import ConstraintsLike as ConstraintsLike, ProposalRequest as ProposalRequest
from .rounds import (
    Batch as Batch,
    Surrogate as Surrogate,
    best_candidate as best_candidate,
    choose_batch as choose_batch,
    draw_candidates as draw_candidates,
)
from .search import Problem as Problem, search as search
from .validation import (
    Validation as Validation,
    ValidationPlan as ValidationPlan,
    fresh_seeds as fresh_seeds,
    looks as looks,
    mixture_of as mixture_of,
    with_validated as with_validated,
)

from .anneal_effects import Anneals as Anneals, Effect as Effect
from .baselines import (
    FullRun as FullRun,
    baseline_mixture as baseline_mixture,
    tempered as tempered,
    unimax as unimax,
)
from .best_mixture import (
    compared_mixtures as compared_mixtures,
    propose_mixture as propose_mixture,
    search_steps as search_steps,
)
from .decision import Decision as Decision
from .forecast import Forecast as Forecast, predicted_costs as predicted_costs
from .mixture_names import (
    PROPOSAL as PROPOSAL,
    is_proposal as is_proposal,
    listed as listed,
    mixture_of as mixture_of,
    named as named,
    proposal_name as proposal_name,
)
from .mixture_search import search as search
from .own_mixture import predict_own_mixture as predict_own_mixture
from .pareto_front import Front as Front, propose_front as propose_front
from .problem import Problem as Problem
from .proposal import Interval as Interval, Proposal as Proposal
from .question import ConstraintsLike as ConstraintsLike, Question as Question, RiskLike as RiskLike
from .recommendation import Gain as Gain, Recommendation as Recommendation
from .sequential import looks as looks
from .validated_trials import with_validated as with_validated
from .validation import (
    VERDICTS as VERDICTS,
    Comparison as Comparison,
    Validation as Validation,
    validation_table as validation_table,
)
from .validation_plan import ValidationPlan as ValidationPlan, fresh_seeds as fresh_seeds

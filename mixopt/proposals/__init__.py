"""From a fit to a mixture, its uncertainty, and the recommendation after validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.proposals.anneal_effects import Anneals as Anneals, Effect as Effect
    from mixopt.proposals.baselines import (
        FullRun as FullRun,
        baseline_mixture as baseline_mixture,
        tempered as tempered,
        unimax as unimax,
    )
    from mixopt.proposals.best_mixture import (
        compared_mixtures as compared_mixtures,
        propose_mixture as propose_mixture,
        search_steps as search_steps,
    )
    from mixopt.proposals.decision import (
        Decision as Decision,
    )
    from mixopt.proposals.forecast import (
        Forecast as Forecast,
        predicted_costs as predicted_costs,
    )
    from mixopt.proposals.mixture_names import (
        PROPOSAL as PROPOSAL,
        is_proposal as is_proposal,
        listed as listed,
        mixture_of as mixture_of,
        named as named,
        proposal_name as proposal_name,
    )
    from mixopt.proposals.mixture_search import (
        search as search,
    )
    from mixopt.proposals.own_mixture import (
        predict_own_mixture as predict_own_mixture,
    )
    from mixopt.proposals.pareto_front import (
        Front as Front,
        propose_front as propose_front,
    )
    from mixopt.proposals.problem import (
        Problem as Problem,
    )
    from mixopt.proposals.proposal import (
        Interval as Interval,
        Proposal as Proposal,
    )
    from mixopt.proposals.question import (
        ConstraintsLike as ConstraintsLike,
        Question as Question,
        RiskLike as RiskLike,
    )
    from mixopt.proposals.recommendation import (
        Gain as Gain,
        Recommendation as Recommendation,
    )
    from mixopt.proposals.sequential import (
        looks as looks,
    )
    from mixopt.proposals.validated_trials import (
        with_validated as with_validated,
    )
    from mixopt.proposals.validation import (
        VERDICTS as VERDICTS,
        Comparison as Comparison,
        Validation as Validation,
        validation_table as validation_table,
    )
    from mixopt.proposals.validation_plan import (
        ValidationPlan as ValidationPlan,
        fresh_seeds as fresh_seeds,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "anneal_effects": ["Anneals", "Effect"],
            "baselines": ["FullRun", "baseline_mixture", "tempered", "unimax"],
            "best_mixture": ["compared_mixtures", "propose_mixture", "search_steps"],
            "decision": ["Decision"],
            "forecast": ["Forecast", "predicted_costs"],
            "mixture_names": [
                "PROPOSAL",
                "is_proposal",
                "listed",
                "mixture_of",
                "named",
                "proposal_name",
            ],
            "mixture_search": ["search"],
            "own_mixture": ["predict_own_mixture"],
            "pareto_front": ["Front", "propose_front"],
            "problem": ["Problem"],
            "proposal": ["Interval", "Proposal"],
            "question": ["ConstraintsLike", "Question", "RiskLike"],
            "recommendation": ["Gain", "Recommendation"],
            "sequential": ["looks"],
            "validated_trials": ["with_validated"],
            "validation": ["VERDICTS", "Comparison", "Validation", "validation_table"],
            "validation_plan": ["ValidationPlan", "fresh_seeds"],
        },
    )

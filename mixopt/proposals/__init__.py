"""From a fit to a mixture, how sure that mixture is, and whether it won when it was validated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.proposals.best_mixture import propose_mixture as propose_mixture
    from mixopt.proposals.mixture_search import search as search
    from mixopt.proposals.own_mixture import predict_own_mixture as predict_own_mixture
    from mixopt.proposals.pareto_front import Front as Front, propose_front as propose_front
    from mixopt.proposals.problem import Problem as Problem
    from mixopt.proposals.proposal import Interval as Interval, Proposal as Proposal
    from mixopt.proposals.question import (
        ConstraintsLike as ConstraintsLike,
        Question as Question,
        RiskLike as RiskLike,
    )
    from mixopt.proposals.validation import (
        PROPOSAL as PROPOSAL,
        Comparison as Comparison,
        Validation as Validation,
        mixture_of as mixture_of,
        plan_validation as plan_validation,
        validation_table as validation_table,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "best_mixture": ["propose_mixture"],
            "mixture_search": ["search"],
            "own_mixture": ["predict_own_mixture"],
            "pareto_front": ["Front", "propose_front"],
            "problem": ["Problem"],
            "proposal": ["Interval", "Proposal"],
            "question": ["ConstraintsLike", "Question", "RiskLike"],
            "validation": [
                "Comparison",
                "PROPOSAL",
                "Validation",
                "mixture_of",
                "plan_validation",
                "validation_table",
            ],
        },
    )

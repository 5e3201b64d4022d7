"""The problem that a search for a mixture solves, and its result.

A mixture that breaks a guardrail is worse than any that keeps them all, and the less it breaks the
better, so a search always has an answer.

A regressor's optimum is where its errors are lucky. With a risk, some standard deviations or a
high quantile over refits are minimised, which prefers a mixture that the trials are sure about.
Which experts of a proxy collapse cannot be predicted, but is known of trials: with the guardrail on
experts a mixture is allowed where the nearest trial (total variation) is one without a collapse.

Shapes: N mixtures, D domains, M losses, G guarded evaluation domains, K trials, B refits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from mixopt.constraints import MISSED, Allowed, Guards
from mixopt.errors import ConfigError
from mixopt.fitting import Predictor, aimed, predict_with_std, select_targets, supports
from mixopt.mixture import pairwise_total_variation
from mixopt.objective import Objective
from mixopt.proposals.request import ProposalRequest
from mixopt.system import Array

if TYPE_CHECKING:
    from mixopt.config import RiskConfig
    from mixopt.constraints import Constraints
    from mixopt.fitting import Fit
    from mixopt.trials import Trials


@dataclass(frozen=True, eq=False)
class Risk:
    """Either so many standard deviations, or a quantile over refits."""

    deviations: float = 0.0
    quantile: float | None = None
    refits: Sequence[Predictor] = ()

    @classmethod
    def from_config(
        cls, config: RiskConfig | None, fit: Fit, refits: Sequence[Predictor]
    ) -> Self | None:
        """Build the risk that a configuration states; None where it states none."""
        if config is None:
            return None
        if config.quantile is not None:
            if not refits:
                raise ConfigError("propose.risk.quantile: needs propose.bootstrap of at least 1")
            return cls(quantile=config.quantile, refits=refits)
        assert config.std is not None
        if not fit.held_out_stds().any():
            raise ConfigError(
                f"propose.risk.std: {fit.name} gives no standard deviations; use"
                " propose.risk.quantile, or a regressor that gives them, such as auto"
            )
        return cls(deviations=config.std)

    def value(self, regressor: Predictor, objective: Objective, weights_ND: Array) -> Array:
        """Return what is minimised in place of the predicted objective, shape (N,)."""
        if self.quantile is not None:
            values_BN = [
                objective.value(np.asarray(one.predict(weights_ND)).reshape(len(weights_ND), -1))
                for one in self.refits
            ]
            high_N: Array = np.quantile(values_BN, self.quantile, axis=0)
            return high_N
        losses_NM, stds_NM = predict_with_std(regressor, weights_ND)
        return objective.value(losses_NM) + self.deviations * objective.spread(stds_NM)


SOURCE = "constraints.guardrails.experts"
NEAR = 1e-3  # in total variation, within which it counts as holding a proposal


@dataclass(frozen=True, eq=False)
class Avoided:
    """The mixtures of trials whose experts collapsed, and of the others."""

    collapsed_KD: Array
    others_KD: Array

    @classmethod
    def of(cls, trials: Trials, collapsed: Collection[str] | None) -> Avoided:
        """Sort the finished trials."""
        if collapsed is None:
            raise ConfigError(
                f"{SOURCE}: the trials have no experts; leave it out, or use a proxy that has "
                "experts (decoder with proxy.options.size: moe-tiny)"
            )
        done = trials.finished
        marked_K = np.array([name in collapsed for name in done.table["trial"]])
        if marked_K.all():
            raise ConfigError(
                f"{SOURCE}: the experts of all {len(marked_K)} trials collapsed, so no mixture "
                "satisfies it; balance the router (proxy.options), or leave it out"
            )
        weights_KD = done.weights()
        return cls(weights_KD[marked_K], weights_KD[~marked_K])

    def excess(self, weights_ND: Array) -> Array:
        """Return by how much nearer a collapsed trial is than another, shape (N,)."""
        if not len(self.collapsed_KD):
            return np.full(len(weights_ND), -1.0)
        to_collapsed_N = pairwise_total_variation(weights_ND, self.collapsed_KD).min(axis=1)
        to_others_N = pairwise_total_variation(weights_ND, self.others_KD).min(axis=1)
        excess_N: Array = to_others_N - to_collapsed_N
        return excess_N

    def binding(self, weights_D: Array) -> list[str]:
        """Name the guardrail where it holds a mixture."""
        if self.excess(weights_D[None])[0] < -NEAR:
            return []
        return [f"a trial whose experts collapsed is as near as any other ({SOURCE})"]


CHUNK = 16_384
KNOWN = 8  # best trials that the search scores too
FAR = 1e9  # what a mixture that breaks a guardrail has before it is compared with others


@dataclass(frozen=True, eq=False)
class Problem:
    """What is minimised over which mixtures.

    Attributes:
        regressor: A fitted regressor of the losses that the objective and the guardrails need,
            and with pilots of the objective's pieces (mixopt.fitting.aimed).
        objective: The objective over its columns.
        allowed: The mixtures that may be proposed.
        natural_D: Where draws are centred.
        known_ND: Mixtures that are worth scoring, such as the trials' best.
        guards: Guardrails on these losses; None for none.
        risk: What is added to the prediction for being unsure; None for nothing.
        avoided: Trials that no proposal may be nearest to; None for none. Descents do not see
            it, and what they find is held against it.
    """

    regressor: Predictor
    objective: Objective
    allowed: Allowed
    natural_D: Array
    known_ND: Array
    guards: Guards | None = None
    risk: Risk | None = None
    avoided: Avoided | None = None

    @classmethod
    def of(cls, request: ProposalRequest, objective: Objective, risk: Risk | None = None) -> Self:
        """Return the search for a proposal, of an objective over all losses of the fit."""
        fit, constraints, compared = request.fit, request.constraints, request.compared(objective)
        done, rails = (request.trials or fit.trials).finished, constraints.guardrails
        order = np.argsort(objective.value(done.losses(objective.unit)), kind="stable")[:KNOWN]
        needed = needed_columns(objective, constraints)
        over = objective.over([fit.targets[column] for column in needed])
        guarded = rails is not None and rails.margins(objective.evaluation)
        return cls(
            *aimed(select_targets(fit.regressor, needed), over),
            constraints.allowed,
            compared["natural"].array,
            done.weights()[order],
            Guards.on(over, rails, compared[rails.mixture].array) if rails and guarded else None,
            risk,
            Avoided.of(done, request.collapsed) if rails is not None and rails.experts else None,
        )

    def losses(self, weights_ND: Array) -> Array:
        """Return predicted losses, shape (N, M)."""
        return np.asarray(self.regressor.predict(weights_ND)).reshape(len(weights_ND), -1)

    def value(self, weights_ND: Array) -> Array:
        """Return the predicted objective, risk included, shape (N,)."""
        return self._in_chunks(weights_ND)[0]

    def score(self, weights_ND: Array) -> Array:
        """Return what the search minimises, shape (N,): the value, or how far guardrails break."""
        value_N, excess_N = self._in_chunks(weights_ND)
        return np.where(excess_N > MISSED, FAR * (1.0 + excess_N), value_N)

    def excess(self, weights_ND: Array) -> Array:
        """Return by how much each guardrail is broken, shape (N, G); below 0 it is kept."""
        if self.guards is None:
            return np.zeros((len(weights_ND), 0))
        reference_M = self.guards.compared(self.losses)
        return self.guards.excess(self.losses(weights_ND), reference_M)

    def slopes(self, weights_D: Array) -> Array:
        """Return the slope of each loss by each weight, shape (M, D), where `has_gradient`."""
        assert supports(self.regressor, "gradient")
        return np.asarray(self.regressor.gradient(weights_D))

    @property
    def has_gradient(self) -> bool:
        """Tell whether the regressor gives gradients."""
        return supports(self.regressor, "gradient")

    def _in_chunks(self, weights_ND: Array) -> tuple[Array, Array]:
        """Return values, and the most by which a guardrail is broken, shape (N,) each."""
        pairs = [
            self._scored(weights_ND[at : at + CHUNK]) for at in range(0, len(weights_ND), CHUNK)
        ]
        values, excesses = zip(*pairs, strict=True)
        return np.concatenate(values), np.concatenate(excesses)

    def _scored(self, weights_ND: Array) -> tuple[Array, Array]:
        losses_NM = self.losses(weights_ND)
        if self.risk is None:
            value_N = self.objective.value(losses_NM)
        else:
            value_N = self.risk.value(self.regressor, self.objective, weights_ND)
        excess_N = np.zeros(len(weights_ND))
        if self.avoided is not None:
            excess_N = np.maximum(excess_N, self.avoided.excess(weights_ND))
        if self.guards is not None:
            reference_M = self.guards.compared(self.losses)
            broken_NG = self.guards.excess(losses_NM, reference_M)
            excess_N = np.maximum(excess_N, broken_NG.max(axis=1))
        return value_N, excess_N


def needed_columns(objective: Objective, constraints: Constraints) -> list[int]:
    """Return positions of the losses that an objective and guardrails depend on."""
    rails = constraints.guardrails
    guarded = [] if rails is None else rails.margins(objective.evaluation)
    names = dict.fromkeys([*objective.measured, *guarded])
    return [objective.evaluation.index(name) for name in names]


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The best mixture of a search: its weights, its score, and which method."""

    weights_D: Array
    value: float
    method: str

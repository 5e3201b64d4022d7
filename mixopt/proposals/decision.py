"""From a validation to the recommended mixture and the reasons: `recommendation.yaml`.

A proposal is recommended if it is significantly better than every baseline, or not significantly
worse than any and better in the mean than all. Otherwise the best other mixture on common seeds is
recommended. Mixtures that break a limit, or significantly break a guardrail, are not considered.

    weights: {<domain>: <share>, ...}
    recommended: {mixture, standing, why}
    natural: {<domain>: <share>, ...}
    objective: {measure, better, unit, tokens}
    gains: {<mixture>: {mean, low, high, level, unit, pairs, tokens, parameters, verdict}}
    predicted_gains: {<mixture>: {...}}
    other_losses: {<evaluation domain>: {...}}
    region: {noise, source, shares: {<domain>: [low, high]}}
    epochs: {<domain>: <passes>} or null
    warnings: [...]
    provenance: {mixopt, proposals, trials}

A bare install reads it, without fit or tables.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np

from mixopt.baselines import FullRun
from mixopt.constraints import BASE, FLOOR, Constraints, Guardrails
from mixopt.difference import HIGHER_UNITS, Difference, Verdict
from mixopt.fitting import Fit
from mixopt.mixture import largest_shares
from mixopt.proposals.best_mixture import epochs_of, predicted_gains, region_around
from mixopt.proposals.proposal import (
    Proposal,
    Region,
    SealedMixture,
    differences_content,
    is_proposal,
    listed,
    named,
    plain,
    weights_content,
    worst_first,
)
from mixopt.proposals.request import ProposalRequest, with_noise
from mixopt.proposals.search import Problem
from mixopt.proposals.validation import Validation
from mixopt.system import StateFields, __version__, difference_text, interval_text

Standing = Literal["significantly better", "better on the mean", "not the proposal", "undecided"]
HEADER = """\
# The mixture to train on, chosen by validation. gains: how much better it is than each other
# mixture, validated and predicted. other_losses: how much better it is than natural on losses
# outside the objective. Everywhere above 0 it is better, below 0 worse.
"""
EDITED = "read it as your own mixture by Mixture.from_file; mixopt run decides again"


@dataclass(frozen=True, kw_only=True)
class Recommendation(SealedMixture):
    """The mixture to train on, why, and what it costs.

    Attributes:
        mixture: The weights.
        chosen: Name of the validated mixture.
        standing: Result of the validation.
        why: The reason, in a sentence.
        natural: Each domain's share of the available tokens.
        objective: The objective, in words.
        unit: Unit of the gains.
        tokens: Tokens of a validation run.
        gains: How much better it is than every other validated mixture, by name.
        predicted_gains: The same as predicted, as far as there are predictions.
        other_losses: How much better than natural it is on each loss outside the objective, worst
            first; below 0 it costs.
        epochs: Epochs of each domain in the full run; None if unknown.
        warnings: Warnings before training on it, one line each.
        provenance: Versions and inputs that it was made from.
        region: Mixtures predicted as good, up to noise.
        phases: Phases of the training, if the mixture is one of their cells; else None.

    Examples:
        >>> run.recommendation.chosen in run.validation.mixtures
        True
        >>> sorted(run.recommendation.gains)
        [...]
    """

    header: ClassVar[str] = HEADER
    hint: ClassVar[str] = EDITED
    mark: ClassVar[str] = "other_losses"
    step: ClassVar[str] = "validate"
    chosen: str
    standing: Standing
    why: str
    tokens: int
    gains: Mapping[str, Difference]
    predicted_gains: Mapping[str, Difference]
    other_losses: Mapping[str, Difference]

    @property
    def headline(self) -> str:
        """The mixture and the reason, in one line."""
        return f"Recommendation: {named(self.chosen, self.gains)}. {self.why}"

    def to_json(self) -> dict[str, Any]:
        """Return the recommendation as JSON values, in the order of the file."""
        return {
            **weights_content(self.mixture, self.phases),
            "recommended": {"mixture": self.chosen, "standing": self.standing, "why": self.why},
            "natural": dict(self.natural),
            "objective": {
                "measure": self.objective,
                "better": self.better,
                "unit": self.unit,
                "tokens": self.tokens,
            },
            "gains": differences_content(self.gains),
            "predicted_gains": differences_content(self.predicted_gains),
            "other_losses": differences_content(self.other_losses),
            "region": plain(self.region),
            "epochs": plain(self.epochs),
            "warnings": list(self.warnings),
            "provenance": dict(self.provenance),
        }

    def __repr__(self) -> str:
        """Return name, largest shares and standing of the mixture."""
        return f"Recommendation({self.chosen}: {largest_shares(self.mixture)}; {self.standing})"

    @classmethod
    def _own_fields(cls, fields: StateFields) -> dict[str, Any]:
        chosen = fields.part("recommended")
        return {
            "chosen": chosen.text("mixture"),
            "standing": chosen.one_of("standing", get_args(Standing)),
            "why": chosen.text("why"),
            "tokens": fields.part("objective").whole("tokens"),
            "gains": Difference.read_all(fields.part("gains")),
            "predicted_gains": Difference.read_all(fields.part("predicted_gains")),
            "other_losses": Difference.read_all(fields.part("other_losses")),
        }


class Guarded(NamedTuple):
    """A guarded loss: its reference, its margin, and its validated difference."""

    target: str
    reference: str
    margin: float
    difference: Difference

    @property
    def is_broken(self) -> bool:
        """Whether the mean is worse than allowed."""
        return self.difference.mean < -self.margin

    @property
    def is_surely_broken(self) -> bool:
        """Whether the whole interval is worse than allowed."""
        return self.difference.high < -self.margin

    def __str__(self) -> str:
        """Return the gain beside the smallest allowed one."""
        gain = self.difference
        allowed = f"{-self.margin or 0.0:g}".replace("-", "\N{MINUS SIGN}")
        interval = interval_text(gain.low, gain.high)
        return (
            f"{self.target}: gain over {named(self.reference)} {difference_text(gain.mean)}"
            f" (95% {interval}), allowed {allowed}"
        )


def guarded(validation: Validation, rails: Guardrails | None, name: str) -> list[Guarded]:
    """Return the validated losses of a mixture under guardrails."""
    if rails is None:
        return []
    evaluation = validation.objective.evaluation
    reference = rails.reference
    checks = []
    for target, floor in rails.floors_of(evaluation).items():
        difference = validation.compare_with(floor, target, of=name)
        if difference is not None:
            checks.append(Guarded(target, FLOOR, 0.0, difference))
    base = rails.base if reference == BASE else None
    for target, margin in rails.margins(evaluation).items():
        if base is not None:
            difference = validation.compare_with(base[target], target, of=name)
        elif reference in validation.mixtures:
            difference = validation.compare(reference, target, of=name)
        else:
            break
        if difference is not None and not difference.is_same:
            checks.append(Guarded(target, reference, margin, difference))
    return checks


@dataclass(frozen=True, eq=False)
class Decision:
    """Input of a recommendation.

    Attributes:
        validation: Proposals and baselines with several seeds each.
        proposals: The proposals, by their names in the validation.
        fit: The fit behind the proposals.
        constraints: Constraints on the recommendation.
        full: The run that the mixture is for.
        tokens: Tokens of a validation run.
    """

    validation: Validation
    proposals: Mapping[str, Proposal]
    fit: Fit
    constraints: Constraints
    full: FullRun
    tokens: int

    def recommend(self) -> Recommendation:
        """Return the mixture to train on, with reasons and costs."""
        chosen, standing, why = self._choice()
        mixture = self.validation.mixture(chosen)
        objective = self.validation.objective
        region = self._region(chosen)
        gains = self._gains(chosen)
        return Recommendation(
            mixture=mixture,
            chosen=chosen,
            standing=standing,
            why=f"{why} {region.describe(objective.value_unit)}",
            natural=self.full.natural.over(mixture.domains),
            objective=objective.describe(),
            unit=objective.value_unit,
            tokens=self.tokens,
            gains=gains,
            predicted_gains=self._predicted_gains(chosen, gains),
            other_losses=self._other_losses(chosen),
            epochs=epochs_of(mixture, self.full.inventory, self.full.target_tokens),
            warnings=(*self.validation.problems, *self._passed_over(chosen), *self._unsure(chosen)),
            provenance=self._provenance(),
            region=region,
            phases=self.full.phases,
        )

    def _region(self, chosen: str) -> Region:
        """Return the region of mixtures as good: a proposal's own, or predicted for a baseline."""
        region = self.proposals[chosen].region if chosen in self.proposals else None
        if region is not None:
            return region
        limits, domains = self.constraints, self.fit.domains
        if limits.guardrails is not None:
            limits = replace(limits, guardrails=replace(limits.guardrails, experts=False))
        natural, phases = self.full.natural.over(domains), self.full.phases
        request = ProposalRequest(self.fit, limits, natural, phases=phases)
        mixture = self.validation.mixture(chosen).over(domains)
        return region_around(Problem.of(request), request, mixture)

    def _choice(self) -> tuple[str, Standing, str]:
        """Return the mixture, its standing, and the reason in a sentence."""
        validation = self.validation
        leading = validation.leading
        if not validation.baselines:
            return leading, "undecided", "It was not compared with another mixture."
        if not validation.differences:
            why = "Too few runs finished to compare the proposal; this is the first baseline."
            return validation.baselines[0], "undecided", why
        if all(name in self._barred for name in validation.baselines):
            return leading, "undecided", "The constraints allow none of the baselines."
        for name in sorted(validation.proposals, key=validation.mean_to_minimise):
            gains = self._allowed_gains(name)
            if gains and not self._objections(name):
                return name, _standing(gains), _praise(gains)
        return self._best_other(leading)

    def _allowed_gains(self, proposal: str) -> dict[str, Difference]:
        """Return how much better a proposal is than each allowed baseline."""
        gains = self.validation.differences_of(proposal)
        return {name: gain for name, gain in gains.items() if name not in self._barred}

    def _best_other(self, leading: str) -> tuple[str, Standing, str]:
        """Return the best allowed baseline, if no proposal is good enough."""
        allowed = [name for name in self.validation.baselines if name not in self._barred]
        means = {name: self._shared_mean(name, allowed) for name in allowed}
        best = min(allowed, key=lambda name: means[name])
        name = named(leading, self.validation.mixtures)
        why = f"{_capital(name)} {self._objections(leading)[0]}."
        return best, "not the proposal", f"{self._best_of(best, allowed)} {why}"

    def _best_of(self, best: str, allowed: Sequence[str]) -> str:
        """Return the reason for the best allowed baseline."""
        name = _capital(named(best))
        are_all = len(allowed) == len(self.validation.baselines)
        if len(allowed) == 1:
            return f"{name} is the only baseline{'' if are_all else ' allowed'}."
        objective = self.validation.objective
        rank = "best" if objective.value_unit in HIGHER_UNITS else "lowest"
        value = "objective" if objective.higher else "loss"
        which = "" if are_all else " that are allowed"
        return f"{name} has the {rank} validated {value} of the baselines{which}."

    def _objections(self, proposal: str) -> list[str]:
        """Return why a proposal is not recommended; empty if it is."""
        gains = self._allowed_gains(proposal)
        better = {name: gain for name, gain in gains.items() if gain.mean < 0}
        objections = []
        for verdict, text in BLAME.items():
            judged = [name for name, gain in better.items() if gain.verdict == verdict]
            if judged:
                worst = min(judged, key=lambda name: better[name].mean)
                objections.append(f"{text}gain over {named(worst)} {better[worst].text}")
        return objections + self._barred.get(proposal, [])

    @cached_property
    def _barred(self) -> dict[str, list[str]]:
        """The limits and guardrails broken by each mixture."""
        barred = {}
        for name in self.validation.mixtures:
            broken = self.constraints.violations(self.validation.mixture(name))
            lines = [f"breaks a limit: {line.rstrip('.')}" for line in broken]
            checks = [check for check in self._guarded(name) if check.is_surely_broken]
            lines += [f"breaks the guardrail on {check}" for check in checks]
            if lines:
                barred[name] = lines
        return barred

    def _unsure(self, name: str) -> list[str]:
        """Return a note on guardrails broken in the mean but not significantly."""
        return [
            f"it may break the guardrail on {check}"
            for check in self._guarded(name)
            if check.is_broken and not check.is_surely_broken
        ]

    def _guarded(self, name: str) -> list[Guarded]:
        constraints = with_noise(self.constraints, self.fit)
        return guarded(self.validation, constraints.guardrails, name)

    def _passed_over(self, chosen: str) -> list[str]:
        """Return a note on baselines that were better in the mean but are not allowed."""
        mean = self.validation.mean_to_minimise(chosen)
        return [
            f"{named(name)} has a better mean and is not recommended: it {lines[0]}"
            for name, lines in self._barred.items()
            if name != chosen
            and not is_proposal(name)
            and self.validation.mean_to_minimise(name) < mean
        ]

    def _shared_mean(self, name: str, names: Sequence[str]) -> float:
        """Return the mean to minimise of a mixture over the seeds common to several."""
        values = [self.validation.values(other) for other in names]
        shared = set.intersection(*(set(by_seed) for by_seed in values))
        losses = self.validation.values(name)
        compared = [losses[seed] for seed in shared] or list(losses.values())
        if not compared:
            return float("inf")
        return self.validation.objective.turned_value(float(np.mean(compared)))

    def _gains(self, chosen: str) -> dict[str, Difference]:
        """Return how much better a mixture is than every other one with enough seeds."""
        gains = {}
        for name in self.validation.mixtures:
            if name == chosen:
                continue
            gain = self.validation.compare(name, of=chosen)
            if gain is not None:
                gains[name] = gain.rounded()
        return gains

    def _predicted_gains(self, chosen: str, names: Collection[str]) -> dict[str, Difference]:
        """Return the predicted gains over others: the proposal's own, else the fit's."""
        domains = self.fit.domains
        compared = {name: self.validation.mixture(name).over(domains) for name in names}
        mixture = self.validation.mixture(chosen).over(domains)
        gains = predicted_gains(self.fit, self.validation.objective, mixture, compared)
        if chosen in self.proposals:
            own = self.proposals[chosen].gains
            gains |= {name: gain for name, gain in own.items() if name in names}
        return gains

    def _other_losses(self, chosen: str) -> dict[str, Difference]:
        """Return how much better than natural a mixture is on losses outside the objective."""
        if chosen == "natural" or "natural" not in self.validation.mixtures:
            return {}
        objective = self.validation.objective
        differences = {}
        for target in objective.evaluation:
            if target in objective.measured:
                continue
            difference = self.validation.compare("natural", target, of=chosen)
            if difference is not None:
                differences[target] = difference.rounded()
        return worst_first(differences)

    def _provenance(self) -> dict[str, object]:
        prints = {name: self.validation.mixture(name).fingerprint for name in self.proposals}
        return {"mixopt": __version__, "proposals": prints, "trials": self.fit.fingerprint}


BLAME: dict[Verdict, str] = {
    "worse": "is significantly worse: ",
    "not significant": "is not significantly better: ",
}
PRAISE: dict[Verdict, str] = {
    "better": "is significantly better than {}",
    "not significant": "is better on the mean than {}, but the difference is not significant",
    "same mixture": "is the same mixture as {}",
}


def _standing(gains: Mapping[str, Difference]) -> Standing:
    """Return the standing of a recommended proposal."""
    if all(gain.verdict in ("better", "same mixture") for gain in gains.values()):
        return "significantly better"
    return "better on the mean"


def _praise(gains: Mapping[str, Difference]) -> str:
    """Return the baselines that a recommended proposal beats, in words."""
    parts = []
    for verdict, text in PRAISE.items():
        names = [name for name, gain in gains.items() if gain.verdict == verdict]
        if names:
            parts.append(text.format(listed(names)))
    pairs = sorted({gain.pairs for gain in gains.values() if gain.pairs is not None})
    seeds = " to ".join(str(count) for count in dict.fromkeys([pairs[0], pairs[-1]]))
    return f"It {', and '.join(parts)} ({seeds} seeds, paired 95% intervals)."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

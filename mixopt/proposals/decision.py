"""From a validation to the recommended mixture and the reasons: `recommendation.yaml`.

A proposal is recommended if it is significantly better than every baseline, or not significantly
worse than any and better in the mean than all. Otherwise the best other mixture on common seeds is
recommended. Mixtures that break a limit, or significantly break a guardrail, are not considered.

    weights: {<domain>: <share>, ...}
    recommended: {mixture, standing, why}
    natural: {<domain>: <share>, ...}
    objective: {minimised, unit, tokens}
    gains: {<mixture>: {validated: {value, low, high}, seeds, verdict, predicted: {...} or null}}
    costs: {<evaluation domain>: {value, low, high}}
    region: {noise, source, shares: {<domain>: [low, high]}}
    epochs: {<domain>: <passes>} or null
    warnings: [...]
    provenance: {mixopt, proposals, trials}

A bare install reads it, without fit or tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

import numpy as np

from mixopt.constraints import BASE, FLOOR, Constraints, Guardrails
from mixopt.fitting import Fit
from mixopt.mixture import largest_shares
from mixopt.objective import SHOWN, gain_ends_text, gain_text, unit_text
from mixopt.proposals.baselines import FullRun
from mixopt.proposals.best_mixture import epochs_of, predicted_gains, region_around
from mixopt.proposals.proposal import (
    Interval,
    Proposal,
    Region,
    SealedMixture,
    is_proposal,
    listed,
    named,
    plain,
    read_intervals,
    weights_content,
)
from mixopt.proposals.request import ProposalRequest, with_noise
from mixopt.proposals.search import Problem
from mixopt.proposals.validation import VERDICTS, Comparison, Validation, Verdict
from mixopt.system import StateFields, __version__, difference_text, interval_text

Standing = Literal["significantly better", "better on the mean", "not the proposal", "undecided"]
HEADER = """\
# The mixture to train on, chosen by validation. Gains: the held-out loss of another mixture - this
# one's; above 0 this one is better. Costs: this one's loss - that of the natural mixture; above 0
# this one is worse. Intervals of validated values are 95%, those of predictions 90%.
"""
EDITED = "read it as your own mixture by Mixture.from_file; mixopt run decides again"


@dataclass(frozen=True)
class Gain:
    """Gain of the recommended mixture over another one; above 0 is better.

    Attributes:
        validated: From validation runs with paired seeds, with a 95% interval.
        seeds: Number of pairs of runs.
        verdict: `better`, `not significant`, `worse` or `same mixture`.
        predicted: From the fit, with a 90% interval; None without a prediction.
    """

    validated: Interval
    seeds: int
    verdict: str
    predicted: Interval | None = None

    @classmethod
    def read(cls, fields: StateFields) -> Self:
        """Read a gain from fields of a file."""
        return cls(
            Interval.read(fields.part("validated")),
            fields.whole("seeds"),
            fields.text("verdict"),
            fields.maybe("predicted", lambda name: Interval.read(fields.part(name))),
        )


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
        gains: Gains over every other validated mixture, by name.
        costs: Change against natural of each loss outside the objective; above 0 is worse, with a
            95% interval, in the losses' unit.
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
    chosen: str
    standing: Standing
    why: str
    tokens: int
    gains: Mapping[str, Gain]
    costs: Mapping[str, Interval]

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
            "objective": {"minimised": self.objective, "unit": self.unit, "tokens": self.tokens},
            "gains": plain(self.gains),
            "costs": plain(self.costs),
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
        chosen, gains = fields.part("recommended"), fields.part("gains")
        return {
            "chosen": chosen.text("mixture"),
            "standing": chosen.one_of("standing", get_args(Standing)),
            "why": chosen.text("why"),
            "tokens": fields.part("objective").whole("tokens"),
            "gains": {name: Gain.read(gains.part(name)) for name in gains.content},
            "costs": read_intervals(fields.part("costs")),
        }


class Guarded(NamedTuple):
    """A guarded loss: its reference, its margin, and its validated difference."""

    target: str
    reference: str
    margin: float
    comparison: Comparison

    def __str__(self) -> str:
        """Return the gain beside the smallest allowed one."""
        comparison = self.comparison
        allowed = f"{-self.margin or 0.0:g}".replace("-", "\N{MINUS SIGN}")
        return (
            f"{self.target}: gain over {named(self.reference)} {difference_text(-comparison.mean)}"
            f" (95% {interval_text(-comparison.high, -comparison.low)}), allowed {allowed}"
        )


def guarded(validation: Validation, rails: Guardrails | None, name: str) -> list[Guarded]:
    """Return the validated losses of a mixture under guardrails."""
    if rails is None:
        return []
    evaluation, reference = validation.objective.evaluation, rails.reference
    base = rails.base if reference == BASE else None
    checks = [
        Guarded(target, FLOOR, 0.0, comparison)
        for target, floor in rails.floors_of(evaluation).items()
        if (comparison := validation.compare_with(FLOOR, floor, target, of=name))
    ]
    for target, margin in rails.margins(evaluation).items():
        if base is not None:
            comparison = validation.compare_with(BASE, base[target], target, of=name)
        elif reference in validation.mixtures:
            comparison = validation.compare(reference, target, of=name)
        else:
            break
        if comparison is not None and not comparison.same:
            checks.append(Guarded(target, reference, margin, comparison))
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
        objective, region = self.validation.objective, self._region(chosen)
        return Recommendation(
            mixture=mixture,
            chosen=chosen,
            standing=standing,
            why=f"{why} {region.describe(objective.value_unit)}",
            natural=self.full.natural.over(mixture.domains),
            objective=objective.describe(),
            unit=objective.value_unit,
            tokens=self.tokens,
            gains=self._gains(chosen),
            costs=self._costs(chosen),
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
        if not validation.comparisons:
            why = "Too few runs finished to compare the proposal; this is the first baseline."
            return validation.baselines[0], "undecided", why
        if all(name in self._barred for name in validation.baselines):
            return leading, "undecided", "The constraints allow none of the baselines."
        for name in sorted(validation.proposals, key=validation.mean):
            rivals = self._rivals(name)
            if rivals and not self._objections(name):
                wins = all(rival.verdict in ("wins", "same mixture") for rival in rivals)
                return (
                    name,
                    "significantly better" if wins else "better on the mean",
                    _praise(rivals),
                )
        return self._best_other(leading)

    def _rivals(self, proposal: str) -> list[Comparison]:
        """Compare a proposal with each allowed baseline."""
        comparisons = self.validation.comparisons_of(proposal)
        return [comparison for comparison in comparisons if comparison.baseline not in self._barred]

    def _best_other(self, leading: str) -> tuple[str, Standing, str]:
        """Return the best allowed baseline, if no proposal is good enough."""
        allowed = [name for name in self.validation.baselines if name not in self._barred]
        means = {name: self._shared_mean(name, allowed) for name in allowed}
        best = min(allowed, key=lambda name: means[name])
        name = named(leading, self.validation.mixtures)
        why = f"{_capital(name)} {self._objections(leading)[0]}."
        return best, "not the proposal", f"{self._best_of(best, allowed)} {why}"

    def _best_of(self, best: str, permitted: Sequence[str]) -> str:
        """Return the reason for the best allowed baseline."""
        name, are_all = _capital(named(best)), len(permitted) == len(self.validation.baselines)
        if len(permitted) == 1:
            return f"{name} is the only baseline{'' if are_all else ' allowed'}."
        best = "best" if self.validation.objective.value_unit in SHOWN else "lowest"
        value = "objective" if self.validation.objective.higher else "loss"
        allowed = "" if are_all else " that are allowed"
        return f"{name} has the {best} validated {value} of the baselines{allowed}."

    def _objections(self, proposal: str) -> list[str]:
        """Return why a proposal is not recommended; empty if it is."""
        better = [rival for rival in self._rivals(proposal) if rival.mean > 0]
        objections = []
        for verdict, text in BLAME.items():
            rivals = [rival for rival in better if rival.verdict == verdict]
            if rivals:
                best = max(rivals, key=lambda rival: rival.mean)
                objections.append(text + self._gain_text(best))
        return objections + self._barred.get(proposal, [])

    def _gain_text(self, comparison: Comparison) -> str:
        """Return a gain in the objective, with its unit."""
        unit = self.validation.objective.value_unit
        gain, interval = (
            gain_text(-comparison.mean, unit),
            gain_ends_text(-comparison.high, -comparison.low, unit),
        )
        return f"gain over {named(comparison.baseline)} {gain} {unit_text(unit)} (95% {interval})"

    @cached_property
    def _barred(self) -> dict[str, list[str]]:
        """The limits and guardrails broken by each mixture."""
        barred = {}
        for name in self.validation.mixtures:
            broken = self.constraints.violations(self.validation.mixture(name))
            guarded = [
                check for check in self._guarded(name) if check.comparison.low > check.margin
            ]
            barred[name] = [f"breaks a limit: {line.rstrip('.')}" for line in broken]
            barred[name] += [f"breaks the guardrail on {check}" for check in guarded]
        return {name: lines for name, lines in barred.items() if lines}

    def _unsure(self, name: str) -> list[str]:
        """Return a note on guardrails broken in the mean but not significantly."""
        return [
            f"it may break the guardrail on {check}"
            for check in self._guarded(name)
            if check.comparison.low <= check.margin < check.comparison.mean
        ]

    def _guarded(self, name: str) -> list[Guarded]:
        constraints = with_noise(self.constraints, self.fit)
        return guarded(self.validation, constraints.guardrails, name)

    def _passed_over(self, chosen: str) -> list[str]:
        """Return a note on baselines that were better in the mean but are not allowed."""
        mean = self.validation.mean(chosen)
        return [
            f"{named(name)} has a better mean and is not recommended: it {lines[0]}"
            for name, lines in self._barred.items()
            if name != chosen and not is_proposal(name) and self.validation.mean(name) < mean
        ]

    def _shared_mean(self, name: str, names: Sequence[str]) -> float:
        """Return the mean of a mixture over the seeds common to several."""
        values = [self.validation.values(other) for other in names]
        shared = set.intersection(*(set(by_seed) for by_seed in values))
        losses = self.validation.values(name)
        compared = [losses[seed] for seed in shared] or list(losses.values())
        return float(np.mean(compared)) if compared else float("inf")

    def _gains(self, chosen: str) -> dict[str, Gain]:
        """Return validated and predicted gains over every other mixture."""
        names = [name for name in self.validation.mixtures if name != chosen]
        predicted = self._predicted(chosen, names)
        gains = {}
        for name in names:
            comparison = self.validation.compare(name, of=chosen)
            if comparison is not None:
                validated = Interval.rounded(-comparison.mean, -comparison.high, -comparison.low)
                verdict = VERDICTS[comparison.verdict][1]
                gains[name] = Gain(validated, comparison.seeds, verdict, predicted[name])
        return gains

    def _predicted(self, chosen: str, names: Sequence[str]) -> dict[str, Interval]:
        """Return the predicted gains: the proposal's own, else the fit's."""
        domains = self.fit.domains
        compared = {name: self.validation.mixture(name).over(domains) for name in names}
        mixture = self.validation.mixture(chosen).over(domains)
        gains = predicted_gains(self.fit, self.validation.objective, mixture, compared)
        proposed = self.proposals[chosen].gains if chosen in self.proposals else {}
        return {**gains, **proposed}

    def _costs(self, chosen: str) -> dict[str, Interval]:
        """Return the changes of losses outside the objective, worst first."""
        if chosen == "natural" or "natural" not in self.validation.mixtures:
            return {}
        objective = self.validation.objective
        costs = {
            target: Interval.rounded(cost.mean, cost.low, cost.high)
            for target in objective.evaluation
            if target not in objective.measured
            and (cost := self.validation.compare("natural", target, of=chosen)) is not None
        }
        return dict(sorted(costs.items(), key=lambda item: -item[1].value))

    def _provenance(self) -> dict[str, object]:
        prints = {name: self.validation.mixture(name).fingerprint for name in self.proposals}
        return {"mixopt": __version__, "proposals": prints, "trials": self.fit.fingerprint}


BLAME: dict[Verdict, str] = {
    "loses": "is significantly worse: ",
    "not significant": "is not significantly better: ",
}
PRAISE: dict[Verdict, str] = {
    "wins": "is significantly better than {}",
    "not significant": "is better on the mean than {}, but the difference is not significant",
    "same mixture": "is the same mixture as {}",
}


def _praise(comparisons: Sequence[Comparison]) -> str:
    """Return the baselines that a recommended proposal beats, in words."""
    parts = []
    for verdict, text in PRAISE.items():
        names = [c.baseline for c in comparisons if c.verdict == verdict]
        if names:
            parts.append(text.format(listed(names)))
    seeds = [comparison.seeds for comparison in comparisons]
    counted = " to ".join(str(count) for count in sorted({min(seeds), max(seeds)}))
    return f"It {', and '.join(parts)} ({counted} seeds, paired 95% intervals)."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

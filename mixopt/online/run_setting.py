"""The user's settings of a run, and those that its estimator receives at the start.

Shapes: D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixopt.errors import EstimatorError, did_you_mean
from mixopt.online.contract import Estimator, Need, Setting
from mixopt.sampling import MixtureSampler
from mixopt.system import Array

Lengths = float | Mapping[str, float]
Bounds = Mapping[str, tuple[float, float]]
Evaluate = Callable[[], Mapping[str, tuple[float, ...]]]

_HOW: dict[str, str] = {
    "held_out": "held-out losses: DriverOptions(evaluate=), which returns"
    " {name: (loss_sum, tokens)} of this rank",
    "excess_loss": "the losses of a reference model: record(..., reference_losses=), declared by "
    "DriverOptions(gives=['excess_loss'])",
    "alignment": "inner products of gradients: record_alignment(values_D), declared by "
    "DriverOptions(gives=['alignment'])",
}
_GIVABLE = ("excess_loss", "alignment")


@dataclass(frozen=True, kw_only=True, eq=False)
class DriverOptions:
    """The run that is driven, what its loop gives, and how the driver goes about it.

    Attributes:
        steps: Optimiser steps of the whole run.
        tokens_per_sample: Tokens of a sample, for all domains or by domain.
        accumulation: Global batches of an optimiser step.
        evaluations: Names of the evaluation domains; the domains if not given.
        objective: Weight of each evaluation domain's loss; all alike if not given.
        natural: Share of each domain in the corpus; by default of the sampler's rows.
        inventory: Distinct tokens of each domain; by default those of the sampler's rows.
        bounds: Least and most share of domains; 0 and 1 where not given.
        seed: Of what the estimator draws.
        evaluate: Evaluates held-out text: for each evaluation domain the sum of this rank's
            losses in nats, how many tokens they are of, and optionally the sum of their
            squares. Called on every rank.
        gives: What the loop records besides losses: 'excess_loss', 'alignment'.
        observe_every: Steps between sums over ranks.
        lead: Steps that a sum has until it is waited for.
        spike: Rise of losses in nats per token that freezes the mixture; None for any.
        shadow: Log what would be done, and change nothing.
        log: The mixture log, JSON lines, written by rank 0.
    """

    steps: int
    tokens_per_sample: Lengths
    accumulation: int = 1
    evaluations: Sequence[str] | None = None
    objective: Mapping[str, float] | None = None
    natural: Mapping[str, float] | None = None
    inventory: Mapping[str, float] | None = None
    bounds: Bounds | None = None
    seed: int = 0
    evaluate: Evaluate | None = None
    gives: Collection[Need] = ()
    observe_every: int = 10
    lead: int = 1
    spike: float | None = 1.0
    shadow: bool = False
    log: Path | None = None

    def __post_init__(self) -> None:
        """Check counts, and what the loop is said to give."""
        for name, least in (("steps", 1), ("accumulation", 1), ("observe_every", 1), ("lead", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise EstimatorError(f"{name}: {value!r} is not a whole number >= {least}")
        for need in self.gives:
            if need not in _GIVABLE:
                raise EstimatorError(f"gives: {need!r}{did_you_mean(need, _GIVABLE)}")

    def check_needs(self, estimator: Estimator) -> None:
        """Check that the loop gives an estimator what it needs.

        Raises:
            EstimatorError: Something is missing; the message says how to give it.
        """
        held_out = [] if self.evaluate is None else ["held_out"]
        given = {"training_loss", *self.gives, *held_out}
        for need in sorted(estimator.needs):
            if need not in given:
                how = _HOW.get(need, f"{need!r}, which this driver does not provide")
                raise EstimatorError(f"{type(estimator).__name__} needs {how}")

    def setting(self, sampler: MixtureSampler) -> Setting:
        """Return the setting; the reference is the mixture of the sampler's next batch.

        Raises:
            EstimatorError: A domain that the sampler does not have, an evaluation domain that is
                not evaluated, or numbers that cannot be right.
        """
        domains = sampler.domains
        lengths_D = lengths_of(self.tokens_per_sample, domains)
        tokens_D = lengths_D * np.array(list(sampler.sizes.values()), np.float64)
        names = tuple(domains if self.evaluations is None else self.evaluations)
        reference_D = sampler.mixture_at(sampler.batch).array
        mean_length = 1.0 / (reference_D / lengths_D).sum()
        lower_D, upper_D = _bounds(self.bounds, domains)
        inventory = self.inventory
        tokens = max(round(sampler.batch_size * self.accumulation * mean_length), 1)
        return Setting(
            domains=domains,
            steps=self.steps,
            tokens_per_step=tokens,
            reference_D=reference_D,
            natural_D=_shares("natural", self.natural, domains, tokens_D),
            evaluations=names,
            objective_M=_shares("objective", self.objective, names, np.ones(len(names))),
            lower_D=lower_D,
            upper_D=upper_D,
            inventory_D=tokens_D if inventory is None else _values("inventory", inventory, domains),
            seed=self.seed,
        )


def lengths_of(tokens_per_sample: Lengths, domains: Sequence[str]) -> Array:
    """Return the tokens of a sample of each domain, shape (D,)."""
    if isinstance(tokens_per_sample, Mapping):
        lengths_D = _values("tokens_per_sample", tokens_per_sample, domains)
    else:
        lengths_D = np.full(len(domains), float(tokens_per_sample))
    if not (lengths_D > 0).all():
        raise EstimatorError(f"tokens_per_sample: {tokens_per_sample}; they are > 0")
    return lengths_D


def _shares(
    field: str, given: Mapping[str, float] | None, names: Sequence[str], default: Array
) -> Array:
    """Return shares of names; those that are left out have none."""
    if given is None:
        shares: Array = default / default.sum()
        return shares
    _check_names(field, given, names)
    values = np.array([float(given.get(name, 0.0)) for name in names])
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise EstimatorError(f"{field}: {dict(given)}; weights must be >= 0, and at least one > 0")
    return np.asarray(values / values.sum())


def _values(field: str, given: Mapping[str, float], domains: Sequence[str]) -> Array:
    _check_names(field, given, domains)
    for name in domains:
        if name not in given:
            raise EstimatorError(f"{field}: domain {name!r} is left out")
    return np.array([float(given[name]) for name in domains])


def _bounds(bounds: Bounds | None, domains: Sequence[str]) -> tuple[Array, Array]:
    _check_names("bounds", bounds or {}, domains)
    pairs = [(bounds or {}).get(name, (0.0, 1.0)) for name in domains]
    return np.array([float(low) for low, _ in pairs]), np.array([float(high) for _, high in pairs])


def _check_names(field: str, given: Iterable[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            kind = "an evaluation domain" if field == "objective" else "a domain of the sampler"
            raise EstimatorError(f"{field}: {name!r} is not {kind}{did_you_mean(name, known)}")

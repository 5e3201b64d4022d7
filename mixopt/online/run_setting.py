"""Make the setting of an estimator from a sampler and what the user says of the run.

Shapes: D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mixopt.errors import EstimatorError, did_you_mean
from mixopt.online.contract import Setting
from mixopt.sampling import MixtureSampler
from mixopt.system import Array

Lengths = float | Mapping[str, float]
Bounds = Mapping[str, tuple[float, float]]


def setting_of(
    sampler: MixtureSampler,
    *,
    steps: int,
    step_samples: int,
    lengths_D: Array,
    evaluations: Sequence[str] | None,
    objective: Mapping[str, float] | None,
    natural: Mapping[str, float] | None,
    inventory: Mapping[str, float] | None,
    bounds: Bounds | None,
    seed: int,
) -> Setting:
    """Return the setting; the reference is the mixture of the sampler's next batch.

    Raises:
        EstimatorError: A domain that the sampler does not have, an evaluation domain that is not
            evaluated, or numbers that cannot be right.
    """
    domains = sampler.domains
    tokens_D = lengths_D * np.array(list(sampler.sizes.values()), np.float64)
    names = tuple(domains if evaluations is None else evaluations)
    reference_D = sampler.mixture_at(sampler.batch).array
    mean_length = 1.0 / (reference_D / lengths_D).sum()
    lower_D, upper_D = _bounds(bounds, domains)
    return Setting(
        domains=domains,
        steps=steps,
        tokens_per_step=max(round(step_samples * mean_length), 1),
        reference_D=reference_D,
        natural_D=_shares("natural", natural, domains, tokens_D),
        evaluations=names,
        objective_M=_shares("objective", objective, names, np.ones(len(names))),
        lower_D=lower_D,
        upper_D=upper_D,
        inventory_D=tokens_D if inventory is None else _values("inventory", inventory, domains),
        seed=seed,
    )


def lengths_of(tokens_per_sample: Lengths, domains: Sequence[str]) -> Array:
    """Return the tokens of a sample of each domain, shape (D,).

    Raises:
        EstimatorError: Not > 0, or a domain that is unknown or left out.
    """
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
        raise EstimatorError(f"{field}: {dict(given)}; weights are >= 0, and one is > 0")
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
            kind = "evaluation domain" if field == "objective" else "domain of the sampler"
            raise EstimatorError(f"{field}: {name!r} is no {kind}{did_you_mean(name, known)}")

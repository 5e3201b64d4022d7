"""A proposal: the mixture to train on, its predicted losses, and their uncertainty.

proposal.yaml starts with `weights:`, so that whatever reads a mixture reads it. A bare install
reads and shows a proposal: nothing here needs more than numpy and a YAML reader.

    weights:            share of each domain
    natural:            each domain's share of the available tokens
    objective:          what was minimised, and the value that is predicted
    gain:               how much lower that is than for other mixtures
    losses:             predicted loss of each evaluation domain
    epochs:             passes over each domain's tokens in the full run
    binding:            active constraints
    effective_domains:  the exponential of the weights' entropy
    stability:          how far it moves when the trials are resampled
    optimism:           by how much the predicted objective is optimistic
    warnings:           what to know before training on it
    provenance:         what it was made from
    sha256:             the seal of all that: an edited file is not a proposal
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from mixopt.errors import MixtureError, RunError
from mixopt.mixture import Mixture, largest_shares
from mixopt.objective import UNITS
from mixopt.system import (
    SEAL,
    Array,
    StateFields,
    check_seal,
    read_yaml,
    sealed,
    write_text,
)

BEST = 0.1  # share of the held-out trials that count as predicted best
MIN_TRIALS = 3


@dataclass(frozen=True)
class Optimism:
    """By how much the predicted objective of an optimum is optimistic.

    None for a mixture without a search.
    """

    estimate: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return the number as a plain value."""
        return asdict(self)


def estimate_optimism(predicted_N: Array, observed_N: Array) -> Optimism:
    """Estimate the optimism of a proposal."""
    count = max(MIN_TRIALS, int(np.ceil(BEST * len(predicted_N))))
    best = np.argsort(predicted_N, kind="stable")[:count]
    return Optimism(round(float((observed_N[best] - predicted_N[best]).mean()), 6))


OWN = "read it as a mixture of your own: Mixture.from_file, or load_run(DIR).proposal to predict it"
EDITED_BY_HAND = "edited by hand"
HEADER = """\
# A data mixture that mixopt proposes; what to train on once it is validated is in
# recommendation.yaml. Numbers are predictions for trials like those that were
# fitted; low and high bound 90% of the errors on held-out mixtures.
"""


@dataclass(frozen=True)
class Interval:
    """A predicted number and the bounds of its 90% interval, to six decimals."""

    value: float
    low: float
    high: float

    @classmethod
    def around(cls, value: float, half: float) -> Self:
        """Build an interval from its middle and half of its width."""
        return cls(
            round(float(value), 6), round(float(value - half), 6), round(float(value + half), 6)
        )

    def to_json(self) -> dict[str, float]:
        """Return the numbers as plain values."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Stability:
    """How far the optimum moves over refits on resampled trials, in total variation from 0 to 1."""

    refits: int
    mean: float
    high: float  # the 90% quantile

    def to_json(self) -> dict[str, float]:
        """Return the numbers as plain values."""
        return {"refits": self.refits, "mean": self.mean, "high": self.high}


@dataclass(frozen=True)
class Proposal:
    """The mixture to train on, with its reasons.

    Attributes:
        mixture: The proposed weights; allowed, and adding up to 1.
        natural: Each domain's share of the available tokens.
        objective: What was minimised, in words.
        unit: Unit of the losses.
        predicted_objective: The objective that is predicted for the proposal.
        gains: Predicted objective of another mixture less the proposal's, above 0 where the
            proposal is better: over `natural`, `uniform` and `best_trial`.
        best_trial: Name of the trial with the best observed objective.
        best_observed: Its observed objective.
        losses: Predicted loss of each evaluation domain.
        epochs: Passes over each domain's tokens in the full run; None where its length is
            not known.
        binding: Limits that hold the proposal back.
        stability: How far it moves under resampled trials; None where that was not tried.
        optimism: By how much the predicted objective is optimistic (mixopt.proposals.proposal).
        warnings: What to know before training on it, a line each.
        provenance: Regressor, method, fingerprint of the trials, seed, version; of a run also the
            parts of its mixed domains.
    """

    mixture: Mixture
    natural: Mixture
    objective: str
    unit: str
    predicted_objective: Interval
    gains: Mapping[str, Interval]
    best_trial: str
    best_observed: float
    losses: Mapping[str, Interval]
    epochs: Mapping[str, float] | None
    binding: tuple[str, ...]
    stability: Stability | None
    optimism: Optimism
    warnings: tuple[str, ...]
    provenance: Mapping[str, Any]

    @property
    def effective_domains(self) -> float:
        """Effective number of domains: the exponential of the mixture's entropy, 1 to D."""
        logs = [weight * math.log(weight) for weight in self.mixture.values() if weight > 0]
        return round(math.exp(-sum(logs)), 3)

    @property
    def is_own(self) -> bool:
        """Whether the weights were edited by hand after the search."""
        return self.provenance.get("method") == EDITED_BY_HAND

    def to_file(self, path: str | Path) -> None:
        """Write the proposal as YAML that `from_file` and `Mixture.from_file` read."""
        content = sealed(self.to_json())
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        write_text(Path(path), HEADER + text)

    @classmethod
    def from_file(cls, path: str | Path) -> Proposal:
        """Read a proposal that `to_file` wrote.

        Raises:
            RunError: The file cannot be read.
            MixtureError: It holds weights that are not a mixture, or weights alone, or it was
                edited: it is a mixture of somebody's own then, of which this proposal says nothing.
        """
        path = Path(path)
        mixture = Mixture.from_file(path)
        content = read_yaml(path, error=RunError)
        if SEAL not in content:
            raise MixtureError(f"{path}: is a mixture but not a proposal; {OWN}")
        check_seal(content, str(path), mend=OWN, error=MixtureError)
        try:
            return cls._from_fields(mixture, StateFields(content, str(path), MixtureError))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise MixtureError(
                f"{path}: is not a proposal: {type(error).__name__}: {error}"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the proposal as plain values, in the order of the file."""
        predicted = {"unit": self.unit, **self.predicted_objective.to_json()}
        best = {"trial": self.best_trial, "observed": self.best_observed}
        gains = {name: gain.to_json() for name, gain in self.gains.items()}
        return {
            "weights": dict(self.mixture),
            "natural": dict(self.natural),
            "objective": {"minimised": self.objective, **predicted},
            "gain": {**gains, "best_trial": {**best, **gains["best_trial"]}},
            "losses": {name: loss.to_json() for name, loss in self.losses.items()},
            "epochs": None if self.epochs is None else dict(self.epochs),
            "binding": list(self.binding),
            "effective_domains": self.effective_domains,
            "stability": None if self.stability is None else self.stability.to_json(),
            "optimism": self.optimism.to_json(),
            "warnings": list(self.warnings),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def _from_fields(cls, mixture: Mixture, fields: StateFields) -> Proposal:
        objective, gain = fields.part("objective"), fields.part("gain")
        best, losses = gain.part("best_trial"), fields.part("losses")
        for name in ("natural", "uniform", "best_trial"):
            gain.part(name)
        return cls(
            mixture=mixture,
            natural=Mixture(fields.part("natural").content).over(mixture.domains),
            objective=objective.text("minimised"),
            unit=objective.one_of("unit", UNITS),
            predicted_objective=_interval(objective),
            gains={name: _interval(gain.part(name)) for name in gain.content},
            best_trial=best.text("trial"),
            best_observed=best.number("observed"),
            losses={name: _interval(losses.part(name)) for name in losses.content},
            epochs=fields.maybe("epochs", lambda name: _epochs(fields.part(name), mixture)),
            binding=tuple(fields.texts("binding")),
            stability=fields.maybe("stability", lambda name: _stability(fields.part(name))),
            optimism=_optimism(fields.part("optimism")),
            warnings=tuple(fields.texts("warnings")),
            provenance=_provenance(fields.part("provenance")),
        )

    def __repr__(self) -> str:
        """Say the largest shares and what is predicted."""
        value, unit = self.predicted_objective, self.unit.replace("_", " ")
        said = f"predicted {value.value:.4f} ({value.low:.4f} to {value.high:.4f}) {unit}"
        return f"Proposal({largest_shares(self.mixture)}; {said})"


def _interval(fields: StateFields) -> Interval:
    return Interval(fields.number("value"), fields.number("low"), fields.number("high"))


def _epochs(fields: StateFields, mixture: Mixture) -> dict[str, float]:
    return {name: fields.number(name, least=0.0) for name in mixture.domains}


def _stability(fields: StateFields) -> Stability:
    return Stability(fields.whole("refits"), fields.number("mean"), fields.number("high"))


def _optimism(fields: StateFields) -> Optimism:
    return Optimism(fields.maybe("estimate", fields.number))


def _provenance(fields: StateFields) -> Mapping[str, Any]:
    if "target_tokens" in fields.content:
        fields.maybe("target_tokens", fields.whole)
    return fields.content

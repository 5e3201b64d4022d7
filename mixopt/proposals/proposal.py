"""A proposal: the mixture to train on, what it is predicted to give, and how sure that is.

proposal.yaml starts with `weights:`, so that whatever reads a mixture reads it. A bare install
reads and shows a proposal: nothing here needs more than numpy and a YAML reader.

    weights:            share of each domain
    natural:            each domain's share of the tokens that there are
    objective:          what was minimised, and the value that is predicted
    gain:               how much lower that is than for other mixtures
    losses:             predicted loss of each evaluation domain
    epochs:             passes over each domain's tokens in the full run
    binding:            limits that hold the proposal back
    effective_domains:  the exponential of the weights' entropy: how many domains it amounts to
    stability:          how far it moves when the trials are resampled
    optimism:           by how much the predicted objective is too good, by two estimates
    warnings:           what to know before training on it
    provenance:         what it was made from
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from mixopt.errors import MixtureError, RunError
from mixopt.mixture import Mixture
from mixopt.proposals.optimism import Optimism
from mixopt.system import write_text

HEADER = """\
# A data mixture that mixopt proposes. Numbers are predictions for trials like those that were
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
        natural: Each domain's share of the tokens that there are.
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
        optimism: By how much the predicted objective is too good (mixopt.proposals.optimism).
        warnings: What to know before training on it, a line each.
        provenance: Regressor, method, fingerprint of the trials, seed, version.
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
        """How many domains the mixture amounts to: the exponential of its entropy, 1 to D."""
        logs = [weight * math.log(weight) for weight in self.mixture.values() if weight > 0]
        return round(math.exp(-sum(logs)), 3)

    def to_file(self, path: str | Path) -> None:
        """Write the proposal as YAML that `from_file` and `Mixture.from_file` read."""
        text = yaml.safe_dump(self.to_json(), sort_keys=False, allow_unicode=True, width=100)
        write_text(Path(path), HEADER + text)

    @classmethod
    def from_file(cls, path: str | Path) -> Proposal:
        """Read a proposal that `to_file` wrote.

        Raises:
            RunError: The file cannot be read.
            MixtureError: It holds weights that are no mixture, or weights alone.
        """
        path = Path(path)
        mixture = Mixture.from_file(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            return cls._from_json(mixture, content)
        except (KeyError, TypeError, AttributeError) as error:
            raise MixtureError(
                f"{path}: is a mixture but no proposal ({error} is missing or broken); read it with"
                " Mixture.from_file"
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
    def _from_json(cls, mixture: Mixture, content: Mapping[str, Any]) -> Proposal:
        objective, gain, stability = content["objective"], content["gain"], content["stability"]
        return cls(
            mixture=mixture,
            natural=Mixture(content["natural"]),
            objective=objective["minimised"],
            unit=objective["unit"],
            predicted_objective=_interval(objective),
            gains={name: _interval(one) for name, one in gain.items()},
            best_trial=gain["best_trial"]["trial"],
            best_observed=gain["best_trial"]["observed"],
            losses={name: _interval(one) for name, one in content["losses"].items()},
            epochs=content["epochs"],
            binding=tuple(content["binding"]),
            stability=None if stability is None else Stability(**stability),
            optimism=Optimism(**content["optimism"]),
            warnings=tuple(content["warnings"]),
            provenance=content["provenance"],
        )

    def _repr_html_(self) -> str:
        """Show the proposal as a table in a notebook."""
        head = ["domain", "natural", "proposed", "change"] + (["epochs"] if self.epochs else [])
        rows = "".join(f"<tr>{''.join(_cells(row))}</tr>" for row in self._rows())
        lines = [*(f"held by {limit}" for limit in self.binding), *self.warnings]
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        return (
            f"<table><caption>{html.escape(self._caption())}</caption><thead><tr>"
            + "".join(f"<th>{name}</th>" for name in head)
            + f"</tr></thead><tbody>{rows}</tbody></table>"
            + (f"<ul>{notes}</ul>" if notes else "")
        )

    def _rows(self) -> list[list[str]]:
        rows = []
        for domain, weight in sorted(self.mixture.items(), key=lambda item: -item[1]):
            before = self.natural[domain]
            row = [
                domain,
                f"{100 * before:.1f}%",
                f"{100 * weight:.1f}%",
                f"{100 * (weight - before):+.1f}",
            ]
            rows.append(row + ([f"{self.epochs[domain]:.2f}"] if self.epochs else []))
        return rows

    def _caption(self) -> str:
        gain, value = self.gains["natural"], self.predicted_objective
        return (
            f"Mixture for {self.objective}: predicted {value.value:.4f} ({value.low:.4f} to"
            f" {value.high:.4f}) {self.unit.replace('_', ' ')}, {gain.value:.4f} ({gain.low:.4f} to"
            f" {gain.high:.4f}) lower than the natural mixture"
        )


def _interval(content: Mapping[str, Any]) -> Interval:
    return Interval(content["value"], content["low"], content["high"])


def _cells(row: list[str]) -> list[str]:
    first, *others = (html.escape(cell) for cell in row)
    return [f"<td>{first}</td>", *(f'<td style="text-align:right">{cell}</td>' for cell in others)]

"""The mixture to train on, by the outcome of validation: `recommendation.yaml`.

    weights: {<domain>: <share>, ...}
    recommended: {mixture, standing, why}
    natural: {<domain>: <share>, ...}
    objective: {minimised, unit, tokens}
    gains: {<mixture>: {validated: {value, low, high}, seeds, verdict, predicted: {...} or null}}
    costs: {<evaluation domain>: {value, low, high}}
    epochs: {<domain>: <passes>} or null
    warnings: [...]
    provenance: {mixopt, proposals, trials}

A bare install reads it: it needs no fit and no tables. How it is found is in
mixopt.proposals.decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from mixopt.errors import MixtureError, RunError
from mixopt.mixture import Mixture, largest_shares
from mixopt.objective import UNITS
from mixopt.proposals.mixture_names import named
from mixopt.proposals.mixture_table import mixture_table
from mixopt.proposals.proposal import Interval
from mixopt.system import SEAL, StateFields, check_seal, read_yaml, sealed, write_text

Standing = Literal["significantly better", "better on the mean", "not the proposal", "undecided"]
STANDINGS: tuple[Standing, ...] = (
    "significantly better",
    "better on the mean",
    "not the proposal",
    "undecided",
)
# What older files hold.
RENAMED: dict[str, Standing] = {"shown better": "significantly better"}
HEADER = """\
# The mixture to train on, by what validation has shown. A gain is the held-out loss of another
# mixture - that of this one: above 0 this one is better. A cost is this one - the natural mixture:
# above 0 this one is worse. Intervals of what was validated have 95%, those of predictions 90%.
"""
EDITED = "read it as your own mixture by Mixture.from_file; mixopt run decides again"


@dataclass(frozen=True)
class Gain:
    """How much better the recommended mixture is than another one, above 0 if it is.

    Attributes:
        validated: By validation runs of equal seeds, with its 95% interval.
        seeds: Pairs of runs.
        verdict: `better`, `not significant`, `worse` or `same mixture`.
        predicted: By the fit, with its 90% interval; None where there is no prediction.
    """

    validated: Interval
    seeds: int
    verdict: str
    predicted: Interval | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the gain as plain values."""
        predicted = None if self.predicted is None else self.predicted.to_json()
        return {
            "validated": self.validated.to_json(),
            "seeds": self.seeds,
            "verdict": self.verdict,
            "predicted": predicted,
        }


@dataclass(frozen=True)
class Recommendation:
    """The mixture to train on, why, and what it costs.

    Attributes:
        mixture: The weights.
        chosen: Which of the validated mixtures it is.
        standing: What validation has found.
        why: A sentence with the reason.
        natural: Each domain's share of the available tokens.
        objective: What is minimised, in words.
        unit: Unit of the gains.
        tokens: Tokens of a validation run.
        gains: Over every other validated mixture, by name.
        costs: Change of each loss that the objective does not measure against the natural mixture,
            above 0 where it gets worse, with its 95% interval; in the losses' unit.
        epochs: Passes over each domain's tokens in the full run; None where that is not known.
        warnings: What to know before training on it, a line each.
        provenance: What it was made from.
    """

    mixture: Mixture
    chosen: str
    standing: Standing
    why: str
    natural: Mixture
    objective: str
    unit: str
    tokens: int
    gains: Mapping[str, Gain]
    costs: Mapping[str, Interval]
    epochs: Mapping[str, float] | None
    warnings: tuple[str, ...]
    provenance: Mapping[str, Any]

    @property
    def headline(self) -> str:
        """The answer in one line: which mixture, and why."""
        return f"Recommendation: {named(self.chosen)}. {self.why}"

    def to_file(self, path: str | Path) -> None:
        """Write the recommendation as YAML that `from_file` and `Mixture.from_file` read."""
        text = yaml.safe_dump(
            sealed(self.to_json()), sort_keys=False, allow_unicode=True, width=100
        )
        write_text(Path(path), HEADER + text)

    @classmethod
    def from_file(cls, path: str | Path) -> Recommendation:
        """Read a recommendation that `to_file` wrote.

        Raises:
            RunError: The file cannot be read.
            MixtureError: It holds weights that are not a mixture, or weights alone, or it was
                edited.
        """
        path = Path(path)
        mixture = Mixture.from_file(path)
        content = read_yaml(path, error=RunError)
        if SEAL not in content:
            raise MixtureError(f"{path}: is a mixture but not a recommendation; {EDITED}")
        check_seal(content, str(path), mend=EDITED, error=MixtureError)
        return cls._from_fields(mixture, StateFields(content, str(path), MixtureError))

    def to_json(self) -> dict[str, Any]:
        """Return the recommendation as plain values, in the order of the file."""
        return {
            "weights": dict(self.mixture),
            "recommended": {"mixture": self.chosen, "standing": self.standing, "why": self.why},
            "natural": dict(self.natural),
            "objective": {"minimised": self.objective, "unit": self.unit, "tokens": self.tokens},
            "gains": {name: gain.to_json() for name, gain in self.gains.items()},
            "costs": {name: cost.to_json() for name, cost in self.costs.items()},
            "epochs": None if self.epochs is None else dict(self.epochs),
            "warnings": list(self.warnings),
            "provenance": dict(self.provenance),
        }

    def __repr__(self) -> str:
        """Say which mixture it is, its largest shares and what is known of it."""
        return f"Recommendation({self.chosen}: {largest_shares(self.mixture)}; {self.standing})"

    def _repr_html_(self) -> str:
        """Show the recommendation as a table in a notebook."""
        notes = [
            *(f"gain over {named(name)}: {_text(gain)}" for name, gain in self.gains.items()),
            *self.warnings,
        ]
        return mixture_table(
            self.headline, self.mixture, self.natural, self.epochs, notes, called="recommended"
        )

    @classmethod
    def _from_fields(cls, mixture: Mixture, fields: StateFields) -> Recommendation:
        chosen, objective = fields.part("recommended"), fields.part("objective")
        gains, costs = fields.part("gains"), fields.part("costs")
        return cls(
            mixture=mixture,
            chosen=chosen.text("mixture"),
            standing=_standing(chosen),
            why=chosen.text("why"),
            natural=Mixture(fields.part("natural").content).over(mixture.domains),
            objective=objective.text("minimised"),
            unit=objective.one_of("unit", UNITS),
            tokens=objective.whole("tokens"),
            gains={name: _gain(gains.part(name)) for name in gains.content},
            costs={name: _interval(costs.part(name)) for name in costs.content},
            epochs=fields.maybe("epochs", lambda name: _epochs(fields.part(name), mixture)),
            warnings=tuple(fields.texts("warnings")),
            provenance=fields.part("provenance").content,
        )


def _standing(fields: StateFields) -> Standing:
    older = RENAMED.get(fields.text("standing"))
    return fields.one_of("standing", STANDINGS) if older is None else older


def _text(gain: Gain) -> str:
    one = gain.validated
    return f"{one.value:+.4f} ({one.low:+.4f} to {one.high:+.4f}), {gain.verdict}"


def _gain(fields: StateFields) -> Gain:
    return Gain(
        validated=_interval(fields.part("validated")),
        seeds=fields.whole("seeds"),
        verdict=fields.text("verdict"),
        predicted=fields.maybe("predicted", lambda name: _interval(fields.part(name))),
    )


def _interval(fields: StateFields) -> Interval:
    return Interval(fields.number("value"), fields.number("low"), fields.number("high"))


def _epochs(fields: StateFields, mixture: Mixture) -> dict[str, float]:
    return {name: fields.number(name, least=0.0) for name in mixture.domains}

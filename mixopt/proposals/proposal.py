"""A proposal: the mixture to train on, its predicted losses, and their uncertainty.

proposal.yaml starts with `weights:`, so that every reader of mixtures reads it. A bare install
reads and shows a proposal: this module needs only numpy and a YAML reader.

    weights:            share of each domain; with phases, of each cell <phase>/<domain>
    phases:             name, end and weights of each phase, if the training has phases
    natural:            each domain's share of the available tokens
    objective:          the objective, and its predicted value
    gains:              predicted difference from other mixtures; above 0 it is better
    best_trial:         the best trial, and its observed objective
    losses:             predicted loss of each evaluation domain
    epochs:             epochs of each domain in the full run
    binding:            active constraints
    effective_domains:  the exponential of the weights' entropy
    stability:          change of the mixture when the trials are resampled
    region:             ranges of shares predicted as good, up to noise
    warnings:           warnings before training on it
    provenance:         versions and inputs that it was made from
    sha256:             hash of the content: an edited file is not a proposal
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import yaml

from mixopt.difference import (
    HIGHER_UNITS,
    UNITS,
    Difference,
    ends_text,
    size_text,
    unit_text,
    value_text,
)
from mixopt.errors import MixtureError, RunError
from mixopt.mixture import Mixture, Phases, largest_shares
from mixopt.system import (
    SEAL,
    Array,
    StateFields,
    check_seal,
    read_yaml,
    sealed,
    share_text,
    write_text,
)

if TYPE_CHECKING:
    from mixopt.constraints import Constraints

LEVEL = 0.9  # of the upper quantile of stability
MAX_RANGES = 4  # domains of a region named in text
PROPOSAL = "proposal"
EDITED_BY_HAND = "edited by hand"
HEADER = """\
# A data mixture that mixopt proposes; what to train on once it is validated is in
# recommendation.yaml. Numbers are predictions for trials like those that were
# fitted; low and high bound 90% of the errors on held-out mixtures. gains: how much better it is
# predicted to be than other mixtures; above 0 it is better.
"""
OWN = "read it as a mixture of your own: Mixture.from_file, or load_run(DIR).proposal to predict it"


def proposal_name(number: int) -> str:
    """Return the name of a run's first, second, ... proposal: `proposal`, `proposal_2`, ..."""
    return PROPOSAL if number == 1 else f"{PROPOSAL}_{number}"


def is_proposal(mixture: str) -> bool:
    """Return whether a mixture of a validation is a proposal."""
    return mixture.startswith(PROPOSAL)


def named(mixture: str, among: Iterable[str] = ()) -> str:
    """Return a mixture's name for a sentence; later proposals are numbered."""
    if mixture == PROPOSAL:
        is_only = not any(is_proposal(other) and other != PROPOSAL for other in among)
        return "the proposal" if is_only else "proposal 1"
    if is_proposal(mixture):
        return f"proposal {mixture.removeprefix(f'{PROPOSAL}_')}"
    return "the best trial" if mixture == "best_trial" else mixture.replace("_", " ")


def listed(mixtures: Iterable[str], joined: str = "and", among: Iterable[str] = ()) -> str:
    """Return a list of mixtures for a sentence."""
    names = [named(name, among) for name in mixtures]
    if len(names) <= 1:
        return "".join(names)
    return f"{', '.join(names[:-1])} {joined} {names[-1]}"


def baseline_breaks(name: str, mixture: Mixture, limits: Constraints) -> str | None:
    """Return a warning for a baseline that breaks limits: it is trained but not recommended."""
    broken = limits.violations(mixture)
    if not broken:
        return None
    first = broken[0].partition(". ")[0]
    more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    return f"baseline {named(name)} breaks limits of this run: {first}{more}"


@dataclass(frozen=True)
class Interval:
    """A predicted value and its 90% interval, to six decimals."""

    value: float
    low: float
    high: float

    @classmethod
    def rounded(cls, value: float, low: float, high: float) -> Self:
        """Return the interval rounded to six decimals."""
        return cls(round(float(value), 6), round(float(low), 6), round(float(high), 6))

    @classmethod
    def around(cls, value: float, half: float) -> Self:
        """Build an interval from its middle and its half width."""
        return cls.rounded(value, value - half, value + half)

    @classmethod
    def read(cls, fields: StateFields) -> Self:
        """Read the numbers from fields of a file."""
        return cls(fields.number("value"), fields.number("low"), fields.number("high"))


def plain(value: Any) -> Any:
    """Return records, mappings and sequences as JSON values."""
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_intervals(fields: StateFields) -> dict[str, Interval]:
    """Read intervals by name."""
    return {name: Interval.read(fields.part(name)) for name in fields.content}


def differences_content(differences: Mapping[str, Difference]) -> dict[str, Any]:
    """Return differences by name as JSON values."""
    return {name: difference.to_json() for name, difference in differences.items()}


def worst_first(differences: Mapping[str, Difference]) -> dict[str, Difference]:
    """Return differences in the order of their means, the worst first."""
    return dict(sorted(differences.items(), key=lambda item: item[1].mean))


def weights_content(mixture: Mixture, phases: Phases | None) -> dict[str, Any]:
    """Return the first fields of a file: weights, and the phases if there are any."""
    content: dict[str, Any] = {"weights": dict(mixture)}
    if phases is not None:
        content["phases"] = phases.content(mixture)
    return content


def read_phases(fields: StateFields) -> Phases | None:
    """Read the field `phases`."""
    if "phases" not in fields.content:
        return None
    lengths = {}
    begin = 0.0
    for phase in fields.parts("phases"):
        end = phase.number("until")
        lengths[phase.text("name")] = end - begin
        begin = end
    return Phases(lengths)


def read_epochs(fields: StateFields, mixture: Mixture) -> dict[str, float] | None:
    """Read the field `epochs`."""
    epochs = fields.maybe("epochs", fields.part)
    if epochs is None:
        return None
    return {name: epochs.number(name, minimum=0.0) for name in mixture.domains}


@dataclass(frozen=True)
class Stability:
    """Change of the optimum over refits on resampled trials, in total variation from 0 to 1."""

    refits: int
    mean: float
    high: float  # 90% quantile

    @classmethod
    def of(cls, moved_B: Array) -> Self:
        """Summarise the distances of the refits' optima."""
        high = float(np.quantile(moved_B, LEVEL))
        return cls(len(moved_B), round(float(moved_B.mean()), 4), round(high, 4))

    @classmethod
    def read(cls, fields: StateFields) -> Self:
        """Read the numbers from fields of a file."""
        return cls(fields.whole("refits"), fields.number("mean"), fields.number("high"))


@dataclass(frozen=True)
class Region:
    """Mixtures predicted as good as the proposal, up to noise.

    Attributes:
        noise: Largest difference that counts as none, in the unit of the objective.
        source: Source of the noise: `seeds` of one mixture, or `held-out error`.
        shares: Lowest and highest share of each domain in the region.
    """

    noise: float
    source: str
    shares: Mapping[str, tuple[float, float]]

    def describe(self, unit: str) -> str:
        """Return the ranges of shares as text, for the domains with the widest ranges."""
        widest = sorted(self.shares.items(), key=lambda item: item[1][0] - item[1][1])[:MAX_RANGES]
        ranges = []
        for name, (low, high) in widest:
            ranges.append(f"{name} {share_text(low)} to {share_text(high)}")
        source = "noise of a trial" if self.source == "seeds" else "error on held-out trials"
        return (
            f"Predicted as good, up to the {source} ({size_text(self.noise, unit)}):"
            f" {', '.join(ranges)}."
        )

    @classmethod
    def read(cls, fields: StateFields, mixture: Mixture) -> Self:
        """Read a region from fields of a file."""
        ends = {}
        for name in mixture.domains:
            low, high = fields.part("shares").numbers(name, 2, minimum=0.0, maximum=1.0)
            ends[name] = (low, high)
        return cls(fields.number("noise", minimum=0.0), fields.text("source"), ends)


@dataclass(frozen=True, kw_only=True)
class SealedMixture(ABC):
    """A mixture with its evidence, in a sealed file: a proposal or a recommendation."""

    header: ClassVar[str]
    hint: ClassVar[str]  # how an edited file is of use
    mark: ClassVar[str]  # a field that files of other versions lack
    step: ClassVar[str]  # the step that writes it
    mixture: Mixture
    natural: Mixture
    objective: str
    unit: str
    epochs: Mapping[str, float] | None
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    region: Region | None = None
    phases: Phases | None = None

    @property
    def better(self) -> str:
        """Direction of the objective: `higher` or `lower`."""
        return "higher" if self.unit in HIGHER_UNITS else "lower"

    def to_file(self, path: str | Path) -> None:
        """Write it as YAML that `from_file` and `Mixture.from_file` read."""
        content = sealed(self.to_json())
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        write_text(Path(path), self.header + text)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a file that `to_file` wrote.

        Raises:
            RunError: The file cannot be read.
            MixtureError: Its weights are no mixture, it has nothing but weights, or it was edited,
                so that its predictions no longer hold.
        """
        mixture = Mixture.from_file(path)
        content = read_yaml(Path(path), error=RunError)
        if SEAL not in content:
            kind = cls.__name__.lower()
            raise MixtureError(f"{path}: is a mixture but not a {kind}; {cls.hint}")
        check_seal(content, str(path), hint=cls.hint, error=MixtureError)
        if cls.mark not in content:
            raise MixtureError(
                f"{path}: has no {cls.mark!r}, so another version of mixopt wrote it; run the step"
                f" again: mixopt run CONFIG --from {cls.step}"
            )
        fields = StateFields(content, str(path), MixtureError)
        objective = fields.part("objective")
        return cls(
            mixture=mixture,
            natural=Mixture(fields.part("natural").content).over(mixture.domains),
            objective=objective.text("measure"),
            unit=objective.one_of("unit", UNITS),
            epochs=read_epochs(fields, mixture),
            warnings=tuple(fields.texts("warnings")),
            provenance=fields.part("provenance").content,
            region=fields.maybe("region", lambda name: Region.read(fields.part(name), mixture)),
            phases=read_phases(fields),
            **cls._own_fields(fields),
        )

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, in the order of the file."""

    @classmethod
    @abstractmethod
    def _own_fields(cls, fields: StateFields) -> dict[str, Any]:
        """Read the fields that a subclass adds."""


@dataclass(frozen=True, kw_only=True)
class Proposal(SealedMixture):
    """A proposed mixture with its predictions.

    Attributes:
        mixture: The proposed weights, within the constraints.
        natural: Each domain's share of the available tokens.
        objective: The objective, in words.
        unit: Unit of the objective, one of `mixopt.objective.UNITS`.
        predicted_objective: Predicted objective of the proposal.
        gains: How much better it is predicted to be than `natural`, `uniform` and `best_trial`.
        best_trial: Name of the trial with the best observed objective.
        best_observed: Its observed objective.
        losses: Predicted loss of each evaluation domain.
        epochs: Epochs of each domain in the full run; None if its length is unknown.
        binding: Active constraints.
        stability: Change under resampled trials; None without refits.
        region: Mixtures predicted as good up to noise; None without a search.
        warnings: Warnings before training on it, one line each.
        provenance: Regressor, method, fingerprint of the trials, seed, version; in a run also the
            parts of its mixed domains.
        phases: Phases of the training, if the mixture is one of their cells; else None.

    Examples:
        >>> run.proposal
        Proposal(prose ..., code ...; predicted ... bits per byte)
        >>> mixopt.Proposal.from_file("runs/mine/proposal.yaml").mixture == run.proposal.mixture
        True
    """

    header: ClassVar[str] = HEADER
    hint: ClassVar[str] = OWN
    mark: ClassVar[str] = "gains"
    step: ClassVar[str] = "propose"
    predicted_objective: Interval
    gains: Mapping[str, Difference]
    best_trial: str
    best_observed: float
    losses: Mapping[str, Interval]
    binding: tuple[str, ...] = ()
    stability: Stability | None = None

    @property
    def effective_domains(self) -> float:
        """Effective number of domains: the exponential of the mixture's entropy, 1 to D."""
        return round(self.mixture.effective_domains, 3)

    @property
    def is_own(self) -> bool:
        """Whether the weights were edited by hand after the search."""
        return self.provenance.get("method") == EDITED_BY_HAND

    def to_json(self) -> dict[str, Any]:
        """Return the proposal as JSON values, in the order of the file."""
        return {
            **weights_content(self.mixture, self.phases),
            "natural": dict(self.natural),
            "objective": {
                "measure": self.objective,
                "better": self.better,
                "unit": self.unit,
                **plain(self.predicted_objective),
            },
            "gains": differences_content(self.gains),
            "best_trial": {"trial": self.best_trial, "observed": self.best_observed},
            "losses": plain(self.losses),
            "epochs": plain(self.epochs),
            "binding": list(self.binding),
            "effective_domains": self.effective_domains,
            "stability": plain(self.stability),
            "region": plain(self.region),
            "warnings": list(self.warnings),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def _own_fields(cls, fields: StateFields) -> dict[str, Any]:
        best = fields.part("best_trial")
        return {
            "predicted_objective": Interval.read(fields.part("objective")),
            "gains": Difference.read_all(fields.part("gains")),
            "best_trial": best.text("trial"),
            "best_observed": best.number("observed"),
            "losses": read_intervals(fields.part("losses")),
            "binding": tuple(fields.texts("binding")),
            "stability": fields.maybe("stability", lambda name: Stability.read(fields.part(name))),
        }

    def __repr__(self) -> str:
        """Return the largest shares and the prediction."""
        interval = self.predicted_objective
        unit = self.unit
        ends = ends_text(interval.low, interval.high, unit)
        text = f"predicted {value_text(interval.value, unit)} ({ends}) {unit_text(unit)}"
        return f"Proposal({largest_shares(self.mixture)}; {text})"

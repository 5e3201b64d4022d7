"""A mixture: each domain's share of the training tokens.

A `Mixture` is checked when it is built: named domains, finite weights >= 0 that add up to 1.
Weights with larger rounding errors (a table with three decimals) are rescaled only if the caller
states a tolerance.

Total variation, half the sum of absolute differences, is the share of the tokens that change domain
from one mixture to another: 0 for equal mixtures, 1 for mixtures without a common domain.

Shapes: N and K mixtures, D domains.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import ArrayLike

from mixopt.errors import EditedWarning, MixtureError, did_you_mean
from mixopt.system import (
    SEAL,
    Array,
    IntArray,
    below_branch,
    check_path,
    first_few,
    html_table,
    is_sealed,
    read_yaml,
    share_text,
    tree_fault,
)

SUM_TOLERANCE = 1e-6
PHASE_TOLERANCE = 1e-4  # of the sum of a phase, for rounding errors of limits
PHASE_NAME = re.compile(r"((phase|stage)[ _-]?)?\d+", re.IGNORECASE)
MAX_WEIGHT = 1e15  # before rescaling; sums of larger weights may overflow
MAX_LISTED = 8  # domains in `repr`
LARGEST = 5  # domains in `repr` if there are more than MAX_LISTED


class Mixture(Mapping[str, float]):
    """Shares of named domains, in order; immutable, hashable, adds up to 1.

    Examples:
        >>> mixture = mixopt.Mixture({"web": 0.7, "code": 0.3})
        >>> mixture["code"], mixture.domains
        (0.3, ('web', 'code'))
        >>> mixopt.Mixture.natural({"web": 3_000, "code": 1_000})
        Mixture(web 75%, code 25%)
        >>> mixopt.Mixture.uniform(["web", "code"])
        Mixture(web 50%, code 50%)
    """

    __slots__ = ("_fingerprint", "_weights")

    def __init__(self, weights: Mapping[str, float], *, tolerance: float = SUM_TOLERANCE) -> None:
        """Check the weights and rescale them to add up to 1.

        Args:
            weights: Share of each domain, >= 0.
            tolerance: How far from 1 the sum may be.

        Raises:
            MixtureError: No domain, an invalid name, a weight that is negative or not finite, or a
                sum further from 1 than `tolerance`.
        """
        if not weights:
            raise MixtureError("a mixture needs at least one domain")
        names = [check_path(str(name), "domain", MixtureError) for name in weights]
        fault = tree_fault(names)
        if fault is not None:
            branch, domain = fault
            raise MixtureError(
                f"{branch!r} is a domain and the branch of {domain!r}; rename one of them"
            )
        pairs = zip(names, weights.values(), strict=True)
        values = {name: _number(name, value) for name, value in pairs}
        total = math.fsum(values.values())
        if not total:
            raise MixtureError("all weights are 0; at least one must be above 0")
        if abs(total - 1.0) > tolerance:
            raise MixtureError(
                f"weights add up to {total:.6g}, not 1: divide each by {total:.6g}, or pass"
                f" tolerance={abs(total - 1.0):.2g}"
            )
        # Rescaling weights that add up to 1 would change their last digits at every read.
        scale = total if abs(total - 1.0) > 1e-12 else 1.0
        self._weights = {name: value / scale for name, value in values.items()}
        lines = sorted(f"{name}={weight:.9f}" for name, weight in self._weights.items())
        self._fingerprint = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    @classmethod
    def from_array(
        cls,
        domains: Sequence[str],
        weights_D: Array | Sequence[float],
        *,
        tolerance: float = SUM_TOLERANCE,
    ) -> Mixture:
        """Pair names with weights, shape (D,)."""
        weights = [float(value) for value in weights_D]
        if len(weights) != len(domains):
            raise MixtureError(f"{len(weights)} weights for {len(domains)} domains")
        if len(set(domains)) != len(domains):
            doubled = min(name for name in domains if list(domains).count(name) > 1)
            raise MixtureError(f"domain {doubled!r} is given twice")
        return cls(dict(zip(domains, weights, strict=True)), tolerance=tolerance)

    @classmethod
    def uniform(cls, domains: Sequence[str]) -> Mixture:
        """Give every domain the same share."""
        return cls.from_array(domains, [1.0 / max(len(domains), 1)] * len(domains))

    @classmethod
    def natural(cls, tokens: Mapping[str, int]) -> Mixture:
        """Give every domain its share of the available tokens."""
        total = sum(tokens.values())
        if total <= 0:
            raise MixtureError("the natural mixture needs domains with tokens; all have 0")
        return cls({name: count / total for name, count in tokens.items()})

    @classmethod
    def from_file(cls, path: str | Path) -> Mixture:
        """Read a mixture, a proposal or a recommendation (`weights:`, or the weights alone).

        An edited proposal or recommendation is read as a mixture of your own, with an
        `EditedWarning`; delete the line `sha256` to read it without the warning.

        Args:
            path: A YAML file.

        Returns:
            The mixture.

        Raises:
            MixtureError: The file cannot be read, or its weights are not a mixture.
        """
        path = Path(path)
        content = read_yaml(path, error=MixtureError)
        if isinstance(content, dict) and SEAL in content and not is_sealed(content):
            warnings.warn(
                f"{path}: was changed since mixopt wrote it (its sha256 differs); its weights are"
                " used as a mixture of your own. Delete its line 'sha256' if you edited it",
                EditedWarning,
                stacklevel=2,
            )
        weights = content
        if isinstance(content, dict):
            weights = content.get("weights", content)
        if not isinstance(weights, dict):
            raise MixtureError(f"{path}: expected 'weights:' with a number for each domain")
        try:
            return cls(weights)
        except MixtureError as error:
            # A file has no tolerance to pass.
            raise MixtureError(f"{path}: {str(error).partition(', or pass')[0]}") from error

    def to_file(self, path: str | Path) -> None:
        """Write the weights as YAML that `from_file` reads back."""
        from mixopt.system import write_text

        write_text(Path(path), yaml.safe_dump({"weights": dict(self)}, sort_keys=False))

    @property
    def domains(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(self._weights)

    @property
    def array(self) -> Array:
        """The weights, shape (D,)."""
        return np.array(list(self._weights.values()), float)

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits, equal for equal mixtures in any order."""
        return self._fingerprint

    @property
    def effective_domains(self) -> float:
        """The exponential of the entropy: D for uniform, 1 for a single domain."""
        return math.exp(-math.fsum(w * math.log(w) for w in self.values() if w > 0))

    def total_variation(self, other: Mixture) -> float:
        """Return the total variation to another mixture of the same domains, in [0, 1]."""
        other = other.over(self.domains)
        # fsum is exact, so that the result does not depend on the order of the domains.
        return 0.5 * math.fsum(abs(self[name] - other[name]) for name in self)

    def over(self, domains: Sequence[str]) -> Mixture:
        """Return the same mixture in the order of `domains`.

        Raises:
            MixtureError: A domain that is missing on one side.
        """
        names = set(domains)
        for name in self:
            if name not in names:
                raise MixtureError(f"unknown domain {name!r}{did_you_mean(name, domains)}")
        for name in domains:
            if name not in self:
                raise MixtureError(f"domain {name!r} has no weight; add one, 0 is allowed")
        return Mixture({name: self[name] for name in domains})

    def __getitem__(self, domain: str) -> float:
        """Return the share of one domain."""
        return self._weights[domain]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in order."""
        return iter(self._weights)

    def __len__(self) -> int:
        """Return the number of domains."""
        return len(self._weights)

    def __hash__(self) -> int:
        """Hash by content, in any order."""
        return hash(frozenset(self._weights.items()))

    def __eq__(self, other: object) -> bool:
        """Compare by content, in any order."""
        return isinstance(other, Mixture) and dict(self) == dict(other)

    def __repr__(self) -> str:
        """Show shares as percentages; of many domains only the largest five."""
        listed = list(self.items())
        if len(listed) > MAX_LISTED:
            listed = sorted(listed, key=lambda item: -item[1])[:LARGEST]
        shares = ", ".join(f"{name} {100 * weight:.3g}%" for name, weight in listed)
        remaining = len(self) - len(listed)
        if remaining:
            shares += f" and {remaining} others"
        return f"Mixture({shares})"

    def _repr_html_(self) -> str:
        """Return a table of all shares, for notebooks."""
        rows = [(name, share_text(weight)) for name, weight in self.items()]
        return html_table(("domain", "share"), rows)


class DomainContent(NamedTuple):
    """Hash of a domain's training shards, empty if they are elsewhere, and its distinct tokens."""

    sha256: str
    tokens: int


def largest_shares(mixture: Mapping[str, float]) -> str:
    """Return the largest shares as text: `law 38.6%, web 22.1%, wiki 19.3% and 3 more`."""
    order = sorted(mixture.items(), key=lambda item: -item[1])
    return first_few([f"{name} {share_text(weight)}" for name, weight in order], 3)


def branch_shares(mixture: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each branch of the tree, such as `web/science`; {} without nesting.

    A branch is the parent of domains; a domain on the top level counts as its own branch.
    """
    shares: dict[str, float] = {}
    for branch, domains in branches_of(mixture).items():
        shares[branch] = sum(mixture[name] for name in domains)
    return shares if len(shares) < len(mixture) else {}


def branches_of(domains: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the domains of each branch."""
    branches: dict[str, tuple[str, ...]] = {}
    for name in domains:
        branch = name.rpartition("/")[0] or name
        branches[branch] = (*branches.get(branch, ()), name)
    return branches


class Phases(Mixture):
    """The phases of a training, by name, with each phase's share of the tokens.

    A mixture by phase is one mixture of cells `<phase>/<domain>`, each with its share of all
    tokens, so that designs, limits and searches of mixtures apply to it unchanged.

    Examples:
        >>> phases = mixopt.Phases({"1": 0.8, "2": 0.2})
        >>> phases.tied({"web": 0.75, "code": 0.25})
        Mixture(1/web 60%, 1/code 20%, 2/web 15%, 2/code 5%)
    """

    __slots__ = ()

    @classmethod
    def of(cls, lengths: Mapping[str, float] | None) -> Phases | None:
        """Return the phases of these lengths; None for None."""
        return None if lengths is None else cls(lengths)

    @classmethod
    def detect(cls, cells: Sequence[str], weights_NC: Array) -> Phases | None:
        """Return the phases that a table may have, as first parts of its column names, or None.

        All phases must have the same domains, and each the same total > 0 in all rows; at least
        two rows are needed. Branches of a tree may be so too, unless `are_numbered`.
        """
        columns: dict[str, list[int]] = {}
        domains: dict[str, list[str]] = {}
        for column, cell in enumerate(cells):
            phase, _, domain = cell.partition("/")
            columns.setdefault(phase, []).append(column)
            domains.setdefault(phase, []).append(domain)
        if len(columns) < 2 or len(weights_NC) < 2:
            return None
        first = domains[next(iter(domains))]
        if not all(first) or any(names != first for names in domains.values()):
            return None
        totals_PN = np.array([weights_NC[:, phase].sum(axis=1) for phase in columns.values()])
        varies = np.ptp(totals_PN, axis=1).max() > PHASE_TOLERANCE
        if varies or totals_PN.min() <= PHASE_TOLERANCE:
            return None
        lengths = totals_PN.T.mean(axis=0).tolist()
        return cls(dict(zip(columns, lengths, strict=True)))

    @property
    def are_numbered(self) -> bool:
        """Whether all names are those of phases: numbers, alone or after 'phase' or 'stage'."""
        return all(PHASE_NAME.fullmatch(name) for name in self)

    def cells(self, domains: Iterable[str]) -> tuple[str, ...]:
        """Return the names of cells, phase by phase."""
        names = list(domains)
        return tuple(f"{phase}/{name}" for phase in self for name in names)

    def names(self, cells: Iterable[str]) -> tuple[str, ...]:
        """Return the names of the domains of cells."""
        first = f"{next(iter(self))}/"
        return tuple(name.removeprefix(first) for name in cells if name.startswith(first))

    def joined(self, parts: Mapping[str, Mapping[str, float]]) -> Mixture:
        """Combine one mixture per phase into a mixture of cells."""
        cells = {}
        for phase, length in self.items():
            for name, share in parts[phase].items():
                cells[f"{phase}/{name}"] = length * share
        return Mixture(cells)

    def tied(self, mixture: Mapping[str, float]) -> Mixture:
        """Return the mixture of cells with the same mixture in all phases."""
        return self.joined(dict.fromkeys(self, mixture))

    def split(self, cells: Mapping[str, float]) -> dict[str, Mixture]:
        """Return the mixture of each phase."""
        mixtures: dict[str, Mixture] = {}
        for phase, length in self.items():
            names = below_branch(phase, cells)
            shares = {name.removeprefix(f"{phase}/"): cells[name] / length for name in names}
            mixtures[phase] = Mixture(shares, tolerance=PHASE_TOLERANCE)
        return mixtures

    def whole(self, cells: Mapping[str, float]) -> Mixture:
        """Return each domain's share of all tokens."""
        shares = {}
        for name in self.names(cells):
            shares[name] = sum(cells[f"{phase}/{name}"] for phase in self)
        return Mixture(shares)

    def content(self, cells: Mapping[str, float]) -> list[dict[str, Any]]:
        """Return the file content of a mixture of cells: name, end and weights of each phase."""
        content = []
        until = 0.0
        for phase, mixture in self.split(cells).items():
            until += self[phase]
            content.append({"name": phase, "until": round(until, 9), "weights": dict(mixture)})
        return content


def whole_counts(weights_D: Array, total: int) -> IntArray:
    """Split a number by weights with largest remainders: each part is within 1 of its share.

    Args:
        weights_D: Share of each domain, >= 0, adding up to 1.
        total: The number to split, >= 0.

    Returns:
        Whole numbers that add up to `total`, shape (D,).
    """
    exact_D = weights_D * total
    counts_D = np.floor(exact_D).astype(np.int64)
    missing = total - int(counts_D.sum())
    counts_D[np.argsort(counts_D - exact_D, kind="stable")[:missing]] += 1
    return counts_D


def total_variation(left: ArrayLike, right: ArrayLike) -> Array:
    """Return the total variation between weights, over their last axis."""
    differences: Array = np.abs(np.subtract(left, right, dtype=np.float64))
    return np.asarray(0.5 * differences.sum(axis=-1))


def pairwise_total_variation(left_ND: Array, right_KD: Array) -> Array:
    """Return the total variation between every two mixtures, shape (N, K)."""
    from scipy.spatial.distance import cdist

    distances_NK: Array = 0.5 * cdist(left_ND, right_KD, metric="cityblock")
    return distances_NK


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise MixtureError(f"domain {name!r}: weight {value!r} is not a number")
    try:
        weight = float(value)
    except OverflowError:
        weight = math.inf
    if not math.isfinite(weight):
        raise MixtureError(f"domain {name!r}: weight {weight} is not finite")
    if weight > MAX_WEIGHT:
        raise MixtureError(f"domain {name!r}: weight {weight:g} is too large; give shares of 1")
    if weight < 0:
        raise MixtureError(f"domain {name!r}: weight {weight:.6g} is negative; the minimum is 0")
    return weight

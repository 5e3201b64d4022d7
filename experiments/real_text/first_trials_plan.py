"""Which mixtures first_trials.py trains: truths, axial points, sampled designs, second seeds.

Shapes: N mixtures, D domains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.config import DesignConfig
from mixopt.designs import design_constraints, make_design, sample_mixtures, trial_seeds
from mixopt.mixture import Mixture
from mixopt.system import Array
from mixopt.trials import Trial

SEVEN = (
    "literature_en",
    "docs_en",
    "man_en",
    "man_fr",
    "code_c",
    "code_python",
    "formal_math",
)
OUTSIDE = ("dictionary_en", "legal_en", "code_cpp", "code_js")
ALL = SEVEN + OUTSIDE
SKEWED = (0.40, 0.14, 0.07, 0.03, 0.22, 0.10, 0.04)
MAX_USAGE = 5.0
CONCENTRATIONS = (1.0, 0.4, 3.0)
LEVELS = (0.5, 0.75)
SEED = 86_113


@dataclass(frozen=True)
class Case:
    """Domains to train on, what is natural among them, and how often it may be exceeded.

    Attributes:
        name: Of the case.
        domains: That are trained on.
        natural: Their natural shares; the centre of the axial design.
        max_usage: Caps, as multiples of the natural shares; None: no caps.
        truths: Mixtures to predict.
        steps: Of each trial.
        windows: Held-out windows of each evaluation domain.
        own_seeds: Whether each trial has a seed of its own; all truths have one seed, and all
            trials of a draw another, if not.
    """

    name: str
    domains: tuple[str, ...]
    natural: tuple[float, ...]
    max_usage: float | None
    truths: int
    steps: int = 300
    windows: int = 96
    own_seeds: bool = False

    @property
    def centre(self) -> Mixture:
        """The natural mixture."""
        return Mixture(dict(zip(self.domains, self.natural, strict=True)))

    @property
    def upper_D(self) -> Array:
        """The caps."""
        usage = np.inf if self.max_usage is None else self.max_usage
        return np.minimum(usage * np.array(self.natural), 1.0)

    def axial(self, level: float, center: str = "natural") -> list[Mixture]:
        """Return the product's axial design: a mixture for each domain, and the centre last."""
        options = {"axial_center": center, "axial_share": level, "anchors": [], "replicates": 0}
        config = self._config("axial", len(self.domains) + 1, **options)
        centre, *points = make_design(config, self.centre, None, SEED)
        return [*(trial.mixture for trial in points), centre.mixture]

    def sampled(self, method: str, count: int, seed: int) -> list[Mixture]:
        """Return the mixtures of a sampled first round."""
        config = self._config(method, count)
        allowed = design_constraints(config, self.centre)
        weights_ND = sample_mixtures(config, self.centre, allowed, seed=seed)
        return [Mixture.from_array(self.domains, weights_D) for weights_D in weights_ND]

    def _config(self, method: str, count: int, **options: Any) -> DesignConfig:
        given = {"method": method, "trials": count, "rounds": "off", "max_usage": self.max_usage}
        return DesignConfig.model_validate({**given, **options})

    def truth(self) -> list[Mixture]:
        """Return the centre and Dirichlet mixtures within the caps, of three concentrations."""
        rng = np.random.default_rng([SEED, 5, 30])
        prior_D = np.sqrt(self.natural) / np.sqrt(self.natural).sum() * len(self.domains)
        found = [self.centre]
        while len(found) < self.truths:
            weights_D = rng.dirichlet(CONCENTRATIONS[len(found) % 3] * prior_D)
            if (weights_D <= self.upper_D).all():
                found.append(Mixture.from_array(self.domains, weights_D))
        return found


CASES = (
    Case("seven", SEVEN, (1 / 7,) * 7, None, 25),
    Case("eleven", ALL, (1 / 11,) * 11, None, 15, steps=100, windows=32),
    Case("skewed", SEVEN, SKEWED, MAX_USAGE, 19, steps=200),
    Case("seven_own", SEVEN, (1 / 7,) * 7, None, 30, own_seeds=True),
)
# What is trained, the most needed first: kind, case, and how much of it.
ORDER: tuple[tuple[str, str, tuple[int, int]], ...] = (
    ("axial.5", "seven_own", (0, 2)),
    ("dirichlet", "seven_own", (0, 18)),
    ("truth", "seven", (1, 25)),
    ("axial.5", "seven", (0, 1)),
    ("dirichlet", "seven", (0, 16)),
    ("axial.5", "skewed", (0, 1)),
    ("truth", "skewed", (1, 13)),
    ("dirichlet", "skewed", (0, 14)),
    ("truth", "skewed", (13, 19)),
    ("axial.5", "eleven", (0, 1)),
    ("dirichlet", "eleven", (0, 22)),
    ("truth", "eleven", (1, 15)),
    ("axial.5", "seven", (1, 2)),
    ("even.5", "skewed", (0, 1)),
    ("axial.75", "seven", (0, 1)),
    ("sobol", "seven", (0, 1)),
)
POOL = 44
TRUTH_SEED = 40_961


def case_of(trial: Trial) -> Case:
    """Return the case that a trial is of."""
    return next(case for case in CASES if trial.name.startswith(f"{case.name}-"))


def planned() -> list[Trial]:
    """Return all trials, in the order in which they are trained."""
    cases = {case.name: case for case in CASES}
    trials = []
    for kind, name, part in ORDER:
        pairs = list(_of_kind(cases[name], kind, part))
        seeds = trial_seeds([told.replace("_own", "") for told, _ in pairs], seed=SEED)
        for told, mixture in pairs:
            own = seeds[told.replace("_own", "")]
            seed = own if cases[name].own_seeds else _common_seed(told, kind)
            trials.append(Trial(told, _over_all(mixture), seed))
    return trials


def _common_seed(name: str, kind: str) -> int:
    """Return one seed for all truths, and one for all trials of a draw of designs."""
    if kind == "truth":
        return TRUTH_SEED
    return SEED + (int(name.split("-")[2]) if kind != "dirichlet" else 0)


def _over_all(mixture: Mixture) -> Mixture:
    return Mixture({name: mixture.get(name, 0.0) for name in ALL})


def _of_kind(case: Case, kind: str, part: tuple[int, int]) -> Iterator[tuple[str, Mixture]]:
    """Yield names and mixtures of a kind: rows of a list, or repetitions of a design."""
    numbers, head = range(*part), f"{case.name}-{kind}"
    if kind in ("truth", "dirichlet"):
        rows = case.sampled("dirichlet", POOL, SEED) if kind == "dirichlet" else case.truth()
        yield from ((f"{head}-{i}", rows[i]) for i in numbers)
        return
    for i in numbers:
        for place, mixture in enumerate(_design(case, kind, i)):
            yield f"{head}-{i}-{place}", mixture


def _design(case: Case, kind: str, repetition: int) -> Sequence[Mixture]:
    """Return one draw: axial points and their centre, which is last, or Sobol points."""
    if kind == "sobol":
        return case.sampled("sobol", 2 * len(case.domains), SEED + 1 + repetition)
    if kind == "even.5":
        return case.axial(0.5, "uniform")
    points = case.axial(float(kind.removeprefix("axial")))
    return points if kind == "axial.5" else points[:-1]

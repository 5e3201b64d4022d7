"""Search the allowed mixtures for the best predicted objective.

Simulation as in RegMix: draw mixtures, predict, average the best. RegMix draws from one Dirichlet
around the natural mixture; with many domains one or two dominate nearly all its draws, so that the
best of 819,000 is worse than natural for a mean of many targets. Here half of the draws use several
concentrations around natural and uniform, and the other half around the average of the best so far.
Draws outside the constraints are moved inside. The best k draws are averaged, for the largest k
(64, 32, ..., 1) whose average is predicted no worse than the best single draw.

If the regressor has a gradient, descents by sequential quadratic programming continue from there
and from other starts. Their cost grows with the cube of the number of domains. So above
`MAX_SLSQP_DOMAINS`, with bounds only, projected gradients with Barzilai-Borwein steps are used, and
the objective may rise for a few steps. The result meets the constraints, and is predicted no worse
than any scored mixture. A mixture that breaks a guardrail is worse than all that keep them, and
better the less it breaks.

Refits on resampled trials are searched with fewer draws: the distance of their optima from the
proposal is its stability.

Shapes: N mixtures, D domains, M losses, G guarded losses, B refits, K drawn directions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from mixopt.constraints import BROKEN, DifferentiableFunction, FeasibleSet, Guardrails
from mixopt.fitting import Predictor, predict_losses, select_targets, supports
from mixopt.objective import Objective
from mixopt.proposals.request import Avoided, ProposalRequest
from mixopt.system import Array, Update, no_progress

CHUNK = 16_384  # mixtures predicted or drawn at once
BEST_TRIALS = 8  # best trials scored by the search
FAR = 1e9  # base score of mixtures that break a guardrail

# Draws.
STARTING = 2_000  # maximum number of draws if descents follow
CONCENTRATIONS = (1.0, 4.0, 16.0, 64.0)  # of draws around the natural and the uniform mixture
NARROW = (32.0, 128.0, 512.0)  # of draws around the best so far
MIN_CONCENTRATION = 1e-3  # of one domain
REFIT_SAMPLES = 2_000  # draws for each refit
REFIT_STARTING = 400  # the same if descents follow
REFIT_DESCENTS = 2
DIRECTIONS = 256  # random directions of the region as good as the best
BISECTIONS = 8  # along each direction

# Descents.
STARTS = 12  # random starts
MAX_SLSQP_DOMAINS = 64  # maximum number of domains for quadratic programming
FINE = 1e-10  # change of the objective at which a descent stops
ROUGH = 1e-8  # the same while several descents are compared
ROOM = 1e-6  # safety margin of guardrails in a descent, in the unit of the losses
STEPS = 300  # maximum steps of projected gradients
HALVINGS = 30  # maximum halvings of one step
MEMORY = 6  # non-monotone line search: compare with the highest of the last 6 values
FIRST = 0.1  # length of the first step, in weight
FALL = 1e-4  # Armijo factor: required part of the decrease that the gradient predicts
MIN_SLOPE = 1e-12  # smallest slope that scales the first step
MIN_CURVATURE = 1e-300  # along a step; smaller counts as none
LONGER = 10.0  # factor of the next step without curvature


@dataclass(frozen=True, eq=False)
class Problem:
    """The objective of a search, the allowed mixtures, and settings.

    Attributes:
        regressor: Predicts the losses that the objective and the guardrails need.
        objective: The objective over these losses.
        allowed: The allowed mixtures.
        natural_D: Centre of draws, shape (D,).
        known_ND: Mixtures to score as well, such as the best trials, shape (N, D).
        guards: Guardrails on the losses, or None.
        avoided: Trials with collapsed experts; descents ignore them.
        samples: Number of draws to score.
        average: Maximum number of best draws to average.
        seed: Seed of random draws.
        descents: Number of descents, from the best predicted starts.
    """

    regressor: Predictor
    objective: Objective
    allowed: FeasibleSet
    natural_D: Array
    known_ND: Array
    guards: Guardrails | None = None
    avoided: Avoided | None = None
    samples: int = 4_000
    average: int = 64
    seed: int = 0
    descents: int = 6

    @classmethod
    def of(cls, request: ProposalRequest) -> Self:
        """Build the search of a request."""
        fit = request.fit
        finished = (request.trials or fit.trials).finished
        values_N = request.objective.value(finished.losses(request.objective.unit))
        best_trials = np.argsort(values_N, kind="stable")[:BEST_TRIALS]
        needed = request.needed_columns
        objective = request.objective.over([fit.targets[column] for column in needed])
        rails = request.constraints.guardrails
        avoided = None
        if rails is not None and rails.experts:
            avoided = Avoided.of(finished, request.collapsed)
        return cls(
            select_targets(fit.regressor, needed),
            objective,
            allowed=request.constraints.allowed,
            natural_D=request.compared["natural"].array,
            known_ND=finished.weights()[best_trials],
            guards=request.guards(objective),
            avoided=avoided,
            samples=request.search.samples,
            seed=request.seed,
        )

    @property
    def has_gradient(self) -> bool:
        """Whether the regressor has gradients."""
        return supports(self.regressor, "gradient")

    def losses(self, weights_ND: Array) -> Array:
        """Return predicted losses, shape (N, M)."""
        return predict_losses(self.regressor, weights_ND)

    def slopes(self, weights_D: Array) -> Array:
        """Return the gradient of each loss, shape (M, D); requires `has_gradient`."""
        assert supports(self.regressor, "gradient")
        return np.asarray(self.regressor.gradient(weights_D))

    def score(self, weights_ND: Array) -> Array:
        """Return the score to minimise, shape (N,): the objective, or how guardrails are broken."""
        chunks = range(0, len(weights_ND), CHUNK)
        return np.concatenate([self._scored(weights_ND[at : at + CHUNK]) for at in chunks])

    @cached_property
    def compared_G(self) -> Array:
        """Reference values of the guarded losses."""
        return np.empty(0) if self.guards is None else self.guards.compared(self.losses)

    def excess(self, weights_ND: Array) -> Array:
        """Return the violation of each guardrail, shape (N, G); below 0 it is kept."""
        assert self.guards is not None
        return self.guards.excess(self.losses(weights_ND), self.compared_G)

    def _scored(self, weights_ND: Array) -> Array:
        losses_NM = self.losses(weights_ND)
        excess_N = np.zeros(len(weights_ND))
        if self.avoided is not None:
            excess_N = np.maximum(excess_N, self.avoided.excess(weights_ND))
        if self.guards is not None:
            broken_NG = self.guards.excess(losses_NM, self.compared_G)
            excess_N = np.maximum(excess_N, broken_NG.max(axis=1))
        values_N = self.objective.value(losses_NM)
        return np.where(excess_N > BROKEN, FAR * (1.0 + excess_N), values_N)


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The best mixture of a search: its weights, score and method."""

    weights_D: Array
    value: float
    method: str


def search(problem: Problem) -> SearchResult:
    """Find the allowed mixture with the best predicted objective."""
    if not problem.has_gradient:
        return simulate(problem)
    draws = min(problem.samples, STARTING)
    result = simulate(replace(problem, samples=draws, average=min(problem.average, draws)))
    descended = descend(problem, result.weights_D)
    return min([result, descended], key=lambda outcome: outcome.value)


def search_again(
    problem: Problem, refits: Sequence[Predictor], proposed_D: Array, update: Update = no_progress
) -> Array:
    """Return the optimum of each refit, shape (B, D), searched on fewer draws than a proposal."""
    optima = []
    for regressor in refits:
        refitted = replace(problem, regressor=regressor, descents=REFIT_DESCENTS)
        if refitted.has_gradient:
            # Start from the proposal too: optima of refits are often near it.
            refitted = replace(refitted, known_ND=np.vstack([proposed_D, problem.known_ND]))
        max_draws = REFIT_STARTING if refitted.has_gradient else REFIT_SAMPLES
        draws = min(problem.samples, max_draws)
        averaged = max(problem.average * draws // problem.samples, 1)
        result = search(replace(refitted, samples=draws, average=averaged))
        optima.append(result.weights_D)
        update(len(optima), "")
    return np.array(optima)


def near_best(problem: Problem, best_D: Array, noise: float) -> Array:
    """Return the lowest and highest share of each domain among mixtures as good, shape (2, D).

    Searches from the best mixture towards and away from each domain, and towards random allowed
    mixtures, as far as the score stays within `noise` of the best.
    """
    domains = len(best_D)
    cube_KD = np.random.default_rng(problem.seed).random((DIRECTIONS, problem.allowed.dimensions))
    without_DD = np.where(np.eye(domains, dtype=bool), 0.0, best_D)
    corners_KD = np.vstack([np.eye(domains), without_DD])
    ends_KD = np.vstack([problem.allowed.project(corners_KD), problem.allowed.from_cube(cube_KD)])
    moves_KD = ends_KD - best_D
    limit = problem.score(best_D[None])[0] + noise
    good_K = np.zeros(len(ends_KD))
    bad_K = np.ones(len(ends_KD))
    good_K[problem.score(best_D + moves_KD) <= limit] = 1.0
    for _ in range(BISECTIONS):
        low_D, high_D = _range(best_D + good_K[:, None] * moves_KD, best_D)
        farthest_KD = best_D + bad_K[:, None] * moves_KD
        # All others end within what is reached already.
        open_K = ((farthest_KD < low_D) | (farthest_KD > high_D)).any(axis=1) & (good_K < bad_K)
        if not open_K.any():
            break
        middle_K = (good_K + bad_K)[open_K] / 2
        within_K = problem.score(best_D + middle_K[:, None] * moves_KD[open_K]) <= limit
        good_K[open_K] = np.where(within_K, middle_K, good_K[open_K])
        bad_K[open_K] = np.where(within_K, bad_K[open_K], middle_K)
    return _range(best_D + good_K[:, None] * moves_KD, best_D)


def _range(points_KD: Array, also_D: Array) -> Array:
    all_KD = np.vstack([also_D, points_KD])
    return np.stack([all_KD.min(axis=0), all_KD.max(axis=0)])


def simulate(problem: Problem) -> SearchResult:
    """Draw mixtures, predict, and average the best."""
    rng = np.random.default_rng(problem.seed)
    uniform_D = np.full_like(problem.natural_D, 1.0 / len(problem.natural_D))
    best_ND = problem.allowed.project(np.vstack([problem.known_ND, problem.natural_D, uniform_D]))
    values_N = problem.score(best_ND)
    first = (problem.samples + 1) // 2
    centers = [(problem.natural_D, concentration) for concentration in CONCENTRATIONS]
    centers += [(uniform_D, concentration) for concentration in CONCENTRATIONS]
    for count in (first, problem.samples - first):
        for draws_ND in _draws(centers, count, rng):
            inside_ND = problem.allowed.inside(draws_ND)
            best_ND = np.vstack([best_ND, inside_ND])
            values_N = np.concatenate([values_N, problem.score(inside_ND)])
            order = np.argsort(values_N, kind="stable")[: problem.average]
            best_ND = best_ND[order]
            values_N = values_N[order]
        result = _average(problem, best_ND, values_N)
        centers = [(result.weights_D, concentration) for concentration in NARROW]
    return result


def _average(problem: Problem, best_ND: Array, values_N: Array) -> SearchResult:
    """Return the average of the best k draws, for the largest k that is predicted no worse."""
    counts = [len(values_N)]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    means_KD = np.array([best_ND[:count].mean(axis=0) for count in counts])
    means_KD = problem.allowed.inside(means_KD)
    means_KD[-1] = best_ND[0]
    values_K = problem.score(means_KD)
    good_K = values_K <= values_N[0]
    good_K[-1] = True
    row = int(np.argmax(good_K))
    return SearchResult(means_KD[row], float(values_K[row]), "simulation")


def _draws(
    centers: list[tuple[Array, float]], count: int, rng: np.random.Generator
) -> Iterator[Array]:
    """Yield chunks of Dirichlet draws, equally many around each centre."""
    chunks: list[Array] = []
    for place, (center_D, concentration) in enumerate(centers):
        quota = (count * (place + 1)) // len(centers) - (count * place) // len(centers)
        alpha_D = np.maximum(concentration * center_D, MIN_CONCENTRATION)
        for at in range(0, quota, CHUNK):
            chunks.append(rng.dirichlet(alpha_D, min(CHUNK, quota - at)))
            if sum(map(len, chunks)) >= CHUNK:
                yield np.vstack(chunks)
                chunks = []
    if chunks:
        yield np.vstack(chunks)


def descend(problem: Problem, start_D: Array) -> SearchResult:
    """Return the best end point of many descents, within the constraints."""
    rng = np.random.default_rng(problem.seed)
    cube_SK = rng.random((STARTS, problem.allowed.dimensions))
    centers_ND = np.vstack([start_D, problem.natural_D, problem.known_ND[:4]])
    starts_SD = np.vstack([problem.allowed.project(centers_ND), problem.allowed.from_cube(cube_SK)])
    scores_S = problem.score(starts_SD)
    order_S = 1 + np.argsort(scores_S[1:], kind="stable")
    chosen_SD = starts_SD[np.append(0, order_S[: problem.descents - 1])]
    ends_SD = np.array([_minimise(problem, chosen_D, ROUGH) for chosen_D in chosen_SD])
    ends_SD = problem.allowed.inside(ends_SD)
    all_ND = np.vstack([starts_SD, ends_SD])
    best_D = all_ND[int(np.argmin(np.append(scores_S, problem.score(ends_SD))))]
    # Only the best is polished: near a weight of 0 most steps only refine the last digits.
    last_D = problem.allowed.inside(_minimise(problem, best_D, FINE)[None])[0]
    pair_2D = np.stack([best_D, last_D])
    scores_2 = problem.score(pair_2D)
    row = int(np.argmin(scores_2))
    return SearchResult(pair_2D[row], float(scores_2[row]), "gradient")


def least_broken(problem: Problem, start_D: Array) -> Array:
    """Return the allowed mixture with the smallest worst violation of guardrails, shape (D,)."""
    end_D = _minimise_worst(_guardrail_room(problem), start_D, problem)
    candidates_ND = np.vstack([start_D, problem.allowed.inside(end_D[None])])
    nearest_D: Array = candidates_ND[int(problem.excess(candidates_ND).max(axis=1).argmin())]
    return nearest_D


def _minimise(problem: Problem, start_D: Array, accuracy: float) -> Array:
    """Return the end of one descent, within the constraints up to rounding."""
    allowed = problem.allowed
    guards = [] if problem.guards is None else [_guardrail_room(problem, ROOM)]
    pieces_PM = problem.objective.pieces()
    pieces = DifferentiableFunction(
        lambda w: problem.objective.sums(problem.losses(w[None]))[0],
        lambda w: pieces_PM @ problem.slopes(w),
    )
    if len(pieces_PM) > 1:
        below = DifferentiableFunction(lambda w: -pieces.values(w), lambda w: -pieces.slopes(w))
        return _minimise_worst(below, start_D, problem, guards, accuracy=accuracy)
    if len(start_D) > MAX_SLSQP_DOMAINS and not guards and allowed.has_only_bounds:
        return projected_descent(pieces, allowed.project, start_D, accuracy=accuracy)
    return allowed.minimize(pieces, start_D, guards, accuracy=accuracy)


def _minimise_worst(
    below: DifferentiableFunction,
    start_D: Array,
    problem: Problem,
    guards: Sequence[DifferentiableFunction] = (),
    *,
    accuracy: float = FINE,
) -> Array:
    """Minimise max(-below) as the smallest t with t + below >= 0."""
    domains = len(start_D)
    above = DifferentiableFunction(
        lambda x: x[domains] + below.values(x[:domains]),
        lambda x: np.pad(below.slopes(x[:domains]), ((0, 0), (0, 1)), constant_values=1.0),
    )
    top = DifferentiableFunction(
        lambda x: x[domains : domains + 1], lambda x: np.eye(domains + 1)[domains:]
    )
    start_X = np.append(start_D, -below.values(start_D).min())
    end_X = problem.allowed.minimize(top, start_X, [above, *guards], accuracy=accuracy)
    return end_X[:domains]


def _guardrail_room(problem: Problem, margin: float = 0.0) -> DifferentiableFunction:
    """Return how far losses are within their guardrails, less a margin, and the gradient."""
    assert problem.guards is not None
    columns = problem.guards.columns
    domains = len(problem.natural_D)
    return DifferentiableFunction(
        lambda x: -problem.excess(x[None, :domains])[0] - margin,
        lambda x: -problem.slopes(x[:domains])[columns],
    )


def projected_descent(
    cost: DifferentiableFunction,
    project: Callable[[Array], Array],
    start_D: Array,
    *,
    accuracy: float,
) -> Array:
    """Return the best mixture along the descent, shape (D,)."""

    def value(weights_D: Array) -> float:
        return float(cost.values(weights_D)[0])

    point_D = start_D
    slope_D = cost.slopes(start_D)[0]
    best_D = start_D
    values = [value(start_D)]
    length = FIRST / max(float(np.abs(slope_D).max()), MIN_SLOPE)
    for _ in range(STEPS):
        move_D = project(point_D - length * slope_D) - point_D
        fall = float(slope_D @ move_D)
        if fall > -accuracy:
            break
        part = _part(value, point_D, move_D, fall, max(values[-MEMORY:]))
        if part == 0:
            break
        next_D = point_D + part * move_D
        values.append(value(next_D))
        if values[-1] <= min(values):
            best_D = next_D
        next_slope_D = cost.slopes(next_D)[0]
        curvature = float((next_D - point_D) @ (next_slope_D - slope_D))
        moved = float(((next_D - point_D) ** 2).sum())
        length = moved / curvature if curvature > MIN_CURVATURE else LONGER * length
        point_D = next_D
        slope_D = next_slope_D
    return best_D


def _part(
    value: Callable[[Array], float], point_D: Array, move_D: Array, fall: float, highest: float
) -> float:
    """Return the part of a move that decreases the objective enough; 0 if none does."""
    part = 1.0
    for _ in range(HALVINGS):
        if value(point_D + part * move_D) <= highest + FALL * part * fall:
            return part
        part *= 0.5
    return 0.0

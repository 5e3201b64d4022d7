"""Aioli's idea without its price: mixing laws estimated from ordinary batches, small safe moves.

For the plain mean over the training domains each domain's marginal value is the slope of its
learning curve (mixopt_regressors.online.running_laws) plus what recent share is worth; the mixture
moves by exponentiated gradient on relative marginal values, not at all where a contrast is noise,
within [0.8, 1.25] of the reference, and returns to the reference for the last part of the run.
Nothing is perturbed and nothing is evaluated: published sweeps cost more than what they find.

For a target (any other objective) the effect of each domain's share on the target's held-out loss
is a recursive regression on realised shares (mixopt_regressors.online.running_laws), with the
curves as prior where the target is a training domain. Where a good part of the objective is
beyond what own shares can give it, about ten small perturbations at the start give the regression
its contrasts; a run too short for as many as there are domains has none, and is not steered by
evaluations. Shares go towards those that the effects make best, by their signal over noise. Where
only evaluations tell, they go by the probability that shares matter at all: how much better a
regression with effects predicted the losses, each before it was seen, than one without. In the last
part a target's own domain gets its weight. Evaluations and perturbations keep to a budget each.

What was measured, and where it does not win: experiments/synthetic/online_synthetic.py,
experiments/real_text/online.py.

Shapes: D domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mixopt.online import Need, Plan
from mixopt.system import Array
from mixopt_regressors.online.online_estimator import OnlineEstimator, Seen, option
from mixopt_regressors.online.running_laws import Curves, Interaction, Slopes

MIN_WEIGHT, MAX_SCALE = 1e-12, 1e15  # of weights; of the scale
HALVINGS = 100


def scaled_within(weights_D: Array, lower_D: Array, upper_D: Array) -> Array:
    """Return clip(scale x weights, lower, upper) at the scale where it adds up to 1."""
    weights_D = np.maximum(weights_D, MIN_WEIGHT)
    low, high = 0.0, 1.0
    while np.clip(high * weights_D, lower_D, upper_D).sum() < 1.0 and high < MAX_SCALE:
        high *= 2.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        if np.clip(middle * weights_D, lower_D, upper_D).sum() < 1.0:
            low = middle
        else:
            high = middle
    shares_D: Array = np.clip(high * weights_D, lower_D, upper_D)
    return shares_D


WINDOW, WARM_UP = 0.01, 0.05  # of the run: a plan, and the start on the reference mixture
FADING = 0.98  # of what a curve knows, from window to window
MEMORY = 30.0  # steps at the peak learning rate that recency lasts
CERTAIN = 1.5  # standard deviations from which a contrast moves the mixture
MIN_EVIDENCE = -10.0  # nats, so that what turns out later still counts
PER_RECENCY = 1.5  # how much recent share counts beside the slope
HALF = 0.5  # recent and cumulative shares count alike; and the power of shares in a target's law
MIN_RATIO = 0.05  # of a share to its reference, in that law
CROSS, OUTSIDE = 0.15, 0.2  # prior deviations: of others' effects over own ones; without own
OWN_UNSURE = 0.3  # least relative deviation of a prior from curves
PACE = 0.03  # of the run, in which a target's mixture makes most of its way
OPEN = 0.3  # of the objective that own shares cannot reach, from which it pays to perturb
PERTURBATIONS, SHORTEST = 10, 3  # how many where it can be; steps of one, at least
STRENGTH = 1.2  # of a perturbation, in logarithms of shares
EVALUATIONS = 60
NO_TOKENS = 1e-9
FREE = 1e9  # times the reference share: no most


@dataclass(eq=False)
class RobustEstimator(OnlineEstimator):
    """Moves the mixture by what ordinary batches say, and by no more than that.

    Attributes:
        eta: Step size on relative marginal values, for the mean over the training domains.
        least: Least share over its reference share, for that mean.
        most: Most share over its reference share, for that mean.
        keep: Least share over its reference share, for a target.
        end: Part of the run at its end on the reference mixture (for a target, on what its own
            domains say).
        perturb: Steps on perturbed mixtures, as part of the run.
        evaluate: Cost of evaluations, as part of the run's; an evaluated token costs a third.
    """

    name: ClassVar[str] = "robust"
    needs: ClassVar[frozenset[Need]] = frozenset({"training_loss", "held_out"})
    saved: ClassVar[tuple[str, ...]] = (
        "curves.shared_DS", "curves.curve_DGS", "total_D", "late_D", "fastest", "base_D",
        "evaluations_done", "evaluated_at", "evaluated_tokens", "perturbations_done", "evidence",
        "moved.trend_T", "moved.effect_D", "moved.trend_TT", "moved.cross_TD", "moved.effect_DD",
        "moved.variance", "moved.count",
        "unmoved.trend_T", "unmoved.trend_TT", "unmoved.variance", "unmoved.count",
    )  # fmt: skip

    eta: float = option(0.1, least=0.0)
    least: float = option(0.8, least=0.0, most=1.0)
    most: float = option(1.25, least=1.0)
    keep: float = option(0.1, least=0.0, most=1.0)
    end: float = option(0.15, least=0.0, most=1.0)
    perturb: float = option(0.05, least=0.0, most=1.0)
    evaluate: float = option(0.05, least=0.0, most=1.0)

    def _first(self) -> Plan:
        setting, domains = self.setting, len(self.setting.domains)
        self.curves = Curves.empty(domains)
        self.moved, self.unmoved = Interaction.unknown(domains), Interaction.unknown(0)
        self.evaluations_done, self.evaluated_at, self.evidence = 0, 0, 0.0
        self.total_D, self.fastest = np.zeros(domains), 0.0
        self.late_D, self.base_D = setting.reference_D.copy(), setting.reference_D.copy()
        self.perturbations_done = self.evaluated_tokens = 0
        self._own_D = np.zeros(domains)
        for name, weight in zip(setting.evaluations, setting.objective_M, strict=True):
            if name in setting.domains:
                self._own_D[setting.domains.index(name)] += weight
        return Plan(setting.reference_D.copy(), self._window(), "warm-up")

    def _next(self, seen: Seen) -> Plan:
        slopes = self._learn_curves(seen)  # first: it brings shares up to the evaluation
        if seen.held_out is not None:
            self._learn_interaction(self.objective(seen.held_out), seen.held_out.tokens)
        return self._for_mean(slopes) if self._is_mean else self._for_target(slopes, seen)

    @property
    def _is_mean(self) -> bool:
        return bool(np.allclose(self._own_D, 1.0 / len(self._own_D)))

    @property
    def _scale_D(self) -> Array:
        """Tokens of each domain in a run on the reference mixture."""
        setting = self.setting
        scale_D: Array = np.maximum(setting.reference_D, NO_TOKENS)
        return scale_D * setting.tokens_before(setting.steps)

    @property
    def _is_end(self) -> bool:
        return self.step >= (1.0 - self.end) * self.setting.steps

    def _window(self) -> int:
        return max(round(WINDOW * self.setting.steps), 1)

    # What is learned ------------------------------------------------------------------------

    def _learn_curves(self, seen: Seen) -> Slopes:
        tokens = float(seen.tokens_D.sum())
        steps = max(tokens / self.setting.tokens_per_step, 1.0)
        share_D = seen.tokens_D / max(tokens, 1.0)
        self.fastest = max(self.fastest, seen.learning_rate)
        passed = steps * (seen.learning_rate / self.fastest if self.fastest else 1.0) / MEMORY
        kept = math.exp(-passed)
        interior_point_D = share_D + (self.late_D - share_D) * (1.0 - kept) / max(passed, NO_TOKENS)
        self.late_D = share_D + kept * (self.late_D - share_D)
        self.curves = self.curves.add(
            (self.total_D + seen.tokens_D / 2.0) / self._scale_D,
            seen.mean_loss_D,
            seen.loss_count_D,
            interior_point_D / np.maximum(self.setting.reference_D, NO_TOKENS),
            FADING,
        )
        self.total_D = self.total_D + seen.tokens_D
        return self.curves.slopes(self.total_D / self._scale_D)

    def _learn_interaction(self, loss: float, tokens: int) -> None:
        first = self.evaluations_done == 0
        elapsed = 0.0 if first else self._elapsed()
        cumulative_D = self.total_D / max(self.total_D.sum(), 1.0)
        x_D = HALF * self._moved(self.late_D) + (1.0 - HALF) * self._moved(cumulative_D)
        none_D = np.zeros(0)
        if not first:
            more = self.moved.log_density(loss, x_D, elapsed)
            more -= self.unmoved.log_density(loss, none_D, elapsed)
            self.evidence = max(self.evidence + more, MIN_EVIDENCE)
        self.moved = self.moved.add(loss, x_D, elapsed, first=first)
        self.unmoved = self.unmoved.add(loss, none_D, elapsed, first=first)
        self.evaluations_done, self.evaluated_at = self.evaluations_done + 1, self.step
        self.evaluated_tokens = tokens

    def _elapsed(self) -> float:
        """Return the logarithm of the tokens up to here over those up to the last evaluation."""
        before = self.setting.tokens_before
        return math.log(before(self.step) / before(max(self.evaluated_at, 1)))

    def _moved(self, shares_D: Array) -> Array:
        """Return how far shares are from the reference: 2 sqrt(ratio) - 2, steep where scarce."""
        ratio_D = shares_D / np.maximum(self.setting.reference_D, NO_TOKENS)
        moved_D: Array = (np.maximum(ratio_D, MIN_RATIO) ** HALF - 1.0) / HALF
        return moved_D

    # The plain mean over the training domains -----------------------------------------------

    def _for_mean(self, slopes: Slopes) -> Plan:
        setting = self.setting
        if self._is_end:
            return Plan(setting.reference_D.copy(), setting.steps, "end: reference")
        until_end = math.ceil((1.0 - self.end) * setting.steps) - self.step
        steps = min(self._window(), max(until_end, 1))
        if self.step < WARM_UP * setting.steps:
            return Plan(setting.reference_D.copy(), steps, "warm-up")
        return Plan(self._moved_by(slopes), steps, "curves")

    def _moved_by(self, slopes: Slopes) -> Array:
        """Step along relative marginal values, as far as each is certain."""
        setting, weights_D = self.setting, np.maximum(self.weights_D, NO_TOKENS)
        left = setting.tokens_before(setting.steps) - setting.tokens_before(self.step)
        lately_D = PER_RECENCY * slopes.recency_D / weights_D / left
        value_D = self._own_D * (slopes.fall_D / self._scale_D + lately_D)
        sd_D = self._own_D * slopes.sd_D / self._scale_D
        mean = max(float(weights_D @ value_D), 1e-300)
        relative_D = np.clip(value_D / mean - 1.0, -1.0, 1.0)
        contrast_sd_D = np.sqrt(sd_D**2 + (weights_D**2 * sd_D**2).sum())
        signal_D = np.abs(value_D - mean) / np.maximum(contrast_sd_D, 1e-300)
        sure_D = np.maximum(1.0 - (CERTAIN / np.maximum(signal_D, 1e-9)) ** 2, 0.0)
        moved_D = weights_D * np.exp(self.eta * relative_D * sure_D)
        return self._within(moved_D, self.least, self.most)

    def _within(self, weights_D: Array, least: float, most: float) -> Array:
        """Scale weights into a region around the reference and into the bounds of the run."""
        setting = self.setting
        lower_D, upper_D = self._allowed.lower_D, self._allowed.upper_D
        return scaled_within(
            weights_D,
            np.clip(least * setting.reference_D, lower_D, upper_D),
            np.clip(most * setting.reference_D, lower_D, upper_D),
        )

    # A target -------------------------------------------------------------------------------

    def _for_target(self, slopes: Slopes, seen: Seen) -> Plan:
        setting, steps = self.setting, self._window()
        warm = WARM_UP * setting.steps
        if self.step < warm:
            last = self.step + steps >= warm and self._asks
            return Plan(setting.reference_D.copy(), steps, "warm-up", held_out=last)
        self._approach(self._best_for_target(slopes), seen)
        if self._asks and self.perturbations_done < self._perturbations():
            return self._perturbation()
        left = min(self._budget(), EVALUATIONS) - self.evaluations_done
        due = (self.step + steps - self.evaluated_at) * left >= setting.steps - self.evaluated_at
        asks = self._asks and self._perturbations() > 0 and left >= 1 and due
        return Plan(self.base_D.copy(), steps, "target", held_out=asks)

    @property
    def _asks(self) -> bool:
        """Whether much of the objective is beyond what own shares can give it."""
        own_D = self._own_D > 0
        reach = min(float(self._allowed.upper_D[own_D].sum()), 1.0)
        return max(1.0 - float(self._own_D.sum()), 1.0 - reach) > OPEN

    def _best_for_target(self, slopes: Slopes) -> Array:
        """Return the shares that the effects make best, each as far as it is certain."""
        effect_D, sd_D = self._effects(slopes)
        signal_D = effect_D / np.maximum(sd_D, 1e-300)
        sure_D = np.maximum(effect_D, 0.0) * signal_D**2 / (1.0 + signal_D**2)
        if not sure_D.sum() > 0:
            return self.base_D
        own, reference_D = float(self._own_D.sum()), self.setting.reference_D
        if self._is_end and own > 0:
            wanted_D = self._own_D + max(1.0 - own, 1e-3) * sure_D / sure_D.sum()
        else:
            # Where effect x moved(share) is steepest for all alike.
            law_D = sure_D * np.maximum(reference_D, NO_TOKENS) ** -HALF
            wanted_D = law_D ** (1.0 / (1.0 - HALF))
            wanted_D = wanted_D / wanted_D.sum() + 1e-6 * reference_D
        wanted_D = self._within(wanted_D, self.keep, FREE)
        if not self._asks:
            return wanted_D
        # An exact sampler leaves nothing to learn from but perturbations.
        matters = 1.0 / (1.0 + math.exp(-self.evidence)) if self.perturbations_done else 0.0
        part = own + (1.0 - own) * matters
        return np.asarray(reference_D + part * (wanted_D - reference_D))

    def _effects(self, slopes: Slopes) -> tuple[Array, Array]:
        """Return effects of shares on the objective, and their deviations."""
        seen_D, own_D, own = self.total_D / self._scale_D, self._own_D, float(self._own_D.sum())
        prior_D = own_D * (slopes.fall_D * seen_D + slopes.recency_D)
        sd_D = np.full(len(own_D), OUTSIDE)
        if own > 0:
            others = CROSS * float(prior_D.sum()) / own + OUTSIDE * (1.0 - own)
            of_curve_D = own_D * np.minimum(slopes.sd_D, 1e3) * seen_D
            own_sd_D = np.maximum(of_curve_D, OWN_UNSURE * prior_D)
            sd_D = np.maximum(np.where(own_D > 0, own_sd_D, others), 1e-9)
        if self.evaluations_done < 2:
            return prior_D, sd_D
        return self.moved.with_prior(prior_D, sd_D)

    def _approach(self, wanted_D: Array, seen: Seen) -> None:
        steps = float(seen.tokens_D.sum()) / self.setting.tokens_per_step
        part = 1.0 - math.exp(-steps / self.setting.steps / PACE)
        self.base_D = self.base_D + part * (wanted_D - self.base_D)

    def _budget(self) -> int:
        """Return how many evaluations the run can pay, at the tokens of the last."""
        tokens = self.setting.tokens_before(self.setting.steps)
        return int(3.0 * self.evaluate * tokens / max(self.evaluated_tokens, 1))

    def _perturbations(self) -> int:
        """Return how many there will be: none where fewer than domains, which tell none apart."""
        domains = len(self.setting.domains)
        room = int(self.perturb * self.setting.steps / SHORTEST)
        count = min(max(domains, PERTURBATIONS), int(0.7 * self._budget()), room)
        return count if count >= domains else 0

    def _perturbation(self) -> Plan:
        """Raise half of the domains that are no target, and lower the others; then evaluate."""
        count = self._perturbations()
        length = int(self.perturb * self.setting.steps / count)
        signs_D = _signs(self.perturbations_done, self.setting.domains)
        rest_D = self._own_D <= 0
        weights_D = self.base_D * np.exp(STRENGTH * np.where(rest_D, signs_D, 0.0))
        if rest_D.any():
            weights_D[rest_D] *= self.base_D[rest_D].sum() / weights_D[rest_D].sum()
        self.perturbations_done += 1
        tag = f"perturbation {self.perturbations_done} of {count}"
        weights_D = self._within(weights_D, self.keep, FREE)
        return Plan(weights_D, length, tag, held_out=True, perturbs=True)


def _signs(number: int, names: Sequence[str]) -> Array:
    """Return a row of a Hadamard matrix: over the rows each pair of domains goes apart alike."""
    matrix = np.ones((1, 1))
    while len(matrix) < len(names) + 1:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    columns_D = np.argsort(np.argsort(names))
    signs_D: Array = (-1.0) ** number * matrix[1 + number % (len(matrix) - 1), columns_D]
    return signs_D

"""The robust estimator: no move on noise, a region it keeps to, and a way to a target.

The run is synthetic: losses are power laws of tokens, with noise on request.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from mixopt_regressors.online import RobustEstimator
from mixopt_regressors.online.robust import scaled_within
from mixopt_regressors.online.running_laws import Curves, Interaction

from mixopt.errors import EstimatorError
from mixopt.online import HeldOut, Observation, Setting

DOMAINS = ("a", "b", "c")
STEPS, TOKENS = 400, 3000
HELPS = np.eye(3)


def losses(tokens_D, helps=HELPS, powers=(0.3, 0.3, 0.3), heights=(3.0, 3.0, 3.0)):
    return 1.0 + np.array(heights) * (1 + helps @ tokens_D / 20_000) ** -np.array(powers)


def setting(
    objective=(1 / 3, 1 / 3, 1 / 3), evaluations=DOMAINS, lower=0.0, upper=1.0, domains=DOMAINS
):
    even_D = np.full(3, 1 / 3)
    return Setting(
        domains,
        STEPS,
        TOKENS,
        even_D,
        even_D,
        evaluations,
        np.array(objective),
        np.full(3, lower),
        np.full(3, upper),
    )


def run(estimator, where=None, noise=0.0, held_out=None, **law):
    """Let an estimator steer a run; return the mixture of every step and all tags."""
    where = where or setting()
    rng = np.random.default_rng(0)
    estimator.start(where)
    tokens_D, weights, tags, step = np.zeros(3), [], [], 0
    while step < STEPS:
        plan = estimator.plan()
        tags.append(plan.tag)
        tokens = where.tokens_before(step + plan.steps) - where.tokens_before(step)
        drawn_D = tokens * plan.weights_D
        before_M, tokens_D = losses(tokens_D, **law), tokens_D + drawn_D
        mean_D = (before_M + losses(tokens_D, **law)) / 2 + noise * rng.standard_normal(3)
        step += plan.steps
        weights += [plan.weights_D] * plan.steps
        found = held_out(tokens_D) if plan.held_out and held_out else None
        estimator.observe(Observation(step, drawn_D, mean_D * drawn_D, drawn_D, found))
    return np.array(weights), tags


def test_on_losses_of_noise_alone_it_hardly_moves():
    weights, _ = run(RobustEstimator(), noise=0.05, heights=(0.0, 0.0, 0.0))
    assert np.abs(weights - 1 / 3).max() < 0.02


def test_on_the_mean_it_gives_more_to_the_domain_that_still_falls():
    weights, _ = run(RobustEstimator(), powers=(0.1, 0.3, 0.3), heights=(0.5, 3.0, 3.0))
    late = weights[int(0.8 * STEPS)]
    assert late[0] < 0.3
    assert late[1] > 0.34


def test_on_the_mean_it_keeps_to_its_region_and_ends_on_the_reference():
    estimator = RobustEstimator(eta=2.0)
    weights, tags = run(estimator, powers=(0.05, 0.5, 0.2), heights=(0.1, 5.0, 3.0))
    assert weights.min() >= 0.8 / 3 - 1e-9
    assert weights.max() <= 1.25 / 3 + 1e-9
    assert weights[-int(0.15 * STEPS) :] == pytest.approx(1 / 3)
    assert "end: reference" in tags


def test_on_the_mean_the_last_plan_before_the_end_ends_where_the_end_begins():
    planned = []

    class Noting(RobustEstimator):
        def _next(self, seen):
            plan = super()._next(seen)
            planned.append((self.step, plan.steps, plan.tag))
            return plan

    weights, _ = run(Noting(end=0.1456), powers=(0.1, 0.3, 0.3))  # the end is from step 341.76 on
    assert planned[-3:] == [(336, 4, "curves"), (340, 2, "curves"), (342, 400, "end: reference")]
    assert {steps for _, steps, _ in planned[:-2]} == {4}
    assert np.abs(weights[:342] - 1 / 3).max(axis=1)[-1] > 0.01
    assert weights[342:] == pytest.approx(1 / 3)


def test_bounds_of_the_run_hold():
    where = setting(lower=0.3, upper=0.36)
    weights, _ = run(RobustEstimator(), where, powers=(0.05, 0.5, 0.2))
    assert weights.min() >= 0.3 - 1e-9
    assert weights.max() <= 0.36 + 1e-9


def test_a_target_that_is_a_training_domain_gets_most_of_the_tokens_without_evaluations():
    weights, _ = run(RobustEstimator(), setting((0.0, 1.0, 0.0)))
    assert weights[-1, 1] > 0.8
    assert weights[int(0.3 * STEPS), 1] > 0.6


def outside(tokens_D):
    """Held-out loss of a target that learns from domain c alone."""
    return HeldOut(2 + 3 * (1 + tokens_D[2:] / 20_000) ** -0.3, tokens=2000)


def test_a_target_that_is_none_is_found_by_perturbing_and_its_source_gets_more():
    estimator = RobustEstimator()
    where = setting((1.0,), evaluations=("exam",))
    weights, tags = run(estimator, where, held_out=outside)
    assert sum(tag.startswith("perturbation") for tag in set(tags)) == int(0.05 * STEPS / 3)
    assert weights[-1].argmax() == 2
    assert weights[-1, 2] > 0.6


def test_a_target_that_no_share_moves_leaves_the_mixture_about_where_it_is():
    far = []
    for seed in range(6):
        rng = np.random.default_rng(seed)

        def unmoved(tokens_D, rng=rng):
            loss = 2 + 3 * (1 + tokens_D.sum() / 60_000) ** -0.3
            return HeldOut(loss + 0.03 * rng.standard_normal(1), tokens=2000)

        weights, _ = run(RobustEstimator(), setting((1.0,), ("exam",)), held_out=unmoved)
        far.append(np.abs(weights[STEPS // 2 :].mean(axis=0) - 1 / 3).max())
    assert np.mean(far) < 0.12


class Fresh:
    """A held-out loss that domain c's share of the latest tokens lowers, and nothing else."""

    def __init__(self):
        self.before_D = np.zeros(3)

    def __call__(self, tokens_D):
        latest_D, self.before_D = tokens_D - self.before_D, tokens_D
        return HeldOut(2 - 0.3 * latest_D[2:] / latest_D.sum(), tokens=2000)


def test_an_evaluation_is_explained_by_the_tokens_before_it_and_not_by_the_plan_before_them():
    estimator = RobustEstimator()
    weights, _ = run(estimator, setting((1.0,), evaluations=("exam",)), held_out=Fresh())
    assert weights[-1, 2] > 0.5
    assert estimator.moved.effect_D.argmax() == 2


def test_evaluations_keep_to_their_budget():
    estimator = RobustEstimator(evaluate=0.01)
    run(estimator, setting((1.0,), evaluations=("exam",)), held_out=outside)
    assert estimator.evaluations_done * 2000 / 3 <= 0.01 * STEPS * TOKENS


@pytest.mark.parametrize("part", [0.03, 0.05, 0.1])
def test_steps_on_perturbed_mixtures_keep_to_their_budget(part):
    estimator = RobustEstimator(perturb=part)
    where = setting((1.0,), evaluations=("exam",))
    estimator.start(where)
    tokens_D, step, perturbed = np.zeros(3), 0, 0
    while step < STEPS:
        plan = estimator.plan()
        perturbed += plan.steps * plan.perturbs
        drawn_D = plan.steps * TOKENS * plan.weights_D
        tokens_D, step = tokens_D + drawn_D, step + plan.steps
        found = outside(tokens_D) if plan.held_out else None
        estimator.observe(Observation(step, drawn_D, losses(tokens_D) * drawn_D, drawn_D, found))
    assert 0 < perturbed <= part * STEPS


def test_a_run_too_short_to_tell_domains_apart_is_not_perturbed():
    weights, tags = run(RobustEstimator(perturb=0.02), setting((1.0,), ("exam",)), held_out=outside)
    assert not any(tag.startswith("perturbation") for tag in tags)
    assert weights == pytest.approx(1 / 3, abs=1e-12)


def test_a_run_saved_and_loaded_after_each_plan_perturbs_and_moves_to_the_last_bit_alike():
    where = setting((1.0,), evaluations=("exam",))
    undisturbed, _ = run(RobustEstimator(), where, held_out=outside)

    class Relay(RobustEstimator):
        def observe(self, observation):
            super().observe(observation)
            other = RobustEstimator()
            other.start(where)
            other.load_state_dict(json.loads(json.dumps(self.state_dict())))
            vars(self).update(vars(other))

    weights, _ = run(Relay(), where, held_out=outside)
    assert (weights == undisturbed).all()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("eta", -1, "robust: eta: -1; it takes a number >= 0"),
        ("most", 0.5, "robust: most: 0.5; it takes a number >= 1"),
        ("end", 2, "robust: end: 2; it takes a number from 0 to 1"),
    ],
)
def test_an_option_that_cannot_be_is_named(option, value, message):
    with pytest.raises(EstimatorError, match=message):
        RobustEstimator(**{option: value})


def test_curves_find_the_slope_of_a_power_law():
    curves = Curves.empty(1)
    at = np.linspace(0.01, 0.5, 40)
    for n in at:
        curves = curves.add(np.array([n]), np.array([1 + 2 * (1 + n / 0.03) ** -0.35]),
                            np.ones(1), np.ones(1), 1.0)  # fmt: skip
    fall = curves.slopes(np.array([0.5])).fall_D[0]
    assert fall == pytest.approx(2 * 0.35 / 0.03 * (1 + 0.5 / 0.03) ** -1.35, rel=0.05)


def test_a_trend_is_not_taken_for_an_effect():
    belief, rng = Interaction.unknown(2), np.random.default_rng(0)
    for step in range(1, 60):
        x_D = rng.choice([-0.5, 0.5], 2)
        loss = 5 - 0.8 * np.log(step) - 0.05 * x_D[0]
        elapsed = np.log(step / max(step - 1, 1))
        belief = belief.add(loss, x_D, elapsed, first=step == 1)
    assert belief.effect_D == pytest.approx([0.05, 0.0], abs=0.01)


def test_scaling_keeps_proportions_where_no_bound_holds():
    shares_D = scaled_within(np.array([1.0, 2.0, 8.0]), np.zeros(3), np.array([1.0, 1.0, 0.4]))
    assert shares_D == pytest.approx([0.2, 0.4, 0.4])

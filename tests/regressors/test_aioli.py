"""Aioli makes the plans of the published formulas, whatever interrupts it."""

import numpy as np
import pytest
from mixopt_regressors.online import AioliEstimator
from mixopt_regressors.online.aioli import column_sums
from online_setting import run_of

from mixopt.errors import EstimatorError
from mixopt.online import HeldOut, Observation


def recorded_losses(evaluations):
    """Losses that fall, each at its own pace, with noise: what a run might have recorded."""
    rng, n = np.random.default_rng(evaluations), np.arange(400)[:, None]
    floors_M, paces_M = rng.uniform(1.5, 3.0, evaluations), rng.uniform(0.2, 0.6, evaluations)
    return floors_M + 3.0 * (1.0 + n) ** -paces_M + 0.01 * rng.standard_normal((400, evaluations))


def steered(estimator, setting, steps, tell, consumed=lambda weights_D: weights_D):
    """Return the plans of a run that reports held-out losses whenever a plan asks for them."""
    estimator.start(setting)
    step, plans = 0, []
    while step < steps:
        plan = estimator.plan()
        held_out = HeldOut(tell(plan)) if plan.held_out else None
        step += plan.steps
        tokens_D = consumed(plan.weights_D) * plan.steps * setting.tokens_per_step
        none_D = np.zeros(len(tokens_D))
        estimator.observe(Observation(step, tokens_D, none_D, none_D, held_out=held_out))
        plans.append(plan)
    return plans


def plans_of(setting, losses_NM, **options):
    rows = iter(losses_NM)
    return steered(AioliEstimator(**options), setting, setting.steps, lambda plan: next(rows))


def swept(plans):
    """Return the domain of each step of the sweeps."""
    return [int(np.argmax(plan.weights_D)) for plan in plans if "sweep " in plan.tag]


def transcription(plans, losses_NM, *, domains, sweeps, rho, eta, ema=None):
    """Return the mixture of each round by the published update, with the domains as swept."""
    mix = np.full((domains, domains), (1 - rho) / (domains - 1))
    np.fill_diagonal(mix, rho)
    weights, smoothed, mixtures, row = np.ones(domains), None, [], 0
    for order in np.reshape(swept(plans), (-1, sweeps * domains)):
        falls = np.zeros((domains, domains))
        for j in order:
            falls[:, j] += (losses_NM[row] - losses_NM[row + 1]) / sweeps
            row += 1
        graph = np.array([np.linalg.solve(mix, row_i) for row_i in falls])
        graph = graph - min(graph.min(), 0)
        graph = graph / graph.sum()
        if ema is None:
            weights = weights * np.exp(eta * graph.sum(axis=0))
        else:
            smoothed = graph if smoothed is None else (1 - ema) * graph + ema * smoothed
            weights = np.exp(eta * smoothed.sum(axis=0))
        mixtures.append(weights / weights.sum())
        row += 1
    return mixtures


@pytest.mark.parametrize(
    ("domains", "rho", "options"), [(7, 0.75, {"eta": 1.0, "ema": 0.1}), (2, 0.6, {})]
)
def test_the_mixtures_are_those_of_the_published_formulas(domains, rho, options):
    losses_NM, sweeps = recorded_losses(domains), {"update_steps": 100, "sweep_steps": 3}
    plans = plans_of(run_of(domains), losses_NM, one_hot=rho, sweeps=2, **sweeps, **options)
    published = transcription(
        plans, losses_NM, domains=domains, sweeps=2, rho=rho, **{"eta": 0.2, **options}
    )
    rounds = [plan for plan in plans if plan.tag.startswith("round") and "," not in plan.tag]
    assert len(published) == 6
    np.testing.assert_allclose([plan.weights_D for plan in rounds], published, rtol=1e-10)


def test_a_round_sweeps_in_fresh_permutations_and_trains_for_the_rest():
    plans = plans_of(run_of(3), recorded_losses(3), update_steps=100, sweeps=2, sweep_steps=4)
    assert [(plan.steps, plan.held_out) for plan in plans[:8]] == [
        (0, True), *[(4, True)] * 6, (76, True),
    ]  # fmt: skip
    sweeps = np.reshape(swept(plans), (-1, 3))
    assert (np.sort(sweeps) == [0, 1, 2]).all()
    assert len(np.unique(sweeps, axis=0)) > 2
    assert sum(plan.steps for plan in plans) == 600
    np.testing.assert_allclose(sorted(plans[1].weights_D), [0.125, 0.125, 0.75])
    assert plans[1].tag.startswith("round 1, sweep 1 of 6: ")
    assert all(plan.perturbs == ("sweep " in plan.tag) for plan in plans)


def test_sweeps_take_15_percent_of_a_round_which_is_a_twentieth_of_the_run():
    def lengths(steps):
        estimator = AioliEstimator()
        estimator.start(run_of(3, steps=steps))
        return estimator.round_steps, estimator.each_sweep

    assert (lengths(600), lengths(60_000)) == ((40, 1), (3000, 75))


@pytest.mark.parametrize(("steps", "rounds"), [(250, [0, 52, 52, 2]), (248, [0, 52, 100])])
def test_a_last_round_without_room_for_its_sweeps_is_not_begun(steps, rounds):
    sweeps = {"update_steps": 100, "sweeps": 2, "sweep_steps": 8}
    plans = plans_of(run_of(3, steps=steps), recorded_losses(3), **sweeps)
    assert [plan.steps for plan in plans if "," not in plan.tag] == rounds


@pytest.mark.parametrize("ema", [None, 0.3])
def test_the_learned_prior_is_kept(ema):
    prior_D, losses_NM = np.array([0.6, 0.3, 0.1]), recorded_losses(3)
    options = {"update_steps": 500, "prior_steps": 100, "sweep_steps": 2, "eta": 0.7, "ema": ema}
    plans = plans_of(run_of(3, reference_D=prior_D), losses_NM, **options)
    assert (plans[0].tag, plans[0].steps, plans[0].held_out) == ("prior", 100, True)
    assert plans[0].weights_D.tolist() == prior_D.tolist()
    published = transcription(plans, losses_NM, domains=3, sweeps=2, rho=0.75, eta=0.7, ema=ema)
    expected_D = prior_D * published[0]
    np.testing.assert_allclose(plans[-1].weights_D, expected_D / expected_D.sum(), rtol=1e-12)


def linear_world(domains, matrix_MD, consumed=lambda weights_D: weights_D, **options):
    """Run in a world that follows the law: losses fall by A p each step."""
    setting = run_of(domains, tuple(f"exam {m}" for m in range(len(matrix_MD))))
    estimator, losses_M = AioliEstimator(**options), np.full(len(matrix_MD), 5.0)

    def tell(plan):
        losses_M[:] -= plan.steps * matrix_MD @ consumed(plan.weights_D)
        return losses_M.copy()

    steered(estimator, setting, 150, tell, consumed)
    return estimator


def test_where_the_law_holds_its_matrix_is_found_from_what_was_planned_or_realised():
    def in_eights(weights_D):
        counts_D = np.maximum(np.floor(8 * weights_D), 1.0)
        return counts_D / counts_D.sum()

    matrix_MD = np.random.default_rng(1).uniform(-0.005, 0.01, (4, 3))
    options = dict(update_steps=100, sweep_steps=5, one_hot=0.7)
    exact = linear_world(3, matrix_MD, **options)
    realised = linear_world(3, matrix_MD, in_eights, realised=True, **options)
    for found in (exact, realised):
        np.testing.assert_allclose(found.matrix_MD / 5, matrix_MD, atol=1e-12)
    planned = linear_world(3, matrix_MD, in_eights, **options)
    assert np.abs(planned.matrix_MD / 5 - matrix_MD).max() > 1e-4


def test_evaluations_that_the_objective_leaves_out_do_not_count():
    matrix_MD = np.array([[3.0, 1.0], [-100.0, 50.0], [1.0, 2.0]])
    sums_D = column_sums(matrix_MD, np.array([0.75, 0.0, 0.25]))
    np.testing.assert_allclose(sums_D, np.array([2.5, 1.25]) / 3.75)
    assert column_sums(np.zeros((2, 4)), np.full(2, 0.5)).tolist() == [0.25] * 4


LONG = {"update_steps": 100, "sweep_steps": 10}


@pytest.mark.parametrize(
    ("setting", "options", "message"),
    [
        (run_of(1), {}, "aioli: there is one domain; a mixture needs at least 2"),
        (run_of(2), {"one_hot": 0.5}, "one_hot: 0.5 is not above an even share of 2 domains; give"),
        (
            run_of(7),
            LONG,
            "sweeps of 2 x 7 domains x 10 steps fill a round of 100; fewer sweeps or",
        ),
        (run_of(3), {"prior_steps": 600}, "aioli: prior_steps: 600 of 600 steps leave none"),
    ],
)
def test_a_run_that_it_cannot_work_in_is_refused_at_the_start(setting, options, message):
    with pytest.raises(EstimatorError, match=message):
        AioliEstimator(**options).start(setting)

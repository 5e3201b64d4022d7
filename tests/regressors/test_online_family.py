"""Skill-It, ODM and ADO make the published updates."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from mixopt_regressors.online import (
    ADOEstimator,
    ODMEstimator,
    SkillItEstimator,
)
from mixopt_regressors.online.ado import fit_law

from mixopt.errors import EstimatorError, RunError
from mixopt.online import HeldOut, Observation, Setting

NAMES = ("web", "code", "books")
REFERENCE_D = np.array([0.5, 0.3, 0.2])
NATURAL_D = np.array([0.6, 0.3, 0.1])
GRAPH = {
    "web": {"web": 0.5, "code": 0.1, "books": 0.2},
    "code": {"web": 0.0, "code": 0.6, "books": 0.0},
    "books": {"web": 0.3, "code": -0.1, "books": 0.4},
}


def three_domains(**changes):
    setting = Setting(
        domains=NAMES,
        steps=1000,
        tokens_per_step=1024,
        reference_D=REFERENCE_D,
        natural_D=NATURAL_D,
        evaluations=NAMES,
        objective_M=np.full(3, 1 / 3),
        lower_D=np.zeros(3),
        upper_D=np.ones(3),
    )
    return replace(setting, **changes)


def started(estimator, **changes):
    estimator.start(three_domains(**changes))
    return estimator


def told(step, losses_D, count_D, **changes):
    count_D = np.array(count_D, np.float64)
    return replace(Observation(step, count_D, np.array(losses_D) * count_D, count_D), **changes)


def normalised(weights):
    return np.array(weights) / np.sum(weights)


# Skill-It ---------------------------------------------------------------------------------------


def evaluate(estimator, step, losses):
    held_out = HeldOut(np.array(losses))
    none_D = np.zeros(3)
    estimator.observe(Observation(step, none_D, none_D, none_D, held_out=held_out))
    return estimator.plan().weights_D


def test_skill_it_multiplies_the_first_mixture_by_what_the_graph_makes_of_the_last_losses():
    estimator = started(SkillItEstimator(eta=0.2, update_steps=10, window=2, graph=GRAPH))
    graph = np.array([list(row.values()) for row in GRAPH.values()])
    losses = np.array([[4.0, 3.0, 5.0], [3.0, 2.5, 4.0], [2.5, 2.0, 3.5]])
    expected_D = normalised(REFERENCE_D * np.exp(0.2 * graph.sum(axis=1)))
    np.testing.assert_allclose(estimator.plan().weights_D, expected_D)
    for update in range(3):
        weights_D = evaluate(estimator, 10 * (update + 1), losses[update])
        window = losses[max(update - 1, 0) : update + 1].sum(axis=0)
        expected_D = normalised(REFERENCE_D * np.exp(0.2 * graph @ window))
        np.testing.assert_allclose(weights_D, expected_D)


def test_skill_it_looks_at_the_targets_of_the_objective_alone():
    graph = {name: {"exam": value} for name, value in zip(NAMES, (0.1, 0.4, 0.2), strict=True)}
    estimator = SkillItEstimator(eta=0.5, update_steps=10, graph=graph)
    estimator.start(three_domains(evaluations=("web", "exam"), objective_M=np.array([0.0, 1.0])))
    weights_D = evaluate(estimator, 10, [9.0, 3.0])
    pushes_D = 0.5 * 3.0 * np.array([0.1, 0.4, 0.2])
    np.testing.assert_allclose(weights_D, normalised(REFERENCE_D * np.exp(pushes_D)))


def test_skill_it_without_a_graph_takes_each_domain_to_teach_itself():
    estimator = started(SkillItEstimator(eta=0.1, update_steps=10))
    weights_D = evaluate(estimator, 10, [4.0, 3.0, 2.0])
    expected_D = normalised(REFERENCE_D * np.exp(0.1 * np.array([4.0, 3.0, 2.0])))
    np.testing.assert_allclose(weights_D, expected_D)
    assert started(SkillItEstimator()).plan().steps == 100


def test_skill_it_reads_its_graph_from_a_file(tmp_path):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(GRAPH))
    from_file = started(SkillItEstimator(graph=str(path))).plan().weights_D
    assert from_file.tolist() == started(SkillItEstimator(graph=GRAPH)).plan().weights_D.tolist()
    path.write_text('{"web": 1}')
    with pytest.raises(EstimatorError, match=r"graph.json: it takes {domain: {evaluation domain"):
        started(SkillItEstimator(graph=str(path)))
    with pytest.raises(RunError, match=r"absent.json"):
        started(SkillItEstimator(graph=str(tmp_path / "absent.json")))


def test_skill_it_names_the_domains_that_its_graph_lacks():
    graph = {name: dict(row) for name, row in GRAPH.items()}
    del graph["books"]["code"]
    with pytest.raises(EstimatorError, match="skill_it: graph: no value for 'books' on 'code'"):
        started(SkillItEstimator(graph=graph))


# ODM --------------------------------------------------------------------------------------------


class PublishedExp3:
    """One domain a step, in the loops of the published updater."""

    def __init__(self, weights):
        self.k = len(weights)
        self.probabilities = list(weights)
        self.rewards = [0.0] * self.k
        self.eps = 1 / self.k

    def update(self, drawn, loss, iteration):
        self.rewards[drawn] += loss / 10 / self.probabilities[drawn]
        before = self.eps
        self.eps = min(1 / self.k, math.sqrt(math.log(self.k) / (self.k * iteration)))
        total = sum(math.exp(reward * before) for reward in self.rewards)
        weights = [
            math.exp(reward * before) / total * (1 - self.k * self.eps) + self.eps
            for reward in self.rewards
        ]
        self.probabilities = [weight / sum(weights) for weight in weights]


def test_odm_is_exp3_where_a_batch_has_one_domain():
    estimator = started(ODMEstimator(warmup_steps=20))
    assert estimator.plan().steps == 20
    estimator.observe(told(20, [5.0, 5.0, 5.0], [300, 400, 500]))  # teaches nothing yet
    assert estimator.plan().weights_D.tolist() == REFERENCE_D.tolist()
    published = PublishedExp3(REFERENCE_D)
    rng = np.random.default_rng(0)
    for step in range(21, 200):
        drawn, loss = int(rng.integers(3)), float(rng.uniform(1.0, 5.0))
        count_D = 100.0 * np.eye(3)[drawn]
        estimator.observe(told(step, [loss] * 3, count_D))
        published.update(drawn, loss, step)
        np.testing.assert_allclose(estimator.plan().weights_D, published.probabilities, rtol=1e-12)
    assert np.ptp(estimator.plan().weights_D) > 0.05


def test_odm_gives_each_domain_of_a_batch_its_share_of_the_reward():
    estimator = started(ODMEstimator(warmup_steps=0))
    estimator.observe(told(1, [2.0, 4.0, 3.0], [500, 300, 200]))
    np.testing.assert_allclose(estimator.rewards_D, [0.2, 0.4, 0.3])  # batches as planned
    estimator = started(ODMEstimator(warmup_steps=0))
    estimator.observe(told(1, [2.0, 4.0, 3.0], [500, 0, 500]))
    np.testing.assert_allclose(estimator.rewards_D, [0.2, 0.0, 0.5 * 0.3 / 0.2])


# ADO --------------------------------------------------------------------------------------------


def test_a_law_without_noise_is_found():
    samples_N = np.linspace(50.0, 5000.0, 80)
    for a, e, alpha in ((1.5, 0.8, 0.4), (2.5, 0.6, 0.25), (0.5, 1.0, 0.6)):
        losses_N = np.exp(e) + np.exp(a) * samples_N**-alpha
        found = fit_law(samples_N, losses_N)
        fitted_N = np.exp(found[1]) + np.exp(found[0]) * samples_N ** -found[2]
        np.testing.assert_allclose(fitted_N, losses_N, rtol=1e-4)
        np.testing.assert_allclose(found, [a, e, alpha], rtol=0.05)


def test_the_laws_of_losses_below_the_published_floor_still_fit():
    samples_N = np.linspace(50.0, 5000.0, 80)
    losses_N = 0.4 + 3.0 * samples_N**-0.4
    a, e, alpha = fit_law(samples_N, losses_N)
    fitted_N = np.exp(e) + np.exp(a) * samples_N**-alpha
    np.testing.assert_allclose(fitted_N, losses_N, rtol=0.01)


def losses_at(samples):
    return np.exp([1.0, 0.8, 0.6]) + np.exp([2.0, 1.0, 2.5]) * (samples + 1.0) ** -np.array(
        [0.3, 0.2, 0.5]
    )


def test_ado_makes_the_published_mixtures_of_its_laws():
    estimator = started(ADOEstimator(warmup_steps=20, fit_steps=80))
    assert (estimator.plan().steps, estimator.plan().weights_D.tolist()) == (20, NATURAL_D.tolist())
    samples = 0.0
    recent_D = average_D = NATURAL_D
    rng = np.random.default_rng(0)
    for step in [20, *range(21, 160)]:
        shares_D = rng.dirichlet(100 * NATURAL_D)
        tokens_D = 1024.0 * (20 if step == 20 else 1) * shares_D
        estimator.observe(told(step, losses_at(samples), tokens_D))
        samples += tokens_D.sum() / 1024
        recent_D = 0.9 * recent_D + 0.1 * shares_D
        if step < 100:
            assert estimator.plan().weights_D.tolist() == NATURAL_D.tolist()
            continue
        a_D, _, alpha_D = estimator.laws_DP.T
        slopes_D = np.maximum(alpha_D, 0.05) * np.exp(a_D) * samples**-alpha_D / samples
        rho_D = normalised(NATURAL_D * recent_D**0.5 * slopes_D)
        rho_D = normalised(np.maximum(rho_D, 0.01))
        np.testing.assert_allclose(estimator.plan().weights_D, 0.9 * average_D + 0.1 * rho_D)
        average_D = (1 - 1 / (step + 1)) * average_D + rho_D / (step + 1)
    assert estimator.plan().tag == "scaling laws"
    assert estimator.next_fit == 180


def test_ado_goes_on_in_the_middle_of_a_block():
    through = started(ADOEstimator(warmup_steps=4), steps=1500)
    apart = started(ADOEstimator(warmup_steps=4), steps=1500)
    for step in [4, *range(5, 30)]:
        observation = told(step, losses_at(float(step)), [400, 300, 324])
        through.observe(observation)
        state = json.dumps(apart.state_dict())
        apart = started(ADOEstimator(warmup_steps=4), steps=1500)
        apart.load_state_dict(json.loads(state))
        apart.observe(observation)
    assert through.losses_BD.shape == (8, 3)
    assert apart.state_dict() == through.state_dict()


def test_ado_fits_the_losses_after_the_warm_up_in_blocks():
    estimator = started(ADOEstimator(warmup_steps=20, fit_steps=30), steps=1000)
    count_D = np.full(3, 1024.0 / 3)
    for step in [20, *range(21, 51)]:
        estimator.observe(told(step, losses_at(float(step)), count_D))
    assert estimator.losses_BD.shape == (15, 3)  # two steps each
    np.testing.assert_allclose(estimator.losses_BD[0], (losses_at(21.0) + losses_at(22.0)) / 2)
    np.testing.assert_allclose(
        estimator.samples_B[:2], [2.0, 4.0]
    )  # 1 sample for 20 steps, then 1 each
    assert np.isfinite(estimator.laws_DP).all()


def test_ado_stays_natural_until_every_domain_has_a_law():
    estimator = started(ADOEstimator(warmup_steps=0, fit_steps=20))
    for step in range(1, 90):
        count_D = [400, 300, 0 if step < 50 else 300]
        estimator.observe(told(step, losses_at(float(step)), count_D))
        natural = estimator.plan().weights_D.tolist() == NATURAL_D.tolist()
        assert natural == (step < 60)
    assert np.isnan(estimator.losses_BD[:20, 2]).all()

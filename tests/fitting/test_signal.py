"""What a fit says of its losses, and whether arms can be told apart before they are trained."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import yaml
from made_fit import TARGETS, fitted, make_trials, objective, table
from refusals import refuses

from mixopt.config import ObjectiveConfig
from mixopt.errors import ConfigError
from mixopt.fitting import LossReadiness, power, readiness, spearman
from mixopt.fitting.factors import factors
from mixopt.fitting.power import critical_difference
from mixopt.objective import Objective
from mixopt.reporting import readiness_text
from mixopt.trials import Readiness, Trials, settled


def test_each_loss_has_its_weight_its_rank_correlation_and_what_noise_and_mixture_share():
    ready = readiness(fitted("linear"))
    found = {loss.name: loss for loss in ready.losses}
    assert list(found) == list(TARGETS)
    assert [item.weight for item in found.values()] == [0.5, 0.0, 0.5, 0.0]
    code = found["code"]
    assert min(code.spearman, code.ceiling) > 0.9
    assert code.followed > 0.95
    assert code.noise_share < 0.05
    assert code.verdict == "ranked"
    assert code.power.power > 0.9
    domain, rank = found["math"].nearest  # whose loss goes with it
    assert (domain, rank > 0.9) == ("code", True)
    assert set(code.domains) == {"prose", "law"}
    (line,) = ready.lines("runs/mine")
    assert line == "readiness of the losses: 4 ready: mixopt status runs/mine --readiness"


def test_without_replicates_states_are_from_held_out_folds_and_that_is_said():
    found = readiness(fitted("linear", trials=make_trials(replicates=1)))
    (line,) = found.lines("D")
    alone = "(without replicates, from held-out folds alone): mixopt status D --readiness"
    assert line == f"readiness of the losses: 4 ready {alone}"
    text = readiness_text(found)
    assert text.splitlines()[4].split()[:2] == ["the", "objective"]
    assert "the state comes from the rank correlation on held-out folds alone" in text


def noisy_mean(weights_ND):
    """Math has 6 times the spread of the others, and none of it is the mixture's."""
    rng = np.random.default_rng(1)
    losses_NM = 3.0 - weights_ND @ np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0.0]])
    return losses_NM + [0, 0, 0, 1] * rng.standard_normal((len(weights_ND), 1))


def test_what_is_offered_leaves_noise_out_and_can_be_pasted_as_the_same_objective():
    trials, aim = make_trials(noisy_mean, count=40), replace(objective(*TARGETS), higher=("law",))
    found = readiness(fitted("linear", trials=trials, goal=aim))
    assert found.losses[-1].verdict == "not at all"
    now, *offers = found.offers
    names = ["scale: spread", "ranked metrics", "first factor", "hinge"]
    assert [offer.name for offer in offers] == names
    assert "math" in offers[1].reason
    assert offers[1].spearman > 0.9 > now.spearman + 0.3
    text = readiness_text(found)
    lines = [line for line in text.splitlines() if line.startswith("objective: {")]
    sections = [yaml.safe_load(line)["objective"] for line in lines]
    for offer in offers:
        assert sections.count(offer.section) == 1
        pasted = Objective.from_config(ObjectiveConfig(**offer.section), TARGETS)
        goals = settled(pasted, trials), offer.objective
        values = [goal.value(trials.losses()) for goal in goals]
        np.testing.assert_allclose(*values, rtol=2e-3, atol=2e-3)
    hinged = trials.fit(regressors=["linear"], objective=ObjectiveConfig(**offers[-1].section))
    proposal = hinged.propose()
    assert proposal.unit == "noise"
    predicted = hinged.predict(proposal.mixture).objective_N[0]
    assert predicted < np.quantile(hinged.data.observed_N, 0.1)


def test_the_first_factor_is_what_follows_the_mixture_and_the_noise_has_its_own():
    rng = np.random.default_rng(0)
    law_N, common_N = rng.standard_normal((2, 200))
    law_NM = np.outer(law_N, [1, 1, 1, 0, 0, 0])
    seen = law_NM + np.outer(common_N, [0, 0, 0, 2, 2, 2]) + 0.3 * rng.standard_normal(law_NM.shape)
    aim = Objective(tuple("abcdef"), "mean", dict.fromkeys("abcdef", 1 / 6))
    first, second = factors(aim, seen, law_NM)
    assert first.spearman > 0.9 > abs(second.spearman) + 0.6
    assert [abs(load) > 0.8 for load in first.loadings.values()] == [True] * 3 + [False] * 3


def test_a_fit_that_own_share_equals_is_said_to_add_nothing():
    def law(weights_ND):
        return 3.0 - np.sqrt(weights_ND[:, [0, 0, 0, 0]])

    found = readiness(fitted("linear", trials=make_trials(law), goal=objective("math")))
    assert found.objective.adds_nothing
    assert any("the fit adds nothing" in line for line in found.lines("D"))


def questions(count, *names):
    items = dict.fromkeys(TARGETS, count)
    return replace(objective(*names), higher=TARGETS, items=items)


def test_questions_say_the_most_that_noise_can_be():
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(3), 60)
    truth_NM = 0.2 + 0.5 * np.column_stack([weights_ND, weights_ND[:, 0]])
    trials = table(weights_ND, rng.binomial(200, truth_NM) / 200)
    found = readiness(fitted("linear", trials=trials, goal=questions(200, *TARGETS)))
    true = (truth_NM * (1 - truth_NM) / 200).mean(axis=0)
    for loss, variance, values in zip(found.losses, true, truth_NM.T, strict=True):
        expected = variance / (variance + values.var())
        assert loss.noise_share == pytest.approx(expected, rel=0.25)


def test_intervals_are_as_wide_as_questions_make_them():
    rng = np.random.default_rng(0)

    def counted(count):
        weights_ND = rng.dirichlet(np.ones(3), count)
        right_N1 = rng.binomial(60, 0.5 + 0.48 * weights_ND[:, :1]) / 60
        return weights_ND, np.tile(right_N1, (1, 4))

    fit = fitted("linear", trials=table(*counted(200)), goal=questions(60, "code"))
    ends = fit.predict([[0.02, 0.49, 0.49], [0.96, 0.02, 0.02]])
    even, sure = (ends.high_NM - ends.losses_NM)[:, 0]
    assert sure < 0.6 * even
    weights_ND, seen_NM = counted(2000)
    found = fit.predict(weights_ND)
    inside_N = np.abs(seen_NM - found.losses_NM)[:, 0] <= (found.high_NM - found.losses_NM)[:, 0]
    assert 0.85 < inside_N.mean() < 0.95


def a_loss(spearman, mixtures=103, control=None, of=None):
    given = of or Readiness("loss", 1.0)
    ranked = None if control is None else ("own_share", control)
    return LossReadiness(given, 1.0, mixtures, spearman, None, ranked, {})


def test_the_lower_bound_holds_in_19_of_20_samples():
    rng = np.random.default_rng(0)
    below = 0
    for _ in range(400):
        x_N, e_N = rng.standard_normal((2, 60))
        low = a_loss(spearman(x_N, 0.8 * x_N + 0.6 * e_N), 60).spearman_low
        below += low <= 6 / math.pi * math.asin(0.8 / 2)  # Spearman of normal variables
    assert 0.92 <= below / 400 <= 0.98  # a standard error of 0.011


def test_a_state_is_of_replicates_without_them_of_ranks_and_weak_where_a_control_ranks_better():
    assert (a_loss(0.95).state, a_loss(0.75).state) == ("ready", "weak")
    assert a_loss(0.99, 4).spearman_low == pytest.approx(0.564056, rel=1e-3)
    assert a_loss(0.99, 3).spearman_low is None
    assert a_loss(0.1).state == a_loss(None).state == "noise"
    sure, unsure, lost = (
        Readiness("loss", 1.0, 1.0, ratio, low)
        for ratio, low in ((9.0, 5.0), (1.5, 0.0), (0.5, 0.0))
    )
    assert a_loss(0.90, control=0.97, of=sure).state == "weak"
    assert a_loss(0.90, control=0.91, of=sure).state == "ready"
    assert a_loss(None, of=sure).state == "weak"
    assert (a_loss(0.99, of=unsure).state, a_loss(0.99, of=lost).state) == ("weak", "noise")


TASK_NAMES = ("task/good/bits_per_byte", "task/bad/bits_per_byte")
WITH_TASKS = (*TARGETS[:2], *TASK_NAMES)


def with_tasks(replicates):
    """Trials whose third and fourth losses are tasks, of which the last is noise alone."""
    rng = np.random.default_rng(1)
    trials = make_trials(replicates=replicates, count=40)
    names, bad_N = dict(zip(TARGETS[2:], TASK_NAMES, strict=True)), rng.standard_normal(len(trials))
    frame = trials.table.drop("loss/law", "loss/math")
    frame = frame.rename({f"bpb/{old}": new for old, new in names.items()})
    return Trials(frame.with_columns(pl.Series(TASK_NAMES[1], bad_N)), trials.domains, WITH_TASKS)


def ready_with_tasks(names, replicates, **fields):
    weights = dict.fromkeys(names, 1 / len(names))
    aim = Objective(WITH_TASKS, "mean", weights, "bits_per_byte", **fields)
    return readiness(fitted("linear", trials=with_tasks(replicates), goal=aim))


@pytest.mark.parametrize(
    ("replicates", "said"),
    [
        (12, r"its signal is 0[.]\d\d times the noise .*; set objective.noise: leave_out, or"),
        (1, "no regressor ranks held-out trials on it .Spearman .*; set design.replicates and"),
    ],
)
def test_an_objective_that_measures_a_task_that_is_noise_is_refused(replicates, said):
    found = ready_with_tasks(TASK_NAMES, replicates)
    assert found.named("noise") == [TASK_NAMES[1]]
    message = f"objective: '{TASK_NAMES[1]}' is noise: {said}.*objective.noise: allow"
    with pytest.raises(ConfigError, match=message):
        found.refuse_noise()


def test_a_task_that_is_ready_or_left_out_is_not_refused():
    ready_with_tasks(TASK_NAMES[:1], 12).refuse_noise()
    ready_with_tasks(TASK_NAMES, 12, leave_out="noise").refuse_noise()


def test_the_weight_of_a_family_holds_when_one_of_it_is_left_out():
    families = {"tasks": TASK_NAMES, "code": ("code",)}
    weights = dict.fromkeys(TASK_NAMES, 0.35) | {"code": 0.3}
    aim = Objective(WITH_TASKS, "mean", weights, families=families, leave_out="noise")
    left = settled(aim, with_tasks(12))
    assert left.left_out == TASK_NAMES[1:]
    assert left.weights == pytest.approx({TASK_NAMES[0]: 0.7, "code": 0.3})


def test_what_is_claimed_is_realised_in_simulated_sweeps():
    noise, worlds = 0.012, 4000

    def realised(spread, arms, seeds):
        rng = np.random.default_rng(0)
        true = spread * rng.standard_normal((worlds, arms + 1))
        true[:, 0] = 0.0
        runs = true + noise / np.sqrt(seeds) * rng.standard_normal(true.shape)
        error = np.sqrt(2 / seeds) * noise
        seen = runs[:, 1:].max(axis=1) - runs[:, 0] > critical_difference(arms) * error
        return pytest.approx(seen.mean(), abs=0.03)

    assert power(noise, 0.03, 1, seeds=1).power == realised(0.03, 1, 1)
    assert power(noise, 0.01, 24, seeds=3).power == realised(0.01, 24, 3)


def test_without_a_spread_the_power_is_the_level_and_arguments_out_of_range_are_named():
    assert power(0.01, 0.0, 8).power == pytest.approx(0.05, abs=1e-6)
    assert power(0.01, 0.0, 8).seeds is None
    refuses(ConfigError, "noise is -1.0", power, -1.0, 0.1, 8)
    refuses(ConfigError, "arms", power, 1, 1, 0)


def test_the_needed_arms_seeds_and_questions_reach_the_goal_and_one_less_does_not():
    found = power(0.02, 0.03, 12, items=500)
    assert power(0.02, 0.03, found.arms).power >= 0.8 > power(0.02, 0.03, found.arms - 1).power
    fewer = power(0.02, 0.03, 12, seeds=found.seeds - 1).power
    assert power(0.02, 0.03, 12, seeds=found.seeds).power >= 0.8 > fewer
    assert found.items == 500 * found.seeds

"""Trials that no fit can learn from are refused, and whether they tell mixtures apart is said."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from made_fit import TARGETS, table
from refusals import refuses

from mixopt.errors import ConfigError, TrialsError
from mixopt.objective import Objective
from mixopt.trials import (
    Noise,
    Trials,
    check_trials,
    readiness_of,
    settled,
    trials_fingerprint,
    without_flat_tasks,
)

MEAN = Objective(("web", "code"), "mean", {"web": 0.5, "code": 0.5}, "nats_per_token")


def trials_of(shares, losses, code=lambda k: 1.0 + k):
    weights_ND = [[share, 1 - share] for share in shares]
    losses_NM = [[loss, code(k)] for k, loss in enumerate(losses)]
    return table(weights_ND, losses_NM, ("a", "b"), ("web", "code"))


FIVE = trials_of([0.1, 0.2, 0.3, 0.4, 0.5], [1.0, 1.5, 2.0, 2.5, 3.0])


def test_too_few_mixtures_are_counted_and_fewer_folds_are_named_where_they_would_do():
    raised = "raise design.trials, train failed ones again with --retry-failed"
    with pytest.raises(TrialsError) as error:
        check_trials(FIVE, MEAN, folds=6)
    assert str(error.value) == (
        "5 finished trials of 5 different mixtures; 6-fold cross-validation needs 6:"
        f" {raised}, or lower fit.folds to 5"
    )
    four = trials_of([0.1, 0.2, 0.3, 0.4], [1.0, 1.5, 2.0, 2.5])
    refuses(TrialsError, "or lower fit.folds to 4", check_trials, four, MEAN, folds=5)
    check_trials(four, MEAN, folds=2)
    alike = trials_of([0.1, 0.2, 0.3, 0.3, 0.3], [1.0, 1.5, 2.0, 2.5, 3.0])
    message = f"5 finished trials of 3 different mixtures; 2-fold .* needs 4: {raised}$"
    refuses(TrialsError, message, check_trials, alike, MEAN, folds=2)


@pytest.mark.parametrize("level", [0.0, -3.0])
def test_a_loss_that_is_the_same_in_all_trials_is_named(level):
    def of_noise(noise):
        return trials_of([0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4], code=lambda k: level + noise * k)

    for noise in (0.0, 1e-10 * abs(level)):
        with pytest.raises(TrialsError, match=f"the loss on 'code' is {level:g} in all 4 trials"):
            check_trials(of_noise(noise), MEAN, folds=2)
    check_trials(of_noise(1e-6 * max(abs(level), 1e-3)), MEAN, folds=2)


def test_evaluation_domains_are_those_of_the_objective_in_its_order():
    other = Objective(("web", "cod"), "target", {"web": 1.0}, "nats_per_token")
    with pytest.raises(TrialsError, match="no losses on evaluation domain 'cod'; did you mean"):
        check_trials(FIVE, other, folds=2)
    turned = Objective(("code", "web"), "target", {"web": 1.0}, "nats_per_token")
    with pytest.raises(TrialsError, match="are code, web; the trials' are web, code: give both"):
        check_trials(FIVE, turned, folds=2)


def test_an_objective_that_divides_by_spreads_takes_those_of_its_trials():
    assert settled(MEAN, FIVE) is MEAN
    scaled = settled(replace(MEAN, scale="spread"), FIVE)
    assert scaled.spreads == pytest.approx({"web": 0.5**0.5, "code": 2**0.5})


def with_task(trials, values):
    found = trials.table.with_columns(pl.Series("task/x/accuracy", values))
    return Trials(found, trials.domains, (*trials.targets, "task/x/accuracy"))


def test_a_task_that_is_the_same_in_all_trials_is_left_out_unless_it_is_measured():
    flat = with_task(FIVE, [0.5] * 5)
    kept = without_flat_tasks(flat, ["web"])
    assert kept.targets == ("web", "code")
    assert kept.notes == ("left out 'task/x/accuracy': the same in every trial",)
    for trials, measured in ((flat, ["task/x/accuracy"]), (with_task(FIVE, [0.5] * 4 + [0.6]), [])):
        assert without_flat_tasks(trials, measured) is trials


def test_tasks_that_no_trial_was_scored_on_are_left_out_unless_they_are_measured():
    over = MEAN.over(("web", "code", "task/x/accuracy"))
    assert settled(over, FIVE).evaluation == ("web", "code")
    target = replace(over, kind="target", weights={"task/x/accuracy": 1.0})
    message = (
        "'task/x/accuracy': proxy 'synthetic' does not score tasks; use another proxy, or anot"
    )
    refuses(ConfigError, f"objective: no trial was scored on {message}", settled, target, FIVE)


@pytest.mark.parametrize(
    ("value", "hint"),
    [(-0.3, "correct it, or the number"), (30.5, "divide by 100"), (7.0, "divide counts by 9")],
)
def test_shares_of_right_answers_are_from_0_to_1(value, hint):
    rest = [1.0, 2.0, 4.0, 5.0] if value == 7.0 else [0.1, 0.2, 0.4, 0.5]
    scored = with_task(FIVE, [*rest[:2], value, *rest[2:]])
    message = f"is {value:g} in trial 't002' of 9 questions; .* from 0 to 1: {hint}"
    objective = replace(MEAN.over(scored.targets), items={"task/x/accuracy": 9})
    with pytest.raises(TrialsError, match=f"^objective.items: 'task/x/accuracy' {message}"):
        check_trials(scored, objective, folds=2)
    check_trials(with_task(FIVE, [0.0, 0.2, 0.4, 0.6, 1.0]), objective, folds=2)


def test_the_fingerprint_is_of_content_alone():
    turned = Trials(FIVE.table.reverse(), FIVE.domains, FIVE.targets)
    assert trials_fingerprint(turned) == trials_fingerprint(FIVE)
    assert len(trials_fingerprint(FIVE)) == 12
    slower = Trials(FIVE.table.with_columns(seconds=9.0), FIVE.domains, FIVE.targets)
    assert trials_fingerprint(slower) == trials_fingerprint(FIVE)
    other = trials_of([0.1, 0.2, 0.3, 0.4, 0.5], [1.0, 1.5, 2.0, 2.5, 3.0 + 1e-12])
    assert trials_fingerprint(other) != trials_fingerprint(FIVE)


SIGNALS = np.array([3.0, 1.25, 0.3, 0.0])  # of each loss, in units of the noise


def made(mixtures=40, replicates=2, seed=0, signals=SIGNALS):
    """Trials whose losses have these signals; each mixture is trained so many times."""
    rng = np.random.default_rng(seed)
    weights_KD = rng.dirichlet(np.ones(3), mixtures)
    true_KM = rng.standard_normal((mixtures, len(signals))) * signals
    losses_NM = np.repeat(true_KM, replicates, axis=0)
    losses_NM = 20.0 + losses_NM + rng.standard_normal(losses_NM.shape)
    return table(np.repeat(weights_KD, replicates, axis=0), losses_NM)


def found(trials):
    return readiness_of(trials, trials.losses(), trials.targets)


def noise(trials):
    return Noise.of_trials(trials, trials.losses(), trials.targets)


def test_the_noise_of_replicates_is_pooled_and_replaces_every_bound():
    trials = made(mixtures=500, replicates=3)
    measured = noise(trials)
    assert measured.by_name == pytest.approx(dict.fromkeys(TARGETS, 1.0), rel=0.05)
    assert (measured.trials, measured.mixtures, measured.freedom) == (1500, 500, 1000)
    assert measured.bounded(np.full(4, 1e-6), "questions") is measured


def test_without_replicates_the_lowest_bound_counts_and_is_named():
    unknown = noise(made(replicates=1))
    assert unknown.by_name == {}
    questions = unknown.bounded(np.array([0.5, np.nan, 0.1, np.nan]), "questions")
    assert questions.by_name == {TARGETS[0]: 0.5, TARGETS[2]: 0.1}
    both = questions.bounded(np.array([0.2, 0.3, 0.4, np.nan]), "held-out error")
    assert both.by_name == {TARGETS[0]: 0.2, TARGETS[1]: 0.3, TARGETS[2]: 0.1}
    assert both.sources == ("held-out error", "held-out error", "questions", "unknown")


def test_the_ratio_is_that_of_signal_and_noise_and_a_state_that_of_the_ratio():
    assert [item.state for item in found(made())] == ["ready", "weak", "noise", "noise"]
    ready = found(made(mixtures=2000))
    assert [item.ratio for item in ready[:2]] == pytest.approx([3.0, 1.25], rel=0.1)
    assert [item.noise for item in ready] == pytest.approx([1.0] * 4, rel=0.05)
    assert ready[0].spread == pytest.approx(np.sqrt(10.0), rel=0.1)


def test_the_lower_bound_holds_in_19_of_20_sets_of_trials():
    lows = [item.low for seed in range(60) for item in found(made(12, 2, seed, np.full(4, 1.5)))]
    below = np.mean(np.array(lows) <= 1.5)
    assert 0.90 <= below <= 0.99  # 240 draws: 0.95 has a standard error of 0.014


def test_without_replicates_of_one_size_nothing_is_known_but_the_spread():
    trials = made(replicates=1)
    first = found(trials)[0]
    assert (first.noise, first.ratio, first.low, first.state) == (None, None, None, "unknown")
    assert first.spread == pytest.approx(trials.losses()[:, 0].std(ddof=1))
    assert noise(trials).describe().startswith("no mixture was trained twice")
    two = replace(trials := made(), table=trials.table.with_columns(tokens=np.tile([10, 90], 40)))
    assert noise(two).trials == 0


def objective(**fields):
    weights = dict.fromkeys(TARGETS, 0.25)
    return Objective(TARGETS, "mean", weights, "nats_per_token", leave_out="noise", **fields)


def test_noise_is_left_out_once_and_not_without_replicates_or_where_all_is_noise():
    trials = made()
    once = settled(objective(), trials)
    assert once.left_out == TARGETS[2:]
    assert once.weights == {TARGETS[0]: 0.5, TARGETS[1]: 0.5}
    assert settled(once, trials) == once
    assert settled(objective(scale="spread"), trials).spreads.keys() == set(TARGETS[:2])
    with pytest.raises(ConfigError, match="objective.noise: leave_out: no mixture was trained tw"):
        settled(objective(), made(replicates=1))
    with pytest.raises(
        ConfigError, match="objective.noise: leave_out leaves nothing of the mean of"
    ):
        settled(objective(), made(signals=np.zeros(4)))

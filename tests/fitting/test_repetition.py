"""A fit gives regressors epochs and sizes, and their refits too; the losses are of a known law."""

import numpy as np
import pytest
from made_fit import table
from mixopt_regressors.combinations import AutoRegressor

from mixopt.config import FitConfig, load_config
from mixopt.errors import TrialsError
from mixopt.fitting import Fit, ModelSize, Repetition, fit_trials, predict_with_std
from mixopt.fitting.regressor import resampled_rows
from mixopt.objective import Objective
from mixopt.pipeline import steps
from mixopt.proposals import Surrogate
from mixopt.run_directory import repetition_of
from mixopt.trials import Trials

INVENTORY = {"web": 1e9, "code": 2e7, "books": 1e8}
TOKENS = 4e8
LAWS = ("linear", "log_linear")
TARGETS = ("code", "books")
NEEDY, KNOWN = "odd_regressors:NeedsEpochs", {"inventory": INVENTORY}


def law(weights_ND):
    """A small domain helps until it is repeated, and hurts when it is repeated often."""
    epochs_ND = weights_ND * TOKENS / np.array(list(INVENTORY.values()))
    benefit_ND = 1 - np.exp(-epochs_ND / 1.5)
    harm_ND = 0.02 * np.maximum(epochs_ND - 4, 0)
    return 3 - 0.8 * benefit_ND[:, [1, 2]] - 0.3 * benefit_ND[:, [0, 0]] + harm_ND[:, [1, 2]]


def roots(weights_ND):
    """A law that is linear in the square roots of epochs."""
    return 3 - np.sqrt(weights_ND[:, 1:])


def runs(*sizes, count=40, law=law):
    """Return trials, of which the last four of forty repeat the first."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(3), 40)
    weights_ND[36:] = weights_ND[:4]
    losses_NM = law(weights_ND) + 0.005 * rng.standard_normal((40, 2))
    losses_NM += 3 * np.resize([size**-0.1 for size, _ in sizes], (40, 1))
    return table(weights_ND[:count], losses_NM[:count], tuple(INVENTORY), TARGETS, sizes)


TRIALS, ROOTS = (runs((1e6, TOKENS), law=item) for item in (law, roots))


def test_the_law_of_epochs_is_given_inventory_and_tokens_in_folds_too(tmp_path):
    fitted = TRIALS.fit(regressors="epochs", inventory=INVENTORY)
    fitted.save(tmp_path / "fit")
    assert fitted.fitted.inventory == list(INVENTORY.values())
    assert fitted.fitted.tokens == TOKENS
    read = Fit.load(tmp_path / "fit")
    assert read.data.repetition == fitted.data.repetition
    assert np.allclose(read.fitted.rates_D, [0.4, 20, 4])
    means_NM, stds_NM = fitted.fitted.predict([[0.6, 0.1, 0.3]], return_std=True)
    assert [means_NM[0, 1], stds_NM[0, 1]] == pytest.approx([3.27102, 0.00426318], rel=1e-3)
    blind = TRIALS.fit(regressors="epochs")
    assert not np.allclose(fitted.errors.predicted_NM, blind.errors.predicted_NM, atol=1e-4)


@pytest.mark.parametrize(("factor", "named"), [(1.0, (*LAWS, "epochs")), (0.01, LAWS)])
def test_auto_weighs_the_law_of_epochs_where_trials_repeat(factor, named, tmp_path):
    given = TRIALS.weights(), TRIALS.losses()
    auto = AutoRegressor(LAWS, inventory=list(INVENTORY.values()), tokens=TOKENS * factor)
    auto.fit(*given)
    assert auto.names == named
    assert "epochs" not in named or auto.weights_MC[:, 2].min() > 0.5
    auto.save(tmp_path / "auto")
    copies = AutoRegressor.load(tmp_path / "auto"), auto.tuned().fit(*given), auto.select([0, 1])
    for item in copies:
        assert item.names == auto.names
        assert np.allclose(item.predict(given[0]), auto.predict(given[0]))


def test_trials_of_several_lengths_or_of_none_have_no_epochs():
    with pytest.raises(TrialsError, match="are of 400000000 to 800000000 tokens"):
        Repetition.of_trials(runs((10, TOKENS), (10, 2 * TOKENS)), INVENTORY)
    bare = Trials(TRIALS.table.with_columns(tokens=None), TRIALS.domains, TRIALS.targets)
    with pytest.raises(TrialsError, match="--inventory: epochs need the tokens of each trial"):
        Repetition.of_trials(bare, INVENTORY)


def test_a_run_has_the_epochs_of_its_trials_or_simulated_ones_of_the_whole(config_path, tmp_path):
    simulated = ["proxy.simulate_epochs=true", "propose.target_tokens=2000000"]
    overrides = [*simulated, "fit.regressors=[epochs, linear]"]
    config, path = load_config(config_path, overrides), tmp_path / "run"
    done = steps.run(config, path, until="sweep")
    known = repetition_of(done)
    assert known.tokens == 2_000_000
    assert known.inventory == tuple(done.corpus.inventory[name] for name in done.natural.domains)
    assert steps.run(config, path, until="fit").fit.data.repetition == known
    plain = steps.run(load_config(config_path), tmp_path / "plain", until="prepare")
    assert repetition_of(plain).tokens == 20_000


def test_mixtures_are_drawn_with_all_their_replicates():
    mixtures = ["a", "b", "a", "c", "b", "d"]
    for seed in range(20):
        drawn = resampled_rows(mixtures, np.random.default_rng(seed))
        times = [drawn.count(row) for row in range(6)]
        assert times[0] == times[2]
        assert times[1] == times[4]
        assert times[0] + times[1] + times[3] + times[5] == 4


def test_refits_are_of_other_trials_each_and_each_loss_is_refitted_alone():
    fit = TRIALS.fit(regressors="linear")
    refits = fit.resampled([1, 0], count=2, rng=np.random.default_rng(0))
    first, second = (one.predict(TRIALS.weights()) for one in refits)
    assert not np.allclose(first, second)
    alone = fit.resampled([0], count=2, rng=np.random.default_rng(0))
    for whole_NM, some in zip((first, second), alone, strict=True):
        assert np.allclose(some.predict(TRIALS.weights()), whole_NM[:, [1]], rtol=1e-12)


def test_a_surrogate_resamples_a_regressor_that_needs_an_inventory():
    mean = Objective(TARGETS, "mean", dict.fromkeys(TARGETS, 0.5), "nats_per_token")
    known = Repetition.of_trials(TRIALS, INVENTORY)
    fit = fit_trials(ROOTS, FitConfig(regressors=[NEEDY]), mean, 0, repetition=known)
    surrogate = Surrogate.of(fit)
    means_N, stds_N = surrogate.moments(ROOTS.weights())
    assert np.allclose(means_N, ROOTS.losses().mean(axis=1), atol=0.1)
    assert 0 < stds_N.max() < 0.1


@pytest.mark.parametrize(
    ("trials", "name", "options"),
    [
        (TRIALS, "epochs", KNOWN),
        (runs((1e6, 1e9), (1e7, 1e10)), "scaling", {"size": ModelSize(1e8, 1e11)}),
        (ROOTS, NEEDY, KNOWN | {"pilots": runs((1e9, 1e12), count=5, law=roots)}),
    ],
    ids=["epochs", "size", "pilots"],
)
def test_a_refit_knows_of_epochs_size_and_pilots_as_the_fit(trials, name, options):
    fit = trials.fit(regressors=name, **options)
    truth_NM = fit.regressor.predict(TRIALS.weights())
    for one in fit.resampled([0, 1], count=2, rng=np.random.default_rng(0)):
        means_NM, stds_NM = predict_with_std(one, TRIALS.weights())
        assert np.abs(means_NM - truth_NM).max() < 0.1
        assert stds_NM.min() > 0

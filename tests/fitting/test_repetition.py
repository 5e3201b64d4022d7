"""Regressors that know of epochs are given them; the losses are synthetic, of a known law."""

from __future__ import annotations

import numpy as np
import pytest
from made_fit import table
from mixopt_regressors.combinations import AutoRegressor

from mixopt.config import load_config
from mixopt.errors import TrialsError
from mixopt.fitting import Fit, Repetition
from mixopt.pipeline import steps
from mixopt.run_directory import repetition_of
from mixopt.trials import Trials

INVENTORY = {"web": 1e9, "code": 2e7, "books": 1e8}
TOKENS = 4e8
LAWS = ("linear", "log_linear")


def law(weights_ND):
    """A small domain helps until it is repeated, and hurts when it is repeated often."""
    epochs_ND = weights_ND * TOKENS / np.array(list(INVENTORY.values()))
    benefit_ND = 1 - np.exp(-epochs_ND / 1.5)
    harm_ND = 0.02 * np.maximum(epochs_ND - 4, 0)
    return 3 - 0.8 * benefit_ND[:, [1, 2]] - 0.3 * benefit_ND[:, [0, 0]] + harm_ND[:, [1, 2]]


def runs(tokens=(TOKENS,)) -> Trials:
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    losses_NM = law(weights_ND) + 0.005 * np.random.default_rng(1).standard_normal((40, 2))
    sizes = [(10, one) for one in tokens]
    return table(weights_ND, losses_NM, tuple(INVENTORY), ("code", "books"), sizes)


@pytest.fixture(scope="module")
def trials() -> Trials:
    return runs()


def test_the_law_of_epochs_is_given_inventory_and_tokens_in_folds_too(trials, tmp_path):
    fitted = trials.fit(regressors="epochs", inventory=INVENTORY)
    fitted.save(tmp_path / "fit")
    assert fitted.fitted.inventory == list(INVENTORY.values())
    assert fitted.fitted.tokens == TOKENS
    read = Fit.load(tmp_path / "fit")
    assert read.data.repetition == fitted.data.repetition
    assert np.allclose(read.fitted.rates_D, [0.4, 20, 4])
    means_NM, stds_NM = fitted.fitted.predict([[0.6, 0.1, 0.3]], return_std=True)
    assert [means_NM[0, 1], stds_NM[0, 1]] == pytest.approx([2.5123, 0.0046415], rel=1e-3)
    blind = trials.fit(regressors="epochs")
    assert not np.allclose(fitted.held_out_losses(), blind.held_out_losses(), atol=1e-4)


@pytest.mark.parametrize(("factor", "named"), [(1.0, (*LAWS, "epochs")), (0.01, LAWS)])
def test_auto_weighs_the_law_of_epochs_where_trials_repeat(trials, factor, named, tmp_path):
    auto = AutoRegressor(LAWS, inventory=list(INVENTORY.values()), tokens=TOKENS * factor)
    auto.fit(trials.weights(), trials.losses())
    assert auto.names == named
    assert "epochs" not in named or auto.weights_MC[:, 2].min() > 0.5
    auto.save(tmp_path / "auto")
    read, again = AutoRegressor.load(tmp_path / "auto"), auto.tuned()
    again.fit(trials.weights(), trials.losses())
    for one in (read, again, auto.select([0, 1])):
        assert one.names == auto.names
        assert np.allclose(one.predict(trials.weights()), auto.predict(trials.weights()))


def test_trials_of_several_lengths_or_of_none_have_no_epochs(trials):
    with pytest.raises(TrialsError, match="are of 400000000 to 800000000 tokens"):
        Repetition.of_trials(runs((TOKENS, 2 * TOKENS)), INVENTORY)
    bare = Trials(trials.table.with_columns(tokens=None), trials.domains, trials.targets)
    with pytest.raises(TrialsError, match="--inventory: epochs need the tokens of each trial"):
        Repetition.of_trials(bare, INVENTORY)


def test_a_run_has_the_epochs_of_its_trials_or_simulated_ones_of_the_whole(config_path, tmp_path):
    simulated = ["proxy.simulate_epochs=true", "propose.target_tokens=2000000"]
    asked = [*simulated, "fit.regressors=[epochs, linear]"]
    config, path = load_config(config_path, asked), tmp_path / "run"
    done = steps.run(config, path, until="sweep")
    known = repetition_of(done)
    assert known.tokens == 2_000_000
    assert known.inventory == tuple(done.corpus.inventory[name] for name in done.natural.domains)
    assert steps.run(config, path, until="fit").fit.data.repetition == known
    plain = steps.run(load_config(config_path), tmp_path / "plain", until="prepare")
    assert repetition_of(plain).tokens == 20_000

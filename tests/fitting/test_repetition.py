"""Regressors that know of epochs are given them; the losses are synthetic, of a known law."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
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


def write_tables(folder: Path, tokens=(TOKENS,)) -> tuple[Path, Path]:
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    losses_NM = law(weights_ND) + 0.005 * np.random.default_rng(1).standard_normal((40, 2))
    mixed, lost = ["run,tokens,web,code,books"], ["run,code,books"]
    for n, (weights_D, losses_M) in enumerate(zip(weights_ND, losses_NM, strict=True)):
        mixed.append(",".join(map(str, (n, tokens[n % len(tokens)], *weights_D.tolist()))))
        lost.append(",".join(map(str, (n, *losses_M.tolist()))))
    for name, lines in (("w", mixed), ("l", lost)):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder / "w.csv", folder / "l.csv"


@pytest.fixture(scope="module")
def trials(tmp_path_factory) -> Trials:
    return Trials.from_csv(*write_tables(tmp_path_factory.mktemp("t")))


def test_the_law_of_epochs_is_given_inventory_and_tokens(trials, tmp_path):
    fitted = trials.fit(regressors="epochs", inventory=INVENTORY)
    fitted.save(tmp_path / "fit")
    assert fitted.fitted.inventory == list(INVENTORY.values())
    assert fitted.fitted.tokens == TOKENS
    read = Fit.load(tmp_path / "fit")
    assert read.data.repetition == fitted.data.repetition
    assert np.allclose(read.fitted.rates_D, [0.4, 20, 4])


def test_folds_are_fitted_with_epochs_too(trials):
    known = trials.fit(regressors="epochs", inventory=INVENTORY)
    blind = trials.fit(regressors="epochs")
    assert not np.allclose(known.held_out_losses(), blind.held_out_losses(), atol=1e-4)


@pytest.mark.parametrize(("factor", "named"), [(1.0, (*LAWS, "epochs")), (0.01, LAWS)])
def test_auto_weighs_the_law_of_epochs_where_trials_repeat(trials, factor, named):
    auto = AutoRegressor(LAWS, inventory=list(INVENTORY.values()), tokens=TOKENS * factor)
    auto.fit(trials.weights(), trials.losses())
    assert auto.names == named


def test_auto_prefers_the_law_of_epochs_where_it_is_the_law(trials, tmp_path):
    auto = AutoRegressor(LAWS, inventory=list(INVENTORY.values()), tokens=TOKENS)
    auto.fit(trials.weights(), trials.losses())
    assert auto.weights_MC[:, 2].min() > 0.5
    auto.save(tmp_path / "auto")
    read, again = AutoRegressor.load(tmp_path / "auto"), auto.tuned()
    again.fit(trials.weights(), trials.losses())
    for one in (read, again, auto.select([0, 1])):
        assert one.names == auto.names
        assert np.allclose(one.predict(trials.weights()), auto.predict(trials.weights()))


def test_a_fit_that_was_not_saved_is_made_again_with_epochs(trials, tmp_path, monkeypatch):
    fitted = trials.fit(regressors="epochs", inventory=INVENTORY)
    monkeypatch.setattr("mixopt.fitting.fit_files.supports_saving", lambda _: False)
    fitted.save(tmp_path / "again")
    read = Fit.load(tmp_path / "again")
    assert np.allclose(read.fitted.rates_D, fitted.fitted.rates_D)


def test_trials_of_several_lengths_have_no_epochs(tmp_path):
    mixed = Trials.from_csv(*write_tables(tmp_path, (TOKENS, 2 * TOKENS)))
    with pytest.raises(TrialsError, match="are of 400000000 to 800000000 tokens"):
        Repetition.of_trials(mixed, INVENTORY)


def test_an_inventory_without_tokens_names_the_column(trials):
    bare = Trials(trials.table.with_columns(tokens=None), trials.domains, trials.targets)
    with pytest.raises(TrialsError, match="--inventory: epochs need the tokens of each trial"):
        Repetition.of_trials(bare, INVENTORY)


def test_a_run_with_simulated_epochs_gives_those_of_the_full_run(config_path, tmp_path):
    simulated = ["proxy.simulate_epochs=true", "propose.target_tokens=2000000"]
    asked = [*simulated, "fit.regressors=[epochs, linear]"]
    config, path = load_config(config_path, asked), tmp_path / "run"
    done = steps.run(config, path, until="sweep")
    known = repetition_of(done)
    assert known.tokens == 2_000_000
    assert known.inventory == tuple(done.corpus.inventory[name] for name in done.natural.domains)
    assert steps.run(config, path, until="fit").fit.data.repetition == known


def test_a_run_without_gives_those_of_its_trials(config_path, tmp_path):
    done = steps.run(load_config(config_path), tmp_path / "run", until="prepare")
    assert repetition_of(done).tokens == 20_000

"""A validation goes on while it is not decided, and says what noise and new runs do to it."""

import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from made_fit import table
from made_validation import made_validation
from pydantic import ValidationError

import mixopt
from mixopt.baselines import BASELINES
from mixopt.config import ValidateConfig
from mixopt.mixture import Mixture
from mixopt.pipeline import sweep, validation_rounds
from mixopt.pipeline.sweep import worse_round, worse_text
from mixopt.pipeline.validation_rounds import validate_proposals
from mixopt.reporting.terminal import in_order
from mixopt.run_directory import Run
from mixopt.sweeps import TrialFolder, trial_paths
from mixopt.trials import Losses, TrialResult, Trials

NOISE = 0.001


@pytest.fixture(scope="module")
def proposed(experiment, tmp_path_factory):
    """A run up to its proposal, which is all prose."""
    folder = tmp_path_factory.mktemp("rounds")
    (folder / "tiny.yaml").write_text(experiment)
    return mixopt.run(folder / "tiny.yaml", folder / "run", until="propose")


@pytest.fixture
def validate(proposed, tmp_path):
    """Validate the run with losses of `help` that a function of the mixture gives."""
    shutil.copytree(proposed.path, tmp_path / "run")

    def run_with(loss, noise=NOISE, **fields):
        config = proposed.config.model_copy(update={"validation": ValidateConfig(**fields)})
        run, said, counts = Run(tmp_path / "run", config), [], []

        def train(trials):
            counts.append(len(trials))
            return [result_of(run, trial, loss, noise) for trial in trials]

        return validate_proposals(run, train, said.append), said, counts, run

    return run_with


def result_of(run, trial, loss, noise):
    drawn = np.random.default_rng(trial.seed % 1000 + len(trial.name)).normal()
    values = dict.fromkeys(run.config.losses, loss(trial.mixture) + noise * drawn)
    return TrialResult(trial.name, "finished", 10, 1, 0.0, Losses(10, values, values))


def prose_helps(mixture):
    return 3.0 - mixture["prose"]


def test_a_proposal_that_wins_is_the_only_one_and_equal_baselines_are_trained_once(validate):
    fields = {"seeds": 3, "baselines": ["natural", "uniform", "unimax"]}
    found, said, counts, run = validate(prose_helps, **fields)
    same = "validate: unimax is the same mixture as uniform; trained once"
    assert (list(found.proposals), counts, said) == (["proposal"], [9], [same])
    validation = found.validation(run)
    assert validation.mixtures == ("proposal", "natural", "uniform", "unimax")
    assert len(found.table(run)) == 12
    assert validation.compare("natural").verdict == "better"


def test_a_baseline_added_to_the_table_is_accepted_trained_and_shown(validate, monkeypatch):
    monkeypatch.setitem(BASELINES, "reversed", reversed_shares)
    found, _, _, run = validate(prose_helps, seeds=3, baselines=["natural", "reversed"])
    validation = found.validation(run)
    natural = run.natural
    assert dict(validation.mixture("reversed")) == pytest.approx(
        {"code": natural["prose"], "prose": natural["code"]}
    )
    assert len(validation.values("reversed")) == 3
    gain = validation.compare("reversed")
    gains = {"proposal": gain, "reversed": gain, "ours": gain, "natural": gain}
    assert list(in_order(gains)) == ["natural", "ours", "reversed", "proposal"]
    with pytest.raises(ValidationError, match="did you mean 'reversed'"):
        ValidateConfig(baselines=["revresed"])
    with pytest.raises(ValidationError, match="'reversed' is already a baseline"):
        ValidateConfig(baselines={"reversed": {"code": 0.5, "prose": 0.5}})


def reversed_shares(full):
    tokens = list(full.inventory.values())
    return Mixture.natural(dict(zip(full.inventory, reversed(tokens), strict=True)))


def test_a_proposal_that_loses_is_followed_by_another_from_its_own_runs(validate):
    def prose_hurts(mixture):
        return 3.0 + mixture["prose"]

    found, said, _, run = validate(prose_hurts, seeds=3, baselines=["natural"])
    assert list(found.proposals) == ["proposal", "proposal_2"]
    first, second = (proposal.mixture["prose"] for proposal in found.proposals.values())
    assert second < first
    assert found.validation(run).leading == "proposal_2"
    assert "validate: the proposal is not better; its runs are added to the trials" in said


def test_a_proposal_that_loses_takes_none_for_what_is_not_decided_either(validate):
    """Natural is significantly better than the proposal, uniform is as good as it."""

    def loss(mixture):
        return 2.0 if mixture["prose"] < 0.4 else 3.0

    fields = {"seeds": 3, "rounds": 1, "baselines": ["natural", "uniform"]}
    _, said, counts, _ = validate(loss, noise=0.05, **fields)
    assert (counts, said) == ([9], [])


def test_seeds_are_added_to_what_is_not_decided_alone(validate):
    def loss(mixture):  # uniform is as good as the proposal
        return 2.0 if mixture["prose"] > 0.4 else 3.0

    fields = {"seeds": 3, "max_seeds": 6, "rounds": 1, "baselines": ["natural", "uniform"]}
    found, said, counts, run = validate(loss, noise=0.05, **fields)
    seeds = {name: len(found.validation(run).values(name)) for name in found.plan.mixtures}
    assert seeds == {"natural": 3, "uniform": 6, "proposal": 6}
    assert counts == [9, 13, 15]
    assert said[0] == (
        "validate: the proposal: the difference from uniform is not significant with 3 seeds;"
        " adding seeds"
    )


def test_a_fit_that_proposes_the_same_again_ends_the_rounds(validate):
    def loss(mixture):
        return 2.0 if mixture["prose"] > 0.99 else 2.1

    found, said, _, _ = validate(loss, noise=0.2, seeds=3, max_seeds=3, baselines=["natural"])
    assert list(found.proposals) == ["proposal"]
    assert said[-1] == "validate: the new fit proposes the proposal again"


def test_runs_of_a_proposal_that_was_edited_since_are_trained_again(validate, proposed):
    found, _, _, run = validate(prose_helps, seeds=3, baselines=["natural"])
    folder, said = TrialFolder(run.path / "validation"), []
    folder.write(found.plan.trials, found.results)
    validation_rounds._forget_earlier(run, found.plan.trials, said.append)
    assert said == []
    half = Mixture({"code": 0.5, "prose": 0.5})
    ours = [trial for trial in found.plan.trials if trial.name.startswith("proposal")]
    edited = [replace(trial, mixture=half) for trial in ours]
    validation_rounds._forget_earlier(run, edited, said.append)
    end = "belongs to an earlier proposal, and is deleted"
    assert sorted(said) == sorted(f"validate: {trial.name} {end}" for trial in ours)
    left = {path.stem for path in trial_paths(folder.path)}
    assert left == {trial.name for trial in found.plan.trials} - {item.name for item in ours}


def test_a_recommendation_that_is_far_noisier_than_the_others_is_said_of_more_than_two_seeds():
    quiet = 2 + 0.001 * np.linspace(-1, 1, 6)
    many, few = (
        made_validation({"proposal": quiet, "natural": 2 + 0.1 * np.linspace(-1, 1, count)})
        for count in (4, 2)
    )
    assert "significantly more: raise validate.seeds" in many.noise_note("natural")
    note = many.noise_note("proposal")
    assert "differ by 0.000" in note
    assert "significantly" not in note
    assert few.noise_note("natural") is None


def straight(count, change):
    """Return trials whose losses fall with the share of web, each offset by its number."""
    shares_N = np.random.default_rng(0).uniform(0.05, 0.95, count)
    losses_N = np.array([change(n, 3 - share) for n, share in enumerate(shares_N)])
    weights_ND, losses_NM = np.stack([shares_N, 1 - shares_N], 1), np.stack([losses_N] * 2, 1)
    return table(weights_ND, losses_NM, ("web", "code"), ("web", "code"))


def test_runs_of_one_kind_make_nothing_worse():
    def noisy(n, loss):
        return loss + 0.05 * np.sin(7 * n**2)

    before, after = (straight(count, noisy).fit(regressors="linear") for count in (24, 32))
    assert worse_text(before, after, "these runs") is None


def test_a_round_that_makes_the_fit_worse_is_said(monkeypatch):
    monkeypatch.setattr(sweep, "fit_of", lambda run, trials: trials.fit(regressors="linear"))

    def longer(n, loss):
        return loss if n < 12 else loss - 1.5

    trials = straight(18, longer)
    assert worse_round(None, trials.fit(regressors="linear")) is None  # one round
    rows = trials.table.with_columns(round=pl.Series([0] * 12 + [1] * 6))
    later = Trials(rows, trials.domains, trials.targets).fit(regressors="linear")
    said = "with the trials of the last round the fit predicts the earlier trials worse on held-out"
    assert said in worse_round(None, later)

"""A validation goes on while it is not decided, and proposes again where a proposal does not win.

The run is a real one; the losses of its validation are chosen here, by mixture and seed.
"""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

import mixopt
from mixopt.config import ValidateConfig
from mixopt.mixture import Mixture
from mixopt.pipeline import steps
from mixopt.pipeline.steps import validate_proposals
from mixopt.run_directory import Run
from mixopt.sweeps import TrialFolder, trial_paths
from mixopt.trials import Losses, TrialResult

NOISE = 0.001


@pytest.fixture(scope="module")
def proposed(experiment, tmp_path_factory):
    """A run up to its proposal, which is all prose."""
    folder = tmp_path_factory.mktemp("rounds")
    content = yaml.safe_load(experiment) | {"fit": {"regressors": ["linear"], "folds": 3}}
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(content))
    return mixopt.run(config, folder / "run", until="propose")


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


def prose_hurts(mixture):
    return 3.0 + mixture["prose"]


def test_a_proposal_that_wins_is_the_only_one_and_takes_no_more_seeds(validate):
    found, said, counts, run = validate(prose_helps, seeds=3, baselines=["natural", "uniform"])
    assert list(found.proposals) == ["proposal"]
    assert counts == [9]
    assert said == []
    assert found.validation(run).compare("natural").verdict == "wins"


def test_a_proposal_that_loses_is_followed_by_another_from_its_own_runs(validate):
    found, said, _, run = validate(prose_hurts, seeds=3, baselines=["natural"])
    assert list(found.proposals) == ["proposal", "proposal_2"]
    first, second = (one.mixture["prose"] for one in found.proposals.values())
    assert second < first
    assert found.validation(run).leading == "proposal_2"
    assert "validate: the proposal is not better; its runs are added to the trials" in said


def test_a_proposal_that_loses_takes_none_for_what_is_not_decided_either(validate):
    """Natural is significantly better than the proposal, uniform is as good as it."""

    def loss(mixture):
        return 2.0 if mixture["prose"] < 0.4 else 3.0

    fields = {"seeds": 3, "rounds": 1, "baselines": ["natural", "uniform"]}
    _, said, counts, _ = validate(loss, noise=0.05, **fields)
    assert counts == [9]
    assert said == []


def test_seeds_are_added_to_what_is_not_decided_alone(validate):
    """Uniform is as good as the proposal, natural is far worse."""

    def loss(mixture):
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


def test_equal_baselines_are_said_and_trained_once(validate):
    fields = {"seeds": 3, "baselines": ["uniform", "unimax"]}
    found, said, counts, run = validate(prose_helps, **fields)
    assert said[0] == "validate: unimax is the same mixture as uniform; trained once"
    assert counts == [6]
    assert found.validation(run).mixtures == ("proposal", "uniform", "unimax")
    assert len(found.table(run)) == 9


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
    steps._forget_others(run, found.plan.trials, said.append)
    assert said == []
    edited = [
        replace(one, mixture=Mixture({"code": 0.5, "prose": 0.5})) for one in found.plan.trials
    ]
    ours = [one.name for one in edited if one.name.startswith("proposal")]
    steps._forget_others(run, [one for one in edited if one.name in ours], said.append)
    assert sorted(said) == [
        f"validate: {name} belongs to an earlier proposal, and is deleted" for name in sorted(ours)
    ]
    left = {path.stem for path in trial_paths(folder.path)}
    assert left == {one.name for one in edited} - set(ours)

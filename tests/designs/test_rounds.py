"""Later rounds are chosen by what the earlier ones found, once, and whatever happens in between."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st
from places import DATA
from scipy.stats import norm

import mixopt
from mixopt.config import DesignConfig, FitConfig, ObjectiveConfig, load_config
from mixopt.constraints import CappedSimplex
from mixopt.designs import choose_batch, draw_candidates, fit_surrogate
from mixopt.designs.acquisition import (
    Belief,
    choose_by_improvement,
    choose_by_variance,
    expected_gain,
)
from mixopt.errors import ConfigError, DesignError, RunError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.pipeline import run_status, status_lines
from mixopt.run_directory import Run, load_run
from mixopt.run_directory.step_records import StepRecord, read_steps, write_steps
from mixopt.system import read_json
from mixopt.trials import Losses, Trial, TrialResult, Trials

REGMIX = DATA / "regmix"
GP = "mixopt_regressors.gaussian.gaussian_process:GaussianProcessRegressor"
DOMAINS = ("web", "code", "books")
OPTIMUM = np.array([0.2, 0.7, 0.1])

# What is chosen, given a belief ---------------------------------------------------------------


def independent(means, stds) -> Belief:
    return Belief(np.array(means, dtype=float), np.diag(np.array(stds, dtype=float)))


def improve(belief, trained, count):
    trained_K = np.array(trained, dtype=bool)
    return choose_by_improvement(belief.draws(0), trained_K, ~trained_K, count)


@given(mean=st.floats(-1, 1), std=st.floats(0.1, 2))
@settings(max_examples=30)
def test_the_gain_of_one_mixture_is_its_expected_improvement(mean, std):
    belief = independent([0.0, mean], [0.0, std])
    expected = std * norm.pdf(mean / std) - mean * norm.cdf(-mean / std)
    # 512 draws: a standard error of at most std / 22.
    assert abs(expected_gain(belief.draws(0), 0, [1]) - expected) < 0.2 * std


def test_the_lower_of_two_equally_uncertain_mixtures_is_chosen():
    assert improve(independent([0, 0.3, 0.1], [0, 0.5, 0.5]), [1, 0, 0], 1) == [2]


def test_the_less_certain_of_two_equally_good_mixtures_is_chosen():
    assert improve(independent([0, 0.1, 0.1], [0, 0.2, 0.5]), [1, 0, 0], 1) == [2]


def test_a_batch_does_not_spend_two_trials_on_one_question():
    # Mixtures 1 and 2 are off together; 3 is predicted worse, but is a question of its own.
    directions = np.array([[0, 0.5, 0.499, 0], [0, 0, 0, 0.5]])
    belief = Belief(np.array([0.0, 0.0, 0.001, 0.2]), directions)
    assert improve(belief, [1, 0, 0, 0], 2) == [1, 3]


def test_a_lucky_trial_is_not_the_mark_to_beat():
    # Mixture 0 is trained and unsure, 1 is trained and sure. Below the predicted -0.1 of mixture 0,
    # only mixture 3 has a chance; but where mixture 0 was luck, 2 gains for sure.
    belief = independent([-0.1, 0.0, -0.05, 0.1], [1.0, 0.0, 0.0, 0.1])
    assert improve(belief, [1, 1, 0, 0], 1) == [2]


def test_where_nothing_can_gain_the_best_means_are_chosen():
    assert improve(independent([0, 0.3, 0.1, 0.2], [0, 0, 0, 0]), [1, 0, 0, 0], 2) == [2, 3]


def test_variance_asks_near_the_optimum_what_is_not_answered_yet():
    means = [*np.linspace(0, 0.5, 64), *np.full(500, 9.0)]
    directions = np.zeros((3, len(means)))
    directions[0, :30], directions[1, 30:60], directions[2, 64:] = 1.0, 0.8, 5.0
    open_K = np.ones(len(means), dtype=bool)
    first, second = choose_by_variance(Belief(np.array(means), directions), open_K, 2)
    assert (first < 30, 30 <= second < 60) == (True, True)


@given(count=st.integers(1, 12), seed=st.integers(0, 50))
@settings(max_examples=25)
def test_a_batch_has_distinct_mixtures_that_are_open(count, seed):
    rng = np.random.default_rng(seed)
    belief = Belief(rng.normal(size=30), rng.normal(size=(5, 30)))
    open_K = rng.random(30) < 0.6
    count = min(count, int(open_K.sum()))
    if not count or open_K.all():
        return
    for chosen in (
        choose_by_improvement(belief.draws(seed), ~open_K, open_K, count),
        choose_by_variance(belief, open_K, count),
    ):
        assert len(set(chosen)) == count
        assert open_K[chosen].all()


# What a fit believes, and the batch that follows ----------------------------------------------


def bowl(weights_ND):
    """A loss with its least at OPTIMUM."""
    return 2.0 + ((np.asarray(weights_ND) - OPTIMUM) ** 2).sum(axis=1)


def trials_at(weights_ND, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    values = bowl(weights_ND) + noise * rng.normal(size=len(weights_ND))
    trials = [
        Trial(f"t{n}", Mixture.from_array(DOMAINS, w), seed=n) for n, w in enumerate(weights_ND)
    ]
    results = [
        TrialResult(t.name, "finished", 1, 1, 0.1, Losses(1, {"loss": v}, {"loss": v}))
        for t, v in zip(trials, values.tolist(), strict=True)
    ]
    return Trials.from_results(trials, results, proxy="bowl")


def fitted(count=12, regressor=GP, noise=0.002, seed=0):
    weights = np.random.default_rng(seed).dirichlet(np.ones(3), count)
    objective = Objective.from_config(ObjectiveConfig(target="loss"), ("loss",))
    return fit_surrogate(trials_at(weights, noise), objective, FitConfig(), regressor=regressor)


ALLOWED = CappedSimplex(np.zeros(3), np.array([0.9, 0.8, 0.5]))
NATURAL = np.array([0.6, 0.3, 0.1])


def batch_of(surrogate, count=6, allowed=ALLOWED, seed=0, **options):
    candidates = draw_candidates(surrogate, allowed, NATURAL, minimum=1e-3, seed=seed)
    return choose_batch(surrogate, candidates, count, seed=seed, **options)


def test_a_fit_is_surer_where_it_has_trials_than_where_it_has_none():
    surrogate = fitted()
    far = surrogate.weights_ND.max(axis=0).argmin()
    points = np.vstack([surrogate.weights_ND[:1], np.eye(3)[far]])
    stds = np.sqrt((surrogate.believe(points).directions_RK ** 2).sum(axis=0))
    assert stds[1] > 3 * stds[0]


@pytest.mark.parametrize("regressor", ["lightgbm", "sklearn.linear_model:Ridge"])
def test_a_regressor_that_knows_no_deviations_is_asked_by_refits(regressor):
    surrogate = fitted(count=40, regressor=regressor)
    belief = surrogate.believe(np.random.default_rng(1).dirichlet(np.ones(3), 50))
    spread = np.sqrt((belief.directions_RK**2).sum(axis=0))
    assert np.ptp(spread) > 0.1 * spread.max() > 0


def test_the_noise_of_trials_is_no_reason_to_try_again():
    """Of a law that fits but for noise, little is left to learn where there are many trials."""
    surrogate = fitted(count=150, noise=0.05)
    belief = surrogate.believe(surrogate.weights_ND)
    assert np.median(np.sqrt((belief.directions_RK**2).sum(axis=0))) < 0.03


@pytest.mark.parametrize("acquisition", ["knowledge_gradient", "expected_improvement", "variance"])
def test_a_batch_is_new_distinct_and_within_the_limits(acquisition):
    surrogate = fitted()
    batch = batch_of(surrogate, acquisition=acquisition)
    together = np.vstack([surrogate.weights_ND, batch.weights_BD])
    apart = np.abs(together[:, None] - together[None]).sum(axis=2) + np.eye(len(together))
    assert batch.weights_BD.shape == (6, 3)
    assert ALLOWED.contains(batch.weights_BD).all()
    assert apart.min() > 1e-5
    assert ((batch.weights_BD == 0) | (batch.weights_BD >= 1e-3)).all()


def test_a_batch_by_improvement_has_mixtures_near_the_optimum():
    batch = batch_of(fitted(count=24))
    assert bowl(batch.weights_BD).min() < 2.01
    assert np.abs(batch.proposal_D - OPTIMUM).sum() < 0.2


def test_limits_that_leave_the_optimum_out_are_kept():
    allowed = CappedSimplex(np.zeros(3), np.array([1.0, 0.3, 1.0]))
    batch = batch_of(fitted(count=24), allowed=allowed)
    assert batch.weights_BD[:, 1].max() <= 0.3 + 1e-9


def test_the_same_seed_gives_the_same_batch_and_another_does_not():
    surrogate = fitted()
    one, same, other = (batch_of(surrogate, seed=seed).weights_BD for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_more_trials_leave_less_to_gain():
    assert batch_of(fitted(count=150)).gain < 0.3 * batch_of(fitted(count=8)).gain


def test_fewer_new_mixtures_than_asked_for_is_an_error():
    surrogate = fitted()
    with pytest.raises(
        DesignError, match=r"design.rounds: 3 further mixtures requested, but only 1 untried"
    ):
        choose_batch(surrogate, np.vstack([surrogate.weights_ND, np.eye(3)[:1]]), 3)


@pytest.mark.skipif(not REGMIX.is_dir(), reason="the published RegMix runs are not here")
def test_64_adaptive_trials_find_the_best_of_768_published_runs():
    """Random ones find it in proportion to their number: 64 do with a chance of 1 in 12."""
    pool, objective = published()
    values = objective.value(pool.losses("nats_per_token"))
    regret = []
    for seed in (0, 1):
        rows = np.random.RandomState(seed).permutation(512)[:32].tolist()
        for _ in range(2):
            table = Trials(pool.table[rows], pool.domains, pool.targets)
            surrogate = fit_surrogate(table, objective, FitConfig(), regressor=GP)
            batch = choose_batch(surrogate, pool.weights(), 16)
            rows += [
                int(np.flatnonzero((pool.weights() == weights_D).all(axis=1))[0])
                for weights_D in batch.weights_BD
            ]
        regret.append(values[rows].min() - values.min())
    # 0.02 is about what two runs of one mixture differ by; random rows are at 0.03 to 0.09.
    assert max(regret) < 0.02


def published():
    parts = [
        Trials.from_csv(REGMIX / f"{name}_mixture.csv", REGMIX / f"{name}_loss.csv")
        for name in ("train_1m", "test_1m")
    ]
    tables = [part.table.with_columns(pl.col("trial") + f"-{n}") for n, part in enumerate(parts)]
    pool = Trials(pl.concat(tables), parts[0].domains, parts[0].targets)
    config = ObjectiveConfig(target="pile_cc", unit="nats_per_token")
    return pool, Objective.from_config(config, pool.targets)


# In a run -------------------------------------------------------------------------------------

ROUNDS = """
design:
  rounds: [6, 3, 3]
  acquisition_regressor: linear
  replicates: 1
  max_usage: null
  max_weights: {code: 0.8}
"""


@pytest.fixture(scope="module")
def config(experiment, tmp_path_factory):
    """The experiment in rounds, of so few tokens that a trial is done at once."""
    lines = [line for line in experiment.splitlines() if not line.startswith("design:")]
    text = "\n".join(lines).replace("tokens: 20000", "tokens: 5000") + ROUNDS
    path = tmp_path_factory.mktemp("rounds") / "rounds.yaml"
    path.write_text(text.replace("workers: 2", "workers: 1"))
    return path


@pytest.fixture(scope="module")
def designed(config):
    """A run up to its design."""
    for step in (mixopt.prepare, mixopt.design):
        step(config, config.parent / "designed")
    return config.parent / "designed"


@pytest.fixture(scope="module")
def undisturbed(config, designed):
    """A run up to its sweep, and what was said."""
    said: list[str] = []
    shutil.copytree(designed, config.parent / "undisturbed")
    run = mixopt.sweep(config, config.parent / "undisturbed", say=said.append)
    return run, said


@pytest.fixture
def at_design(designed, tmp_path):
    shutil.copytree(designed, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def at_sweep(undisturbed, tmp_path):
    shutil.copytree(undisturbed[0].path, tmp_path / "run")
    return tmp_path / "run"


def tables(path: Path) -> list[pl.DataFrame]:
    names = ("design.parquet", "trials.parquet")
    return [pl.read_parquet(path / name).drop("seconds", strict=False) for name in names]


def assert_same(path: Path, undisturbed: Run) -> None:
    for ours, theirs in zip(tables(path), tables(undisturbed.path), strict=True):
        assert ours.equals(theirs)
    assert read_json(path / "trials/rounds.json") == read_json(
        undisturbed.path / "trials/rounds.json"
    )


def trial_files(path: Path) -> dict[Path, str]:
    found = (path / "trials").glob("[!.]*.json")
    return {file: file.read_text() for file in found if file.stem not in ("groups", "rounds")}


def test_the_trials_of_all_rounds_are_in_both_tables(undisturbed):
    run, _ = undisturbed
    table = run.trials.table
    assert table["trial"].to_list()[3:] == [f"t{n:04d}" for n in range(12)]
    assert table["round"].to_list() == [0] * 9 + [1] * 3 + [2] * 3
    assert table["role"].to_list()[3:] == ["sampled"] * 6 + ["chosen"] * 6
    assert table["status"].unique().to_list() == ["finished"]
    design = pl.read_parquet(run.path / "design.parquet")
    assert design["mixture"].to_list() == table["mixture"].to_list()


def test_no_mixture_is_chosen_twice_and_all_are_within_the_limits(undisturbed):
    table = undisturbed[0].trials.table.filter(pl.col("role") != "replicate")
    assert table["mixture"].n_unique() == len(table)
    assert table.filter(pl.col("role") == "chosen")["weight/code"].max() <= 0.8 + 1e-9


def test_no_two_trials_have_one_seed(undisturbed):
    assert undisturbed[0].trials.table["seed"].n_unique() == 15


def prepared(designed: Path, path: Path) -> Path:
    """Copy a run as it was before its design."""
    shutil.copytree(designed / "corpus", path / "corpus")
    shutil.copy(designed / "config.yaml", path / "config.yaml")
    write_steps(path, {"prepare": read_steps(designed)["prepare"]})
    return path


def test_the_first_round_is_the_design_of_as_many_trials(undisturbed, config, designed, tmp_path):
    plain = [
        "design.rounds=null", "design.trials=6", "design.acquisition_regressor=null"
    ]  # fmt: skip
    alone = mixopt.design(config, prepared(designed, tmp_path / "run"), overrides=plain)
    ours = pl.read_parquet(undisturbed[0].path / "design.parquet").filter(pl.col("round") == 0)
    assert pl.read_parquet(alone.path / "design.parquet").equals(ours)


def test_each_round_is_said_and_recorded(undisturbed):
    run, said = undisturbed
    record = read_json(run.path / "trials/rounds.json")
    assert [entry["round"] for entry in record["rounds"]] == [1, 2]
    assert {entry["regressor"] for entry in record["rounds"]} == {"linear"}
    assert sum(record["rounds"][0]["proposal"].values()) == pytest.approx(1)
    assert record["chosen_by"] == {"objective": {"target": "help"}, "fit": {}}
    assert (
        "sweep: round 2 of 3: 3 mixtures chosen by linear, expected gain over the current proposal"
        in said[0]
    )


def test_a_finished_sweep_is_not_done_again(undisturbed, config):
    run, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.*")}
    mixopt.sweep(config, run.path)
    assert {p: p.stat().st_mtime_ns for p in run.path.rglob("*.*") if p in before} == before


def test_a_run_that_is_killed_in_a_later_round_goes_on_to_the_same_tables(
    undisturbed, config, at_design
):
    arguments = [sys.executable, "-m", "mixopt", "sweep", config, "--out", at_design]
    process = subprocess.Popen(
        list(map(str, arguments)), stderr=subprocess.DEVNULL, start_new_session=True
    )
    while len(trial_files(at_design)) < 10:
        assert process.poll() is None, "the sweep ended before it could be killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = trial_files(at_design)
    assert run_status(load_run(at_design))["steps"]["sweep"]["trials"] == 15
    mixopt.sweep(config, at_design)
    # The file of a trial holds how long it took: trained again, it would differ.
    assert {path: path.read_text() for path in kept} == kept
    assert_same(at_design, undisturbed[0])


def rewind(path: Path, *, rounds: int, keep: int) -> None:
    """Take a finished sweep back: so many rounds noted, so many trials of the sampled kept."""
    record = read_json(path / "trials/rounds.json")
    record["rounds"] = record["rounds"][:rounds]
    (path / "trials/rounds.json").write_text(json.dumps(record))
    for file in trial_files(path):
        if file.stem[1:].isdigit() and int(file.stem[1:]) >= keep:
            file.unlink()
    (path / "trials.parquet").unlink()
    groups = read_json(path / "trials/groups.json")
    left = [names for names in groups if not names[0][1:].isdigit() or int(names[0][1:]) < keep]
    (path / "trials/groups.json").write_text(json.dumps(left))
    steps = read_steps(path)
    begun = StepRecord(fingerprint=steps["sweep"].fingerprint, seconds=None)
    write_steps(path, {**steps, "sweep": begun})


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("rounds", 7, "rounds: should be a valid list, got 7"),
        ("rounds", [{}], "rounds.0.round: is missing"),
        ("stopped", {"round": 1, "expected_gain": 0.1}, "stopped.not_run: is missing"),
        ("chosen_by", 3, "chosen_by: should be a valid dictionary"),
        ("extra", 3, "extra: unknown field"),
    ],
)
def test_a_damaged_record_of_rounds_is_one_line(at_sweep, field, value, reason):
    file = at_sweep / "trials/rounds.json"
    file.write_text(json.dumps({**read_json(file), field: value}))
    with pytest.raises(RunError, match="delete it and groups.json beside it") as caught:
        run_status(load_run(at_sweep))
    assert str(caught.value).startswith(f"{file}: {reason}")
    assert "\n" not in str(caught.value)


def test_a_round_that_is_out_of_order_is_refused(at_sweep):
    file = at_sweep / "trials/rounds.json"
    record = read_json(file)
    file.write_text(json.dumps({**record, "rounds": record["rounds"][::-1]}))
    with pytest.raises(RunError, match=r"rounds\.0\.round: should be 1, got 2"):
        run_status(load_run(at_sweep))


def test_a_record_of_rounds_that_is_deleted_with_the_groups_is_made_again(
    undisturbed, config, at_sweep
):
    rewind(at_sweep, rounds=2, keep=12)
    for name in ("rounds", "groups"):
        (at_sweep / f"trials/{name}.json").unlink()
    mixopt.sweep(config, at_sweep)
    assert_same(at_sweep, undisturbed[0])


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_kill_before_or_after_a_round_is_noted_changes_nothing(
    undisturbed, config, at_sweep, rounds
):
    """The design has the last round already; its trials have not begun to train."""
    rewind(at_sweep, rounds=rounds, keep=9)
    mixopt.sweep(config, at_sweep)
    assert_same(at_sweep, undisturbed[0])


def test_a_sweep_that_is_done_again_begins_with_the_first_round(undisturbed, at_sweep):
    run = load_run(at_sweep)
    run.discard("sweep")
    assert len(pl.read_parquet(at_sweep / "design.parquet")) == 15
    mixopt.sweep(run.config, at_sweep)
    assert_same(at_sweep, undisturbed[0])


def test_a_round_that_would_gain_too_little_is_not_run(config, designed, tmp_path):
    said: list[str] = []
    content = load_config(config, ["design.stop_gain=10"])
    path = prepared(designed, tmp_path / "run")
    mixopt.design(content, path)
    run = mixopt.sweep(content, path, say=said.append)
    assert len(run.trials) == len(pl.read_parquet(path / "design.parquet")) == 9
    stopped = read_json(path / "trials/rounds.json")["stopped"]
    assert (stopped["round"], stopped["not_run"]) == (1, 6)
    assert said[0].startswith("sweep: stopped early, 6 planned trials are not run: the expected ga")
    assert "below design.stop_gain: 10" in said[0]
    status = run_status(run)["steps"]["sweep"]
    assert (status["trials"], status["not_run"]) == (9, 6)
    assert any("9 of 9 trials, 6 not run" in line for line in status_lines(run_status(run)))


def test_another_objective_keeps_a_sweep_that_is_finished(undisturbed, config, at_sweep):
    run = mixopt.sweep(config, at_sweep, overrides=["objective={target: code}"])
    assert run.trials == undisturbed[0].trials


def test_rounds_of_one_sweep_are_not_chosen_by_different_objectives(config, at_sweep):
    rewind(at_sweep, rounds=1, keep=9)
    with pytest.raises(RunError) as caught:
        mixopt.sweep(config, at_sweep, overrides=["objective={target: code}"])
    assert "the unfinished sweep chose its rounds by another objective: " in str(caught.value)
    assert "--from sweep" in str(caught.value)


def test_a_trial_that_failed_does_not_stop_the_rounds(config, at_design, tmp_path, monkeypatch):
    source = (
        "from mixopt_proxies.ngram import NgramProxy\n"
        "class Fails(NgramProxy):\n"
        "    def train(self, trials, *rest):\n"
        "        if trials[0].name in ('t0002', 't0007'):\n"
        "            raise ValueError('no luck')\n"
        "        return super().train(trials, *rest)\n"
    )
    (tmp_path / "failing_proxy.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = mixopt.sweep(config, at_design, overrides=["proxy.name=failing_proxy:Fails"])
    failed = run.trials.table.filter(pl.col("status") == "failed")
    assert failed["trial"].to_list() == ["t0002", "t0007"]
    assert len(run.trials) == 15


def test_a_round_that_too_few_finished_trials_would_choose_is_one_line(
    config, at_design, tmp_path, monkeypatch
):
    source = (
        "from mixopt_proxies.ngram import NgramProxy\n"
        "class MostFail(NgramProxy):\n"
        "    def train(self, trials, *rest):\n"
        "        if trials[0].name != 't0004':\n"
        "            raise ValueError('no disk')\n"
        "        return super().train(trials, *rest)\n"
    )
    (tmp_path / "most_fail_proxy.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RunError) as caught:
        mixopt.sweep(config, at_design, overrides=["proxy.name=most_fail_proxy:MostFail"])
    text = str(caught.value)
    assert text.startswith(f"{at_design}: round 2 of 3 cannot be chosen: trials of 1 mix")
    assert "a fit needs 2 (trial natural failed: ValueError: no disk)" in text
    assert "--retry-failed" in text
    assert text.endswith("or set design.rounds: off")
    assert "\n" not in text


# The configuration ----------------------------------------------------------------------------


def test_rounds_add_up_to_the_trials():
    assert DesignConfig(rounds=[32, 16, 16]).trials == 64
    assert DesignConfig(rounds=[32, 16, 16]).first_round == 32
    assert DesignConfig(trials=48, rounds=[32, 16]).rounds == [32, 16]
    assert DesignConfig(rounds=[48]).planned_rounds == (48,)


@pytest.mark.parametrize(
    ("trials", "rounds"),
    [(64, (32, 16, 16)), (27, (15, 6, 6)), (24, (12, 6, 6)), (23, (23,)), (1, (1,))],
)
def test_a_half_and_two_quarters_are_the_rounds_of_enough_trials(trials, rounds):
    assert DesignConfig(trials=trials).planned_rounds == rounds
    assert DesignConfig(trials=trials).trials == trials


def test_rounds_are_switched_off():
    assert DesignConfig(trials=64, rounds=[]).planned_rounds == (64,)
    assert DesignConfig(trials=64, acquisition="variance").acquisition == "variance"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["design.trials=9"], "design: rounds add up to 12, and trials is 9: leave trials out"),
        (["design.rounds=[6, 0]"], r"design.rounds.1: .*greater than 0, got 0"),
        (["design.rounds=off"], "design: acquisition_regressor is for rounds after the first"),
        (["design.rounds=true"], "design.rounds: should be a valid list, got True"),
        (["design.rounds=[6]"], "design: acquisition_regressor is for rounds after the first"),
        (["design.acquisition=ei"], "design.acquisition: .*'expected_improvement' or 'variance'"),
        (
            ["design.acquisition_regressor=lienar"],
            "design.acquisition_regressor: unknown regressor 'lienar'; did you mean 'linear'",
        ),
        (["design.stop_gain=-1"], "design.stop_gain: .*greater than or equal to 0"),
    ],
)
def test_rounds_that_cannot_be_meant_are_refused(config, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(config, overrides)

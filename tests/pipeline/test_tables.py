"""From tables that a user already has, to a fit, a proposal and a test on unseen runs.

The losses are synthetic: each falls exponentially with its domain's own share.
"""

import json

import numpy as np
import polars as pl
import pytest
from command_line import mixopt
from refusals import refuses

from mixopt import Mixture, Trials, load_fit, propose
from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError, InfeasibleError, RunError, TrialsError
from mixopt.objective import Objective

DOMAINS = ("web", "code", "books")
INVENTORY = {"web": 4e9, "code": 1e9, "books": 2e9}
LONG = {"inventory": INVENTORY, "tokens": 1e12}


def write_tables(folder, rows, *, seed=0, shuffle=False):
    """Write mixtures.csv and losses.csv, the losses in another order where asked."""
    stream = np.random.default_rng(seed)
    weights_ND = stream.dirichlet(np.ones(len(DOMAINS)), rows).round(4)
    losses_ND = 2 + np.exp(-3 * weights_ND) + 0.005 * stream.normal(size=weights_ND.shape)
    names = [f"run{seed}-{n}" for n in range(rows)]
    order = stream.permutation(rows) if shuffle else np.arange(rows)
    paths = []
    for name, header, table_ND, places in (
        ("mixtures.csv", DOMAINS, weights_ND, range(rows)),
        ("losses.csv", [f"{d}_loss" for d in DOMAINS], losses_ND, order),
    ):
        lines = [",".join(["run", *header])]
        lines += [",".join([names[n], *map(str, table_ND[n])]) for n in places]
        paths.append(folder / name)
        paths[-1].write_text("\n".join(lines) + "\n")
    return paths


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("tables"), 40, shuffle=True)


@pytest.fixture(scope="module")
def trials(tables):
    return Trials.from_csv(*tables)


@pytest.fixture(scope="module")
def fit(trials):
    return trials.fit(regressors=["linear", "log_linear"])


@pytest.fixture(scope="module")
def unseen_tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("unseen"), 30, seed=1)


@pytest.fixture(scope="module")
def unseen(unseen_tables):
    return Trials.from_csv(*unseen_tables)


def test_rows_are_joined_by_name_so_that_the_law_is_found_and_leaned_to(fit, unseen):
    found = fit.evaluate(unseen)
    assert found["regressor"] == "log_linear"
    assert found["mean_spearman"] > 0.98
    assert all(0.7 <= row["coverage90"] <= 1 for row in found["targets"].values())
    assert fit.propose(target="code").mixture["code"] > 0.8


def test_an_objective_is_of_the_losses_that_change_and_of_those_it_asks_for(trials):
    flat = pl.lit(2.0).alias("loss/books")
    constant = Trials(trials.table.with_columns(flat), trials.domains, trials.targets)
    given = Objective(DOMAINS, "mean", {"web": 0.5, "code": 0.5}, "nats_per_token")
    found = constant.fit(regressors="linear", objective=given)
    assert found.targets == found.objective.evaluation == ("web", "code")
    assert found.trials.notes[-1] == "left out 'books': the same loss in every trial"
    with pytest.raises(TrialsError, match="the loss on 'books' is 2 in all 40 trials"):
        constant.fit(objective=Objective(DOMAINS, "target", {"books": 1}, "nats_per_token"))


def test_constraints_hold_however_they_are_given(fit, tmp_path):
    fields = {"bounds": {"code": [0, 0.3], "books": [0.2, 1]}}
    (tmp_path / "limits.yaml").write_text(json.dumps(fields))
    config = ConstraintsConfig.model_validate(fields)
    constraints = Constraints.from_config(config, dict.fromkeys(DOMAINS, 1))
    for limits in (tmp_path / "limits.yaml", constraints):
        mixture = fit.propose(target="code", constraints=limits).mixture
        assert mixture["code"] == pytest.approx(0.3)
        assert mixture["books"] >= 0.2 - 1e-9


def test_epochs_are_of_the_inventory_and_the_length(fit):
    options = {"constraints": {"max_epochs": 2}, "inventory": INVENTORY, "tokens": "5e9"}
    proposal = fit.propose(target="code", **options)
    assert proposal.mixture["code"] == pytest.approx(0.4)
    assert proposal.epochs["code"] == pytest.approx(2)
    assert proposal.natural == Mixture.natural(INVENTORY)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({**LONG, "constraints": {"max_epochs": 1}}, InfeasibleError, "max_epochs"),
        ({"inventory": {**INVENTORY, "maths": 1}}, ConfigError, "inventory: unknown domain"),
        ({"tokens": "25 billion"}, ConfigError, "tokens: '25 billion' is not a number of tokens"),
    ],
)
def test_what_cannot_be_proposed_is_one_line(fit, options, error, message):
    refuses(error, message, fit.propose, **options)


def test_a_fit_that_was_saved_is_read_back(fit, unseen, tmp_path):
    fit.save(str(tmp_path / "saved"))
    read = load_fit(str(tmp_path / "saved"))
    assert read.evaluate(unseen) == fit.evaluate(unseen)
    assert propose(tmp_path / "saved").mixture == fit.propose().mixture


def test_a_folder_without_a_fit_or_with_another_is_one_line(fit, tmp_path):
    refuses(RunError, "contains no fit; make one", load_fit, tmp_path)
    fit.save(tmp_path / "fit")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: run\n")
    for folder in (tmp_path, tmp_path / "run"):
        refuses(RunError, "is a run directory or has a fit already", fit.save, folder)
    refuses(RunError, "cannot be written", fit.save, tmp_path / "run" / "config.yaml" / "fit")


@pytest.fixture(scope="module")
def commanded(tables, tmp_path_factory):
    """A folder that `mixopt fit` made, from the same tables as `fit`."""
    out = tmp_path_factory.mktemp("commanded") / "out"
    named = ["--regressor", "linear", "--regressor", "log_linear"]
    ended = mixopt("fit", *tables, *named, "--out", out)
    assert ended.code == 0, ended.error
    return out, ended.out


def test_the_command_fits_what_the_method_fits(commanded, fit, trials):
    out, printed = commanded
    assert printed.startswith(f"fit: {fit.summary()}\nfit: readiness of the losses: ")
    assert printed.endswith(f"\nnext: mixopt propose {out}\n")
    read = load_fit(out)
    assert read.report.equals(fit.report)
    assert read.held_out.equals(fit.held_out)
    assert (read.objective, read.data.seed) == (fit.objective, fit.data.seed)
    assert read.trials == Trials.read(out / "trials.parquet") == trials


def test_the_command_answers_in_json_and_replays_to_a_page(tables, tmp_path):
    args = ["fit", *tables, "--regressor", "linear"]
    out, replay = tmp_path / "fit", tmp_path / "replay"
    answer = json.loads(mixopt(*args, "--out", out, "--json").out)
    fit = load_fit(out)
    known = {"path": str(out), "regressor": "linear", "summary": fit.summary()}
    known |= {"next": f"mixopt propose {out}"}
    assert {name: answer[name] for name in known} == known
    assert [loss["name"] for loss in answer["readiness"]["losses"]] == list(fit.targets)
    refused = mixopt("propose", out, "--free", "web").error
    assert refused.endswith("no mixture to hold the others at; give one: --free web=FILE\n")
    replayed = mixopt(*args, "--backtest", "--out", replay)
    assert replayed.error.endswith(f"page: {replay / 'backtest.html'}\n")
    assert "<html" in (replay / "backtest.html").read_text()
    assert len(json.loads(mixopt(*args, "--backtest", "--json").out)) > 3


def test_the_command_evaluates_and_proposes_as_the_methods_do(
    commanded, fit, unseen_tables, unseen, tmp_path
):
    ended = mixopt("fit", commanded[0], "--test", *unseen_tables, "--json")
    assert json.loads(ended.out) == fit.evaluate(unseen), ended.error
    limits = {"max_epochs": 2, "bounds": {"books": [0.1, 1]}}
    (tmp_path / "limits.yaml").write_text(json.dumps(limits))
    (tmp_path / "tokens.yaml").write_text("web: 4e9\ncode: 1e9\nbooks: 2e9\n")
    options = ["--constraints", tmp_path / "limits.yaml", "--inventory", tmp_path / "tokens.yaml"]
    options += ["--tokens", "5e9", "--target", "code", "--json"]
    ended = mixopt("propose", commanded[0], *options)
    assert ended.code == 0, ended.error
    given = {"constraints": limits, "inventory": tmp_path / "tokens.yaml", "tokens": 5e9}
    proposal = fit.propose(target="code", **given)
    assert json.loads(ended.out) == json.loads(json.dumps(proposal.to_json()))
    (tmp_path / "ours.yaml").write_text("{web: 0.3, code: 0.5, books: 0.2}")
    free = ["--free", f"web={tmp_path}/ours.yaml", "--free", "code", "--json"]
    held = json.loads(mixopt("propose", commanded[0], *free).out)["weights"]
    assert held["books"] == pytest.approx(0.2)

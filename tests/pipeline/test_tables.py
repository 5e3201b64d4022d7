"""From tables that a user already has, to a fit, a proposal and a test on unseen runs."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mixopt.errors import ConfigError, RunError, TrialsError
from mixopt.pipeline import Asked, load_fit, propose_from
from mixopt.pipeline.from_tables import evaluate_fit, fit_tables

DOMAINS = ("web", "code", "books")


def write_tables(folder, rows, *, seed=0, shuffle=False):
    """Synthetic: losses that fall exponentially with the domain's own share."""
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
def folders(tmp_path_factory):
    fit, unseen = tmp_path_factory.mktemp("fit"), tmp_path_factory.mktemp("unseen")
    mixtures, losses = write_tables(fit, 40, shuffle=True)
    fit_tables(mixtures, losses, fit / "out", regressors=["linear", "log_linear"])
    write_tables(unseen, 30, seed=1)
    return fit / "out", unseen


def test_rows_are_joined_by_name_so_that_the_law_is_found(folders):
    fit, unseen = folders
    found = evaluate_fit(fit, unseen / "mixtures.csv", unseen / "losses.csv")
    assert found["regressor"] == "log_linear"
    assert found["mean_spearman"] > 0.98
    assert all(0.7 <= row["coverage90"] <= 1 for row in found["targets"].values())


def test_regret_is_what_the_pick_costs_over_the_best_run(folders):
    fit, unseen = folders
    found = evaluate_fit(fit, unseen / "mixtures.csv", unseen / "losses.csv")["targets"]["web"]
    assert (found["regret"] == 0) == (found["rank"] == 1)
    assert found["regret"] < 0.03


def test_a_proposal_for_a_target_leans_to_its_domain(folders):
    assert propose_from(folders[0], target="code").mixture["code"] > 0.8


def test_constraints_of_a_file_hold(folders, tmp_path):
    path = tmp_path / "constraints.yaml"
    path.write_text("bounds: {code: [0, 0.3], books: [0.2, 1]}")
    mixture = propose_from(folders[0], target="code", asked=Asked(constraints=path)).mixture
    assert mixture["code"] <= 0.3 + 1e-9
    assert mixture["books"] >= 0.2 - 1e-9


def test_what_is_wrong_is_named(folders, tmp_path):
    fit, unseen = folders
    with pytest.raises(ConfigError, match="unknown evaluation domain 'cod'; did you mean 'code'"):
        propose_from(fit, target="cod")
    with pytest.raises(RunError, match="holds no fit; make one"):
        load_fit(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text("bound: {}")
    with pytest.raises(ConfigError, match=r"c\.yaml: bound: "):
        propose_from(fit, asked=Asked(constraints=path))
    renamed = tmp_path / "mixtures.csv"
    renamed.write_text((unseen / "mixtures.csv").read_text().replace("books", "maths"))
    with pytest.raises(TrialsError, match="domain 'books' is not in both"):
        evaluate_fit(fit, renamed, unseen / "losses.csv")


def test_the_command_line_does_the_same(folders, tmp_path):
    fit, unseen = folders
    tables = ["--mixtures", unseen / "mixtures.csv", "--losses", unseen / "losses.csv"]
    run = [sys.executable, "-m", "mixopt", "evaluate", fit, *tables, "--json"]
    answer = subprocess.run(list(map(str, run)), capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == evaluate_fit(fit, *tables[1::2])
    bad = [sys.executable, "-m", "mixopt", "fit", "--mixtures", unseen / "mixtures.csv"]
    ended = subprocess.run(list(map(str, bad)), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "--mixtures, --losses and --out go together" in ended.stderr

"""What went wrong in the nearest relative (allenai/olmix), and must not go wrong here.

Each was reproduced there by running it; a silent wrong answer first, failures after the whole
fit after that. The numbers are synthetic where no corpus is needed.
"""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, strategies as st

from mixopt.config import DesignConfig
from mixopt.corpus import Corpus
from mixopt.errors import RunError
from mixopt.fitting import OBJECTIVE, spearman
from mixopt.mixture import Mixture
from mixopt.pipeline import steps
from mixopt.trials import Trials, make_design

pytestmark = pytest.mark.nightly

DOMAINS = ("science", "code", "existing")
TARGETS = ("arc_easy:rc::olmes", "mt_mbpp_v2fix:bash")


def write_tables(folder, order=None, *, rows=30, signal=1.0):
    """Write ratios.csv and metrics.csv in Olmix's layout, the metrics in another order of rows."""
    stream = np.random.default_rng(0)
    weights_ND = stream.dirichlet(np.ones(3), rows)
    losses_NM = 1 + signal * np.exp(-3 * weights_ND[:, :2]) + 0.01 * stream.normal(size=(rows, 2))
    for name, header, values, places in (
        ("ratios", DOMAINS, weights_ND, range(rows)),
        ("metrics", TARGETS, losses_NM, range(rows) if order is None else order),
    ):
        lines = [",".join(["", "run", "name", "index", *header])]
        lines += [
            ",".join([str(at), f"id{n}", f"swarm-{n:04d}", str(n), *map(repr, values[n].tolist())])
            for at, n in enumerate(places)
        ]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder / "ratios.csv", folder / "metrics.csv"


@given(seed=st.integers(0, 10_000))
def test_shuffled_metrics_are_joined_to_their_own_ratios(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("tables")
    straight = Trials.from_csv(*write_tables(folder))
    order = np.random.default_rng(seed).permutation(30)
    assert Trials.from_csv(*write_tables(folder, order)) == straight


def test_corpora_of_other_files_do_not_share_token_counts(config_path, tmp_path, text_files):
    """Same domains, other files: the second count is of the second files, in any directory."""
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    text = config_path.read_text()
    first.write_text(text)
    swapped = text.replace(str(text_files["code"]), "HERE")
    swapped = swapped.replace(str(text_files["prose"]), str(text_files["code"]))
    second.write_text(swapped.replace("HERE", str(text_files["prose"])))
    counts = {}
    for config in (first, second):
        steps.run(config, tmp_path / config.stem, until="prepare")
        counts[config.stem] = Corpus.open(tmp_path / config.stem / "corpus").inventory
    assert counts["first"]["code"] == counts["second"]["prose"] != counts["second"]["code"]
    with pytest.raises(RunError, match="corpus.domains"):
        steps.run(second, tmp_path / "first", until="prepare")


def test_the_correlation_that_is_reported_is_of_held_out_trials(tmp_path):
    """A tree knows every training row by heart, and noise cannot be predicted."""
    trials = Trials.from_csv(*write_tables(tmp_path, rows=60, signal=0.0))
    tree = "sklearn.tree:DecisionTreeRegressor"
    fitted = trials.fit(regressors=tree)
    observed_N = fitted.objective.value(trials.losses())
    assert spearman(fitted.predict(trials.weights()).objective_N, observed_N) > 0.999
    row = fitted.report.filter((pl.col("predictor") == tree) & (pl.col("target") == OBJECTIVE))
    assert abs(row["spearman"][0]) < 0.4


CAP = 1.14  # times the natural share; feasible
SHARES = 1.0 / np.arange(1, 18)  # 17 domains, the largest of 29% and the smallest of 1.7%


def test_a_design_under_tight_caps_has_all_its_mixtures():
    natural = Mixture.from_array([f"d{n}" for n in range(17)], SHARES / SHARES.sum())
    config = DesignConfig(method="sobol", rounds=[64], max_usage=CAP, anchors=[], replicates=0)
    trials = make_design(config, natural, None, seed=0)
    weights_ND = np.array([trial.mixture.array for trial in trials])
    assert len({trial.mixture for trial in trials}) == 64
    assert (weights_ND <= CAP * natural.array + 1e-9).all()

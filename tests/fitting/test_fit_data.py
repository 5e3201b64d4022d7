"""What a fit takes from a table of trials, once."""

import numpy as np
import polars as pl
import pytest
from made_fit import table

from mixopt.config import ObjectiveConfig
from mixopt.errors import ConfigError
from mixopt.fitting import FitData
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.trials import Trial, TrialResult, Trials

DOMAINS = ("web", "code")


@pytest.fixture
def trials() -> Trials:
    """Twelve trials of ten mixtures; the last two are replicates, and one more failed."""
    n_N = np.arange(12.0)
    shares_N, losses_NM = 0.05 + 0.09 * (n_N % 10), np.column_stack([2.0 + n_N, 3.0 - 0.1 * n_N])
    sizes = [(100 * (n + 1), 10) for n in range(12)]
    done = table(np.column_stack([shares_N, 1 - shares_N]), losses_NM, DOMAINS, DOMAINS, sizes)
    bad, lost = Trial("bad", Mixture.uniform(DOMAINS), 0), TrialResult("bad", "failed", 1, 1, 0.0)
    failed = Trials.from_results([bad], [lost], proxy="synthetic", targets=DOMAINS)
    half = done.table.with_columns(pl.col("bpb/web") / 2)
    return Trials(pl.concat([failed.table, half]), done.domains, done.targets)


def data_of(trials, unit="nats_per_token", scale="none", **options):
    objective = Objective(trials.targets, "target", {"code": 1.0}, unit, (), scale)
    return FitData.of(trials, objective, **{"folds": 5, "seed": 0} | options)


def test_it_has_the_finished_rows_in_the_objective_s_unit_with_sizes_where_a_regressor_takes_them(
    trials,
):
    data, column = data_of(trials, scale="spread"), trials.targets.index("web")
    assert len(trials) == 13
    assert len(data.trials) == len(data.weights_ND) == len(data.mixtures) == 12
    assert data.losses_NM[0, column] == 2.0
    assert data_of(trials, "bits_per_byte").losses_NM[0, column] == 1.0
    assert data.objective.spreads == {"code": pytest.approx(0.1 * np.arange(12).std())}
    data = data_of(trials)
    plain, sized = (data.rows(name, data.make(name)) for name in ("linear", "scaling"))
    assert np.array_equal(plain, data.weights_ND)
    assert np.array_equal(sized, np.hstack([data.weights_ND, data.sizes.known_N2]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"regressors": 3}, "regressors: expected a name, several names, or package.module:Class"),
        ({"size": {"layers": 3}}, "size: expected parameters, tokens or both, by name; got"),
        ({"direction": {"code": "up"}}, "direction.code: should be 'lower' or 'higher', got 'up'"),
        (
            {"direction": "higher"},
            "expected lower or higher by name, such as {.accuracy.: .higher.}",
        ),
        ({"objective": 3}, "objective: expected the name of a loss, several names, .*; got 3"),
        ({"objective": "code", "scale": "spread"}, "scale: spread: .*, but 'code' is alone"),
        ({"objective": []}, "objective: names no loss; leave it out for the mean of all"),
        (
            {"objective": Objective(DOMAINS, "target", {"code": 1.0}), "scale": "spread"},
            "objective: an Objective has its own unit, direction and scale; leave those out",
        ),
        (
            {"objective": ObjectiveConfig(target="code"), "scale": "spread"},
            "objective: a file or a section has its own direction and scale; leave those out",
        ),
    ],
)
def test_an_argument_of_a_fit_that_cannot_be_is_one_line(trials, given, message):
    with pytest.raises(ConfigError, match=message):
        trials.fit(**given)

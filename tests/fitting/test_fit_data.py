"""What a fit takes from a table of trials, once."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mixopt.errors import ConfigError
from mixopt.fitting import FitData, Repetition
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.trials import Losses, Trial, TrialResult, Trials

DOMAINS = ("web", "code")


@pytest.fixture
def trials() -> Trials:
    """Twelve trials of ten mixtures; the last two are replicates, and one more failed."""
    shares = [0.05 + 0.09 * n for n in range(10)] + [0.05, 0.14]
    made = [
        Trial(f"t{n}", Mixture({"web": s, "code": 1 - s}), seed=n) for n, s in enumerate(shares)
    ]
    results = [
        TrialResult(t.name, "finished", 10, 100 * (n + 1), 0.1, loss(n)) for n, t in enumerate(made)
    ]
    table = Trials.from_results(made, results, proxy="some")
    failed = table.table[:1].with_columns(
        trial=pl.lit("bad"), status=pl.lit("failed"), reason=pl.lit("memory")
    )
    empty = [c for c in failed.columns if c.startswith(("loss/", "bpb/"))]
    failed = failed.with_columns(pl.lit(None, dtype=pl.Float64).alias(c) for c in empty)
    return Trials(pl.concat([failed, table.table]), table.domains, table.targets)


def loss(n):
    return Losses(
        1, {"web": 2.0 + n, "code": 3.0 - 0.1 * n}, {"web": 1.0 + n, "code": 1.5 - 0.1 * n}
    )


def data_of(trials, unit="nats_per_token", scale="none", **options):
    objective = Objective(trials.targets, "target", {"code": 1.0}, unit, (), scale)
    return FitData.of(trials, objective, **{"folds": 5, "seed": 0} | options)


def test_rows_that_did_not_finish_are_left_out(trials):
    data = data_of(trials)
    assert len(trials) == 13
    assert len(data.trials) == len(data.weights_ND) == len(data.losses_NM) == 12
    assert len(data.mixtures) == 12
    assert len(data.sizes.group_N) == 12


def test_losses_are_in_the_unit_of_the_objective(trials):
    column = trials.targets.index("web")
    assert data_of(trials, "nats_per_token").losses_NM[0, column] == 2.0
    assert data_of(trials, "bits_per_byte").losses_NM[0, column] == 1.0


def test_the_objective_gets_the_spreads_of_these_trials(trials):
    data = data_of(trials, scale="spread")
    assert data.objective.spreads == {"code": pytest.approx(0.1 * np.arange(12).std())}


@pytest.mark.parametrize(("name", "columns"), [("linear", 2), ("scaling", 4)])
def test_rows_hold_sizes_for_a_regressor_that_knows_of_them(trials, name, columns):
    data = data_of(trials)
    rows = data.rows(name, data.make(name))
    assert rows.shape == (12, columns)
    assert np.array_equal(rows[:, :2], data.weights_ND)
    assert np.array_equal(rows[:, 2:], data.sizes.known_N2[:, : columns - 2])


def test_regressors_are_made_with_seed_and_repetition(trials):
    made = data_of(trials, seed=7, repetition=Repetition((1.0, 2.0), 3.0)).make("epochs")
    assert (made.random_state, made.inventory, made.tokens) == (7, [1.0, 2.0], 3.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"regressors": 3}, "regressors: expected a name, several names, or package.module:Class"),
        ({"size": {"layers": 3}}, "size: expected parameters, tokens or both, by name; got"),
        ({"direction": {"code": "up"}}, "direction.code: should be 'lower' or 'higher', got 'up'"),
        ({"direction": "higher"}, "direction: expected lower or higher by name"),
        ({"objective": "cod"}, "'cod'; did you mean 'code'"),
    ],
)
def test_an_argument_of_a_fit_that_cannot_be_is_one_line(trials, given, message):
    with pytest.raises(ConfigError, match=message):
        trials.fit(**given)

"""The table of trials: joined by name, checked cell by cell, equal bytes from equal trials."""

import itertools
import math
import os
from dataclasses import replace
from types import SimpleNamespace

import polars as pl
import pytest
from refusals import refuses

from mixopt.corpus import bits_per_nat, in_bits_per_byte
from mixopt.errors import TrialsError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import best_trial
from mixopt.trials import Losses, Trial, TrialResult, Trials

MIXTURES = [Mixture({"web": w, "code": 1 - w}) for w in (0.25, 0.5, 0.75)]
TRIALS = [Trial(f"t{i}", mixture, seed=i) for i, mixture in enumerate(MIXTURES)]


def result(trial, loss=2.0):
    losses = Losses(1000, {"web": loss, "other": loss + 1}, {"web": loss / 2, "other": loss})
    return TrialResult(trial, "finished", 1000, 50, 0.5, losses)


RESULTS = [result("t0", 2.0), result("t1", 3.0), result("t2", 4.0)]
FAILED = TrialResult("t1", "failed", 10, 50, 0.1, reason="out of memory")


def table(results=RESULTS, trials=TRIALS, **options):
    return Trials.from_results(trials, results, proxy="ngram", **options)


def test_the_columns_are_those_of_the_contract_and_arrays_are_in_the_order_of_the_names():
    trials = table()
    assert trials.table.columns == [
        "trial", "role", "seed", "status", "reason", "mixture", "weight/web", "weight/code",
        "loss/web", "loss/other", "bpb/web", "bpb/other",
        "tokens", "parameters", "proxy", "seconds", "round",
    ]  # fmt: skip
    assert trials.weights().tolist() == [[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]]
    assert trials.losses().tolist() == [[2, 3], [3, 4], [4, 5]]
    assert trials.losses("bits_per_byte").tolist() == [[1, 2], [1.5, 3], [2, 4]]


def test_results_are_joined_by_name_to_equal_bytes_whatever_their_order_in_any_folder(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9") / "trials.parquet"
    table().write(path)
    assert Trials.read(path) == table()
    for results in itertools.permutations(RESULTS):
        table(results).write(tmp_path / "again.parquet")
        assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_an_unfinished_trial_keeps_its_row_and_reason_and_has_no_losses():
    trials = table([RESULTS[0], FAILED, RESULTS[2]])
    row = trials.table.row(1, named=True)
    assert (row["status"], row["reason"]) == (FAILED.status, FAILED.reason)
    assert row["loss/web"] is None
    assert row["bpb/other"] is None
    assert trials.finished.table["trial"].to_list() == ["t0", "t2"]
    refuses(TrialsError, "trial 't1' is failed and has no losses", trials.losses)


def test_the_best_trial_is_finished_has_the_lowest_objective_and_is_first_in_the_frame():
    lost = [result("t0"), FAILED, result("t2", 1.5)]
    objective = Objective(("web", "other"), "target", {"other": 1.0})
    assert best_trial(table(lost), objective) == ("t2", MIXTURES[2])
    higher = Objective(("web", "other"), "target", {"web": 1.0}, higher=("web",))
    assert best_trial(table(lost), higher) == ("t0", MIXTURES[0])
    results = [result("t0", 3.0), result("t1", 2.0), RESULTS[2]]
    objective = Objective(("web", "other"), "target", {"web": 1.0}, "bits_per_byte")
    frame = table(results).frame(objective)
    assert frame["trial"].to_list() == ["t1", "t0", "t2"]
    assert frame["objective"].to_list() == [1.0, 1.5, 2.0]
    assert "bpb/other" in frame.columns
    assert "loss/other" not in frame.columns
    assert table([RESULTS[0], FAILED, RESULTS[2]]).frame("other")["trial"].to_list() == ["t0", "t2"]


def test_a_stopped_trial_is_never_the_best_one_and_is_named_in_the_frame():
    stopped = replace(result("t2", 0.5), status="stopped")
    results = [result("t0", 3.0), result("t1", 2.0), stopped]
    objective = Objective(("web", "other"), "target", {"web": 1.0})
    assert best_trial(table(results), objective)[0] == "t1"
    frame = table(results).frame(objective)
    assert frame["trial"].to_list() == ["t2", "t1", "t0"]
    assert frame["status"].to_list() == ["stopped", "finished", "finished"]


def changed(**columns):
    """Return the table with other values in some columns."""
    frame = table().table.with_columns(pl.Series(n, values) for n, values in columns.items())
    return Trials(frame, ("web", "code"), ("web", "other"))


ODD = replace(TRIALS[1], mixture=Mixture({"web": 0.5, "books": 0.5}))
FEW = replace(RESULTS[1], losses=Losses(1, {"web": 1.0}, {"web": 1.0}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: table(RESULTS[::2]), "'t1' only in the design"),
        (lambda: table([*RESULTS, RESULTS[2]]), "the results: more than one row for 't2'"),
        (
            lambda: table([RESULTS[0], FEW, RESULTS[2]]),
            "'t1': other evaluation domains than the re",
        ),
        (
            lambda: table(trials=[TRIALS[0], ODD, TRIALS[2]]),
            "'t1': other domains than the rest: 'books', 'code'",
        ),
        (
            lambda: changed(**{"weight/code": [math.nan] * 3}),
            "trial 't0': weight of 'code' is nan; need >= 0",
        ),
        (
            lambda: changed(**{"weight/web": [0.5] * 3}),
            "^trial 't0': weights add up to 1.25, not 1",
        ),
        (
            lambda: changed(**{"loss/web": [None, 1, None], "bpb/web": [1, 2, None]}),
            "trial 't2': is finished but its loss on 'web' is None",
        ),
        (
            lambda: changed(**{"loss/web": [None, math.nan, 1], "bpb/web": [1, 2, 1]}),
            "trial 't1': is finished but .* on 'web' is nan",
        ),
        (
            lambda: table([FAILED], [TRIALS[1]], targets=["web"]).finished,
            "none of 1 trials finished; trial 't1': out of memory",
        ),
        (lambda: table([], []), "^a table of trials needs at least one trial"),
        (lambda: table().with_targets(["wbe"]), "no evaluation domain 'wbe'; did you mean 'web'"),
        (
            lambda: Trials(table().table.drop("seed"), ("web", "code"), ("web", "other")),
            "^no column 'seed' in the table of trials",
        ),
        (
            lambda: Trials(table().table, ("web", "code"), ()).fit(),
            "the trials have no losses: no column loss/NAME",
        ),
        (lambda: Trials.from_csv(*["/dev/zero"] * 2), "/dev/zero: cannot be read: it is a device"),
    ],
)
def test_a_table_that_cannot_be_is_one_line(make, message):
    refuses(TrialsError, message, make)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("weight/web", {"q": 1}, "column 'weight/web' of the table of trials holds no plain valu"),
        ("mixture", None, "trial 't0': has no fingerprint of its mixture"),
        ("tokens", -1, "trial 't0': tokens is -1; need a number from 0 to 9007199254740992"),
        ("seed", "\x1b[31m", r"\\x1b\[31m"),  # no control character in a message
    ],
)
def test_a_cell_that_cannot_be_is_one_line(column, value, message, tmp_path):
    odd = table().table.with_columns(pl.Series(column, [value] * 3))
    odd.write_parquet(tmp_path / "trials.parquet")
    refuses(TrialsError, message, Trials.read, tmp_path / "trials.parquet")


def test_a_nat_per_token_is_tokens_for_each_byte_in_bits_where_all_bytes_are_known():
    def domain(name, tokens, size):
        return SimpleNamespace(name=name, validation=SimpleNamespace(tokens=tokens, bytes=size))

    domains = [domain("web", 100, 400), domain("code", 50, 100)]
    assert bits_per_nat(domains) == {"web": 0.25 / math.log(2), "code": 0.5 / math.log(2)}
    assert in_bits_per_byte({"web": 2.0}, domains) == {"web": 0.5 / math.log(2)}
    unknown = [domains[0], domain("code", 50, 0)]
    assert bits_per_nat(unknown) is None
    assert in_bits_per_byte({"web": 2.0, "code": 1.0}, unknown) == {}

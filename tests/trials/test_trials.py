"""The table of trials: joined by name, checked cell by cell, equal bytes from equal trials."""

import itertools
import math
import os
from dataclasses import replace
from types import SimpleNamespace

import polars as pl
import pytest

from mixopt.errors import TrialsError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import best_trial
from mixopt.trials import Losses, Trial, TrialResult, Trials, bits_per_nat, in_bits_per_byte

MIXTURES = [Mixture({"web": w, "code": 1 - w}) for w in (0.25, 0.5, 0.75)]
TRIALS = [Trial(f"t{i}", mixture, seed=i) for i, mixture in enumerate(MIXTURES)]


def result(trial, loss=2.0):
    losses = Losses(1000, {"web": loss, "other": loss + 1}, {"web": loss / 2, "other": loss})
    return TrialResult(trial, "finished", 1000, 50, 0.5, losses)


RESULTS = [result("t0", 2.0), result("t1", 3.0), result("t2", 4.0)]
FAILED = TrialResult("t1", "failed", 10, 50, 0.1, reason="out of memory")


def table(results=RESULTS, trials=TRIALS, **options):
    return Trials.from_results(trials, results, proxy="ngram", **options)


def test_the_columns_are_those_of_the_contract():
    assert table().table.columns == [
        "trial", "role", "seed", "status", "reason", "mixture", "weight/web", "weight/code",
        "loss/web", "loss/other", "bpb/web", "bpb/other",
        "tokens", "parameters", "proxy", "seconds", "round",
    ]  # fmt: skip


def test_results_are_joined_by_name_and_not_by_order():
    for results in itertools.permutations(RESULTS):
        assert table(results) == table()


def test_equal_content_is_equal_bytes_whatever_the_order_of_the_results(tmp_path):
    table().write(tmp_path / "a.parquet")
    table(RESULTS[::-1]).write(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_table_is_read_from_a_folder_of_any_name(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9") / "trials.parquet"
    table().write(path)
    assert Trials.read(path) == table()


def test_weights_and_losses_are_arrays_in_the_order_of_the_names():
    trials = table()
    assert trials.weights().tolist() == [[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]]
    assert trials.losses().tolist() == [[2, 3], [3, 4], [4, 5]]
    assert trials.losses("bits_per_byte").tolist() == [[1, 2], [1.5, 3], [2, 4]]


def test_an_unfinished_trial_keeps_its_row_and_reason_and_has_no_losses():
    trials = table([RESULTS[0], FAILED, RESULTS[2]])
    row = trials.table.row(1, named=True)
    assert (row["status"], row["reason"]) == (FAILED.status, FAILED.reason)
    assert row["loss/web"] is None
    assert row["bpb/other"] is None
    assert trials.finished.table["trial"].to_list() == ["t0", "t2"]
    with pytest.raises(TrialsError, match="trial 't1' is failed and has no losses"):
        trials.losses()


def test_a_sweep_without_a_finished_trial_gives_the_first_reason():
    trials = table([FAILED], [TRIALS[1]], targets=["web"])
    with pytest.raises(TrialsError, match="none of 1 trials finished; trial 't1': out of memory"):
        _ = trials.finished


def test_the_best_trial_is_the_finished_one_with_the_lowest_objective():
    lost = [result("t0"), FAILED, result("t2", 1.5)]
    objective = Objective(("web", "other"), "target", {"other": 1.0})
    assert best_trial(table(lost), objective) == ("t2", MIXTURES[2])
    higher = Objective(("web", "other"), "target", {"web": 1.0}, higher=("web",))
    assert best_trial(table(lost), higher) == ("t0", MIXTURES[0])


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([RESULTS[0], RESULTS[2]], "the results lack 't1', in the design"),
        ([*RESULTS, RESULTS[2]], "the results: more than one row for 't2'"),
        (
            [
                RESULTS[0],
                replace(RESULTS[1], losses=Losses(1, {"web": 1.0}, {"web": 1.0})),
                RESULTS[2],
            ],
            "'t1': other evaluation domains than the rest: 'other'",
        ),
    ],
)
def test_results_that_do_not_fit_the_design_are_named(results, message):
    with pytest.raises(TrialsError, match=message):
        table(results)


def test_trials_of_other_domains_are_refused():
    odd = replace(TRIALS[1], mixture=Mixture({"web": 0.5, "books": 0.5}))
    with pytest.raises(TrialsError, match="'t1': other domains than the rest: 'books', 'code'"):
        table(trials=[TRIALS[0], odd, TRIALS[2]])


def test_a_weight_that_cannot_be_is_named_with_its_domain():
    wrong = table().table.with_columns(pl.lit(float("nan")).alias("weight/code"))
    with pytest.raises(TrialsError, match="trial 't0': weight of 'code' is nan; need >= 0"):
        Trials(wrong, ("web", "code"), ("web", "other"))


def test_the_first_finished_trial_without_a_loss_is_named():
    losses = [None, 1.0, None, 1.0, float("nan"), 1.0]
    rows = pl.concat(
        [table().table, table().table.with_columns(("x" + pl.col("trial")).alias("trial"))]
    )
    rows = rows.with_columns(
        pl.Series("loss/web", losses), pl.Series("bpb/web", [1.0, 2.0, None, None, 1.0, 1.0])
    )
    with pytest.raises(TrialsError, match="trial 't2': is finished but its loss on 'web' is None"):
        Trials(rows, ("web", "code"), ("web", "other"))
    with pytest.raises(TrialsError, match="trial 'xt1': is finished but .* on 'web' is nan"):
        Trials(rows.filter(pl.col("trial") != "t2"), ("web", "code"), ("web", "other"))


def test_the_frame_has_the_best_trial_first_in_the_unit_of_the_objective():
    results = [result("t0", 3.0), result("t1", 2.0), result("t2", 4.0)]
    objective = Objective(("web", "other"), "target", {"web": 1.0}, "bits_per_byte")
    frame = table(results).frame(objective)
    assert frame["trial"].to_list() == ["t1", "t0", "t2"]
    assert frame["objective"].to_list() == [1.0, 1.5, 2.0]
    assert "bpb/other" in frame.columns
    assert "loss/other" not in frame.columns
    assert table([RESULTS[0], FAILED, RESULTS[2]]).frame("other")["trial"].to_list() == ["t0", "t2"]


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
    with pytest.raises(TrialsError, match=message):
        Trials.read(tmp_path / "trials.parquet")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: table([], []), "^a table of trials needs at least one trial"),
        (lambda: table().with_targets(["wbe"]), "no evaluation domain 'wbe'; did you mean 'web'"),
        (
            lambda: Trials(table().table.drop("seed"), ("web", "code"), ("web", "other")),
            "^no column 'seed' in the table of trials",
        ),
        (
            lambda: Trials(
                table().table.with_columns(pl.lit(0.5).alias("weight/web")), ("web", "code"), ()
            ),
            "^trial 't0': weights add up to 1.25, not 1",
        ),
    ],
)
def test_a_table_that_cannot_be_is_one_line(make, message):
    with pytest.raises(TrialsError, match=message):
        make()


def test_a_device_is_no_table():
    with pytest.raises(TrialsError, match="/dev/zero: cannot be read: it is a device"):
        Trials.from_csv("/dev/zero", "/dev/zero")


def test_a_fit_of_trials_without_losses_is_one_line():
    with pytest.raises(TrialsError, match="the trials have no losses: no column loss/NAME"):
        Trials(table().table, ("web", "code"), ()).fit()


def test_a_nat_per_token_is_tokens_for_each_byte_in_bits_where_all_bytes_are_known():
    def domain(name, tokens, size):
        return SimpleNamespace(name=name, validation=SimpleNamespace(tokens=tokens, bytes=size))

    domains = [domain("web", 100, 400), domain("code", 50, 100)]
    assert bits_per_nat(domains) == {"web": 0.25 / math.log(2), "code": 0.5 / math.log(2)}
    assert in_bits_per_byte({"web": 2.0}, domains) == {"web": 0.5 / math.log(2)}
    unknown = [domains[0], domain("code", 50, 0)]
    assert bits_per_nat(unknown) is None
    assert in_bits_per_byte({"web": 2.0, "code": 1.0}, unknown) == {}

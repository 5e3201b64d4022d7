"""What a command line says of tables is read, or refused with the form that it should have."""

from pathlib import Path

import pytest

from mixopt.errors import ConfigError
from mixopt.trials import (
    TableOptions,
    directions,
    risk_of,
    scale_name,
    token_count,
    unit_name,
)

LEFT, RIGHT = Path("mixtures.csv"), Path("losses.csv")


@pytest.fixture
def tables(tmp_path):
    mixtures, losses, trials = (tmp_path / name for name in ("w.csv", "l.csv", "t.parquet"))
    mixtures.write_text("run,a,b,note\nx,0.25,0.75,1\ny,0.5,0.48,2\n")
    losses.write_text("run,a,b\nx,2,3\ny,1,4\n")
    return mixtures, losses, trials


def test_two_tables_or_one_give_the_same_trials(tables):
    mixtures, losses, trials = tables
    options = TableOptions(ignore=("note",), tolerance=0.05, unit="bits_per_byte", key="run")
    read = options.read("fit", mixtures, losses, None)
    assert (read.unit, read.domains) == ("bits_per_byte", ("a", "b"))
    read.write(trials)
    assert TableOptions().read("fit", None, None, trials) == read
    assert TableOptions(ignore=("note",), tolerance=0.05).read(
        "fit", mixtures, losses, None
    ).unit == ("nats_per_token")


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        (TableOptions(), (LEFT, None, LEFT)),
        (TableOptions(), (None, RIGHT, LEFT)),
        (TableOptions(key="run"), (None, None, LEFT)),
        (TableOptions(ignore=("x",)), (None, None, LEFT)),
        (TableOptions(drop_incomplete=True), (None, None, LEFT)),
    ],
)
def test_options_of_two_tables_do_not_go_with_one(options, paths):
    with pytest.raises(ConfigError, match="fit: --trials goes without --mixtures, --losses"):
        options.read("fit", *paths)


@pytest.mark.parametrize("paths", [(LEFT, None, None), (None, RIGHT, None), (None, None, None)])
def test_half_of_two_tables_is_refused(paths):
    with pytest.raises(ConfigError, match=r"fit: --mixtures, --losses and --out go together"):
        TableOptions().read("fit", *paths)
    with pytest.raises(ConfigError, match=r"evaluate: --mixtures and --losses go together"):
        TableOptions().read("evaluate", *paths)


def test_pilots_are_read_as_the_trials_are_and_may_lack_ignored_columns(tables):
    mixtures, losses, trials = tables
    options = TableOptions(ignore=("note", "elsewhere"), tolerance=0.05)
    assert options.read_pilots(None, None, None) is None
    read = options.read_pilots(mixtures, losses, None)
    assert read.domains == ("a", "b")
    read.write(trials)
    assert options.read_pilots(None, None, trials) == read


@pytest.mark.parametrize(
    "paths", [(LEFT, None, None), (None, RIGHT, None), (LEFT, RIGHT, LEFT), (LEFT, None, LEFT)]
)
def test_half_of_the_pilots_or_both_ways_are_refused(paths):
    with pytest.raises(ConfigError, match="or --pilot-trials alone"):
        TableOptions().read_pilots(*paths)


def test_directions_are_read_by_target():
    assert directions(["a=b=higher", "loss=lower"]) == {"a=b": "higher", "loss": "lower"}
    for wrong in ("higher", "=higher", "a=up", "a="):
        with pytest.raises(ConfigError, match=f"--direction {wrong}: expected TARGET=higher"):
            directions([wrong])


def test_a_number_of_tokens_is_at_least_one_and_finite():
    assert token_count(None) is None
    assert (token_count(1.0), token_count(2.5e9), token_count(9e17)) == (
        1,
        2_500_000_000,
        9 * 10**17,
    )
    for wrong in (0.5, 0, -1, 1e18, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="must be at least 1, and less than 1e18"):
            token_count(wrong)


def test_a_risk_is_deviations_or_a_quantile():
    assert risk_of(None) is None
    assert (risk_of("std=1.5").std, risk_of("quantile=0.9").quantile) == (1.5, 0.9)
    for wrong in ("std", "std=x", "mean=1", "std=-1", "quantile=0.4"):
        with pytest.raises(ConfigError, match=f"--risk {wrong}: expected std=K"):
            risk_of(wrong)


def test_names_of_scales_and_units_are_known():
    assert (scale_name("spread"), scale_name("none")) == ("spread", "none")
    assert (unit_name("bits_per_byte"), unit_name(None)) == ("bits_per_byte", None)
    with pytest.raises(ConfigError, match="--scale spred: unknown; did you mean 'spread'"):
        scale_name("spred")
    with pytest.raises(ConfigError, match="--unit bits: unknown"):
        unit_name("bits")

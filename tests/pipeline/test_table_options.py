"""Tables are read as their options say, or what does not go together is said."""

from pathlib import Path

import pytest

from mixopt.errors import ConfigError
from mixopt.pipeline import TableOptions

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
    with pytest.raises(
        ConfigError, match="fit: --trials cannot be combined with --mixtures, --losses"
    ):
        options.read("fit", *paths)


@pytest.mark.parametrize("paths", [(LEFT, None, None), (None, RIGHT, None), (None, None, None)])
def test_half_of_two_tables_is_refused(paths):
    with pytest.raises(
        ConfigError, match=r"fit: --mixtures, --losses and --out must be given together"
    ):
        TableOptions().read("fit", *paths)
    with pytest.raises(ConfigError, match=r"evaluate: --mixtures and --losses must be given"):
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

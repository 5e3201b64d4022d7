"""Values that are given on their own are checked as those of an experiment are."""

import pytest

from mixopt.config import MixedConfig, SweepConfig, token_count
from mixopt.errors import ConfigError


def test_a_number_of_tokens_is_at_least_one_and_finite():
    assert token_count(None) is None
    assert (token_count(1.0), token_count(2.5e9), token_count(9e17)) == (
        1,
        2_500_000_000,
        9 * 10**17,
    )
    for wrong in (0.5, 0, -1, 1e18, float("nan"), float("inf"), "1e18", "1e999999999", True):
        with pytest.raises(ConfigError, match="is not a number of tokens from 1 to 1e18"):
            token_count(wrong)
    assert (token_count("25e9"), token_count(10**17 + 1)) == (25_000_000_000, 10**17 + 1)
    assert (token_count("50B"), token_count("1T"), token_count("1.5m")) == (
        50_000_000_000,
        10**12,
        1_500_000,
    )
    with pytest.raises(
        ConfigError, match="--tokens: 'many' is not a number of tokens from 1 to 1e18, such as"
    ):
        token_count("many", "--tokens")


def test_a_file_of_a_mixture_is_kept_as_its_weights(tmp_path):
    (tmp_path / "w.yaml").write_text("weights: {web: 0.25, code: 0.75}\n")
    parts = {name: {"path": f"{name}.jsonl"} for name in ("code", "web")}
    mixed = MixedConfig(domains=parts, mixture=str(tmp_path / "w.yaml"))
    assert mixed.shares == {"code": 0.75, "web": 0.25}


def test_a_duration_is_seconds_or_as_people_write_it():
    written = {0.5: 0.5, "90": 90, "10m": 600, "1h30m": 5400, "1.5h": 5400}
    assert {one: SweepConfig(patience=one).patience for one in written} == written

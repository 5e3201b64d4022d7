"""Values and limits that are given on their own, as people write them."""

import pytest
import yaml

from mixopt.config import (
    ConstraintsConfig,
    MixedConfig,
    SweepConfig,
    dump_config,
    load_config,
    read_constraints,
    read_inventory,
    stated_tokens,
    token_count,
)
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError


def test_a_number_of_tokens_is_at_least_one_and_finite():
    billions = {"25e9": 25, 2.5e9: 2.5, "50B": 50, "1T": 1000, "1.5m": 0.0015, 9e17: 9e8, 1.0: 1e-9}
    for written, count in billions.items():
        assert token_count(written) == round(count * 10**9)
    assert (token_count(None), token_count(10**17 + 1)) == (None, 10**17 + 1)
    for wrong in (0.5, 0, -1, 1e18, float("nan"), float("inf"), "1e18", "1e999999999", True):
        with pytest.raises(ConfigError, match="is not a number of tokens from 1 to 1e18"):
            token_count(wrong)
    with pytest.raises(ConfigError, match="--tokens: 'many' is not a number of tokens from 1 to"):
        token_count("many", "--tokens")


def test_a_file_of_a_mixture_is_kept_as_its_weights(tmp_path):
    (tmp_path / "w.yaml").write_text("weights: {web: 0.25, code: 0.75}\n")
    parts = {name: {"path": f"{name}.jsonl"} for name in ("code", "web")}
    mixed = MixedConfig(domains=parts, mixture=str(tmp_path / "w.yaml"))
    assert mixed.shares == {"code": 0.75, "web": 0.25}
    (tmp_path / "w.yaml").write_text("- web\n")
    with pytest.raises(ValueError, match="w.yaml: expected 'weights:' with a number for each dom"):
        MixedConfig(domains=parts, mixture=str(tmp_path / "w.yaml"))


def test_a_duration_is_seconds_or_as_people_write_it():
    written = {0.5: 0.5, "90": 90, "10m": 600, "1h30m": 5400, "1.5h": 5400}
    assert {one: SweepConfig(patience=one).patience for one in written} == written


DOMAINS = ("web", "code", "tex")


def test_a_glob_is_of_every_domain_that_no_name_overrides_and_a_dropped_one_gets_nothing():
    found = ConstraintsConfig(bounds={"*": [0.05, 1], "tex": [0, 0.2]}).bounds_of(DOMAINS)
    assert found == {"web": (0.05, 1), "code": (0.05, 1), "tex": (0, 0.2)}
    config = ConstraintsConfig(bounds={"*": [0.05, 1]}, drop=["tex"])
    allowed = Constraints.from_config(config, dict.fromkeys(DOMAINS, 10))
    assert allowed.upper_D.tolist() == [1.0, 1.0, 0.0]
    assert allowed.lower_D.tolist() == [0.05, 0.05, 0.0]


def test_changes_keep_the_other_limits_of_the_run():
    own = ConstraintsConfig(max_epochs=4, guardrails="natural", bounds={"web": [0, 0.3]})
    found = own.with_changes(ConstraintsConfig(bounds={"*": [0.05, 1]}), DOMAINS)
    assert (found.max_epochs, found.guardrails) == ({"*": 4}, own.guardrails)
    assert found.bounds == {"web": (0.05, 0.3), "code": (0.05, 1), "tex": (0.05, 1)}
    named = own.with_changes(ConstraintsConfig(bounds={"web": [0.2, 0.8]}, max_epochs=8), DOMAINS)
    assert (named.bounds, named.max_epochs) == ({"web": (0.2, 0.8)}, {"*": 8})


def test_a_file_may_have_its_limits_below_the_section_s_name(tmp_path):
    path = tmp_path / "limits.yaml"
    path.write_text("constraints: {bounds: {'*': [0.05, 1]}}\n")
    assert read_constraints(path) == ConstraintsConfig(bounds={"*": [0.05, 1]})


# Sizes of whole domains: in the sources, or in a file, of all domains or of none.

TOKENS = ["corpus.domains.code.tokens=3e9", "corpus.domains.prose.tokens=1_000_000_000"]


def write(path, text):
    path.write_text(text)
    return str(path)


def sizes(config):
    return {name: (s.tokens, s.bytes) for name, s in config.corpus.domains.items()}


def test_a_file_of_sizes_becomes_part_of_the_configuration_whose_record_needs_it_no_more(
    config_path, tmp_path
):
    file = write(tmp_path / "sizes.yaml", "code: 5e9\nprose: {bytes: 2e10}\n")
    config = load_config(config_path, [f"corpus.inventory={file}"])
    assert sizes(config) == {"code": (5 * 10**9, None), "prose": (None, 2 * 10**10)}
    assert "inventory" not in dump_config(config)["corpus"]
    assert stated_tokens(config.corpus.domains) is None
    (tmp_path / "sizes.yaml").unlink()
    record = write(tmp_path / "record.yaml", yaml.safe_dump(dump_config(config)))
    assert load_config(record) == config


def test_files_that_an_untrusted_record_names_are_not_read(config_path, tmp_path):
    file = write(tmp_path / "sizes.yaml", "code: 5e9\nprose: 1e9\n")
    hand = f"validate.baselines=[{{hand: {file}}}]"
    for override, message in (
        (f"corpus.inventory={file}", "inventory: .*: a recorded configuration contains the sizes"),
        (hand, "is a file; a recorded configuration must contain the weights"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(config_path, [override], trust=False)


def test_the_file_may_have_the_domains_whose_source_states_none(config_path, tmp_path):
    file = write(tmp_path / "sizes.yaml", "code: 5e9\n")
    config = load_config(config_path, [f"corpus.inventory={file}", TOKENS[1]])
    assert sizes(config) == {"code": (5 * 10**9, None), "prose": (10**9, None)}


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ("code: 5e9", [], "sizes.yaml: domain 'prose' is missing; add its tokens or bytes"),
        ("code: {tokens: 1, bytes: 2}\nprose: 1", [], "code: give exactly one of tokens and bytes"),
        ("code: {}\nprose: 1", [], "exactly one of tokens and bytes, got nothing"),
        ("code: {bytes: -1}\nprose: 1", [], "code.bytes: -1 is not a number of bytes from 1 to"),
        ("- code", [], "sizes.yaml: expected a number of tokens for each domain"),
        ("code: 2e9\nprose: 1e9", TOKENS, "code.tokens: 3000000000, but .* has tokens: 2000000000"),
    ],
)
def test_a_file_that_cannot_be_right_is_named(config_path, tmp_path, content, overrides, message):
    file = write(tmp_path / "sizes.yaml", content)
    with pytest.raises(ConfigError, match=message):
        load_config(config_path, [f"corpus.inventory={file}", *overrides])


def test_bytes_become_tokens_where_a_corpus_says_how():
    stated = {"code": {"bytes": 4_000_000_000}, "prose": 7}
    rates = {"code": 0.25, "prose": 0.5}
    assert read_inventory(stated, ["code", "prose"], tokens_per_byte=rates) == {
        "code": 10**9,
        "prose": 7,
    }
    with pytest.raises(
        ConfigError, match="inventory: code: converting bytes to tokens needs a prepared"
    ):
        read_inventory(stated, ["code", "prose"])

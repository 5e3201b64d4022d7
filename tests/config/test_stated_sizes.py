"""Sizes of whole domains: in the sources, or in a file, of all domains or of none."""

import pytest
import yaml

from mixopt.config import dump_config, load_config, read_inventory, stated_tokens
from mixopt.errors import ConfigError

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
        (f"corpus.inventory={file}", "inventory: .*: a recorded configuration has the sizes"),
        (hand, "is a file; a recorded configuration has the weights themselves"),
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
        ("code: 2e9\nprose: 1e9", TOKENS, "code.tokens: 3000000000, and .* has tokens: 2000000000"),
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

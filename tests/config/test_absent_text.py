"""Domains and targets without text: what has to be known of them, and who can train on them."""

import pytest

from mixopt.config import dump_config, load_config
from mixopt.errors import ConfigError
from mixopt.run_directory.step import step_fingerprints

OWN = """\
corpus: {domains: {web: {tokens: 1e12}, code: {tokens: 2e11}}}
evaluation: {mmlu: {}}
proxy: {name: command, run: train, result: m.json}
objective: {target: mmlu, unit: nats_per_token}
"""


@pytest.fixture
def load(tmp_path):
    def loaded(text):
        path = tmp_path / "own.yaml"
        path.write_text(text)
        return load_config(path)

    return loaded


def test_a_domain_needs_no_text_where_a_trainer_of_ones_own_reads_it(load):
    config = load(OWN)
    assert not config.corpus.domains["web"].has_text
    assert config.corpus.domains["web"].tokens == 10**12


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{name: command, run: train, result: m.json}",
            "{name: ngram}",
            "corpus.domains.web: give either 'environment' or 'path' (or 'data_files'); only a"
            " trainer of your own (proxy.name: command) needs no text",
        ),
        ("{tokens: 1e12}", "{bytes: 1e12}", "domains.web: its text is not here, so its size"),
        (", unit: nats_per_token", "", "objective.unit: is bits_per_byte, and losses of 'web', "
                                       "whose text is not available here, are known only in "
                                       "proxy.unit: set objective.unit: nats_per_token"),
    ],
)  # fmt: skip
def test_what_a_domain_without_text_lacks_is_named(load, old, new, message):
    with pytest.raises(ConfigError) as told:
        load(OWN.replace(old, new))
    assert message in str(told.value)


def test_the_size_of_a_domain_without_text_is_what_is_prepared(load):
    def prepared(text):
        return step_fingerprints(dump_config(load(text)))["prepare"]

    assert prepared(OWN) != prepared(OWN.replace("1e12", "2e12"))
    text = OWN.replace("{tokens: 1e12}", "{path: a.txt, tokens: 1e12}")
    assert prepared(text) == prepared(text.replace("1e12", "2e12"))

"""Domains and targets without text: what has to be known of them, and who can train on them."""

import pytest

from mixopt.config import dump_config, load_config
from mixopt.run_directory.steps import step_fingerprints

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


def test_the_size_of_a_domain_without_text_is_what_is_prepared(load):
    def prepared(text):
        return step_fingerprints(dump_config(load(text)))["prepare"]

    assert prepared(OWN) != prepared(OWN.replace("1e12", "2e12"))
    text = OWN.replace("{tokens: 1e12}", "{path: a.txt, tokens: 1e12}")
    assert prepared(text) == prepared(text.replace("1e12", "2e12"))

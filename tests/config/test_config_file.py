"""A configuration that cannot be right is one line with file, line and field."""

import pytest
import yaml

from mixopt.config import dump_config, load_config
from mixopt.errors import ConfigError

GOOD = """\
corpus:
  domains:
    web: {path: web.jsonl}
    code: {path: code.jsonl}
evaluation:
  exam: {path: exam.jsonl}
objective: {target: exam}
"""


@pytest.fixture
def load(tmp_path):
    def read(text, *overrides):
        path = tmp_path / "experiment.yaml"
        path.write_text(text)
        return load_config(path, overrides)

    return read


def test_text_is_not_an_experiment(tmp_path):
    path = tmp_path / "web.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(
        ConfigError, match="is text, not an experiment; write one with: mixopt init"
    ):
        load_config(path)


@pytest.mark.parametrize("addition", ["", "design: {max_usage: null}\n"])
def test_what_is_resolved_reads_back_the_same(load, addition):
    config = load(GOOD + addition)
    text = yaml.safe_dump(dump_config(config))
    assert load(text) == config


def test_guardrails_of_one_word_are_recorded_as_what_they_mean(load):
    config = load(GOOD + "constraints: {guardrails: natural}\n")
    assert dump_config(config)["constraints"]["guardrails"] == {
        "reference": "natural",
        "margin": 0.02,
        "targets": {},
    }

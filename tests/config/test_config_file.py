"""A configuration reads back as it was resolved, keeps no password, and harms nobody."""

import os

import pytest
import yaml

from mixopt import Mixture
from mixopt.config import dump_config, load_config, read_constraints, read_inventory
from mixopt.errors import ConfigError, MixtureError
from mixopt.run_directory import open_run

GOOD = """\
corpus:
  domains:
    web: {path: web.jsonl}
    code: {path: code.jsonl}
evaluation:
  exam: {path: exam.jsonl}
objective: {target: exam}
"""
URI = "http://me:s3cret-w0rd@127.0.0.1:5000"


def test_text_is_not_an_experiment_and_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "web.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(ConfigError, match="is text, not an experiment; write one with: mixopt ini"):
        load_config(path)
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read: it is not a file"):
        load_config(tmp_path / "a.yaml")


def test_what_is_resolved_reads_back_the_same_and_a_word_as_what_it_means(load):
    config = load(GOOD + "design: {max_usage: null}\nconstraints: {guardrails: natural}\n")
    resolved = dump_config(config)
    assert load(resolved) == config
    guardrails = {"reference": "natural", "margin": 0.02, "targets": {}}
    assert resolved["constraints"]["guardrails"] == guardrails


def test_a_password_of_tracking_is_in_nothing_that_is_written_and_a_run_goes_on(load, tmp_path):
    config = load(GOOD, f"tracking.uri={URI}")
    assert config.tracking.uri.given == URI
    content = dump_config(config)
    assert content["tracking"]["uri"] == "http://***@127.0.0.1:5000"
    open_run(config, tmp_path / "run").log.begin("prepare")
    record = tmp_path / "run/config.yaml"
    texts = yaml.safe_dump(content), repr(config), config.model_dump_json(), record.read_text()
    assert not any("s3cret" in text for text in texts)
    for again in (load_config(record), config):
        assert open_run(again, tmp_path / "run").log.records["prepare"].seconds is None


@pytest.mark.parametrize("field", ["tracking.uri.x", "seed"])
def test_a_password_in_the_wrong_place_is_not_repeated(load, field):
    with pytest.raises(ConfigError) as found:
        load(GOOD, f"{field}={URI}")
    assert "s3cret" not in str(found.value)
    assert "\n" not in str(found.value)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
NEST = "[" * 20_000 + "]" * 20_000
ATTACKS = [
    (load_config, BOMB, "more than 100000 values, aliases counted"),
    (read_constraints, "a: &a [*a]\n", r"'\*a' is used inside the section that it names"),
    (lambda path: read_inventory(path, ["web"]), f"a: {NEST}\n", "more than 64 nested sections"),
    (Mixture.from_file, '"web\\nx": 1.0\n', r"domain 'web\\nx': a name has no control characters"),
]


@pytest.mark.parametrize(("read", "text", "message"), ATTACKS, ids=range(len(ATTACKS)))
def test_yaml_that_was_made_to_do_harm_is_one_line(read, text, message, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises((ConfigError, MixtureError), match=message) as found:
        read(path)
    assert str(found.value).startswith(str(path))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"proxy.options={NEST}", "more than 64 nested sections"),
        ('design={"a\\nb": 1}', r"design\.'a\\nb': unknown field"),
    ],
)
def test_an_override_is_measured_too_and_said_in_a_line(load, override, message):
    with pytest.raises(ConfigError, match=message) as found:
        load(GOOD, override)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 400

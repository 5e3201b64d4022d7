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


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("design: {trails: 3}", "yaml:8: design.trails: unknown field; did you mean 'trials'"),
        ("desing: {}", "yaml:8: desing: unknown field; did you mean 'design'?"),
        ("design:\n  trials: many", "yaml:9: design.trials: .*valid integer.*got 'many'"),
        ("design:\n  trials: -1", "yaml:9: design.trials: should be greater than 0, got -1"),
        ("fit: {folds: 1}", "yaml:8: fit.folds: should be greater than or equal to 2, got 1"),
        ("validate: {seeds: 1}", "yaml:8: validate.seeds: should be .* 3, got 1"),
        ("design: {max_weights: {wbe: 0.5}}", "unknown domain 'wbe'; did you mean 'web'?"),
        ("constraints:\n  bounds: {web: [0.1, 2]}", "yaml:9: constraints.bounds.web.1: .*got 2"),
        ("constraints: {max_epochs: 2}", "constraints.max_epochs: needs propose.target_tokens"),
        ("design: [1", "not valid YAML"),
        ("objective: {target: web}", "yaml:8: objective: given twice"),
        ("fit: {regressors: [linaer]}", "yaml:8: fit.regressors.0: unknown .* mean 'linear'"),
        ("proxy: {name: decodr}", "yaml:8: proxy.name: unknown proxy 'decodr'; did you mean"),
        ("proxy: {device: gpu}", "yaml:8: proxy.device: .*, got 'gpu'"),
        ("seed: 99999999999999999999", "yaml:8: seed: should be less than"),
        ("design: {min_strength: 9}", "yaml:8: design: min_strength 9 is above max_strength 5"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(load, addition, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(GOOD + addition + "\n")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("{target: exam}", "{target: exma}", "yaml:7: objective.target: unknown evaluation domain"),
        ("{target: exam}", "{}", "give exactly one of target, mean, worst; got none"),
        ("{target: exam}", "{target: exam, worst: [web]}", "exactly one"),
        ("exam: {path", "web: {path", "evaluation.web: is a training domain already"),
        ("web: {path", "../web: {path", "cannot be the name of a folder"),
        ("{path: code.jsonl}", "{}", "yaml:4: corpus.domains.code: give either"),
        ("{path: code.jsonl}", "{pth: code.jsonl}", "code.pth: unknown field; did you mean 'path'"),
        ("objective", "# objective", "yaml: objective: is missing"),
    ],
)
def test_a_wrong_value_is_named(load, before, after, message):
    with pytest.raises(ConfigError, match=message):
        load(GOOD.replace(before, after, 1))


def test_an_override_wins_and_is_named_when_wrong(load):
    assert load(GOOD, "design.trials=7").design.trials == 7
    with pytest.raises(ConfigError, match=r"--set design\.trails=7: design\.trails: unknown field"):
        load(GOOD, "design.trails=7")
    with pytest.raises(ConfigError, match="expected field=value"):
        load(GOOD, "design.trials")


def test_a_path_inside_a_domain_can_be_overridden(load):
    assert load(GOOD, "corpus.domains.web.path=/data/x").corpus.domains["web"].path == "/data/x"


def test_numbers_may_be_written_in_powers_of_ten(load):
    assert load(GOOD, "propose.target_tokens=25e9").propose.target_tokens == 25_000_000_000


@pytest.mark.parametrize("addition", ["", "design: {max_usage: null}\n"])
def test_what_is_resolved_reads_back_the_same(load, addition):
    config = load(GOOD + addition)
    text = yaml.safe_dump(dump_config(config))
    assert load(text) == config


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such file"):
        load_config(tmp_path / "absent.yaml")

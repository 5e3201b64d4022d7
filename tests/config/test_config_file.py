"""A configuration that cannot be right is one line with file, line and field."""

import pytest
import yaml
from pydantic import BaseModel, Field

from mixopt.config import chosen_losses, dump_config, load_config
from mixopt.config.yaml_sections import read_sections
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
        ("design:\n  trials: many", "yaml:9: design.trials: should be a valid integer, got 'many'"),
        ("design:\n  trials: -1", "yaml:9: design.trials: should be greater than 0, got -1"),
        ("fit: {folds: 1}", "yaml:8: fit.folds: should be greater than or equal to 2, got 1"),
        ("validate: {seeds: 1}", "yaml:8: validate.seeds: should be .* 3, got 1"),
        ("design: {max_weights: {wbe: 0.5}}", "unknown domain 'wbe'; did you mean 'web'?"),
        ("constraints:\n  bounds: {web: [0.1, 2]}", "yaml:9: constraints.bounds.web.1: .*got 2"),
        ("constraints: {max_epochs: 2}", "constraints.max_epochs: needs propose.target_tokens"),
        ("design: [1", "not valid YAML"),
        ("objective: {target: web}", "yaml:8: objective: given twice"),
        (
            "constraints:\n  guardrails: natral",
            "yaml:9: constraints.guardrails: unknown reference 'natral'; did you mean 'natural'",
        ),
        (
            "constraints:\n  guardrails:\n    targets: {'exma*': 0.1}",
            r"yaml:10: constraints.guardrails.targets.exma\*: 'exma\*' matches no evaluation dom",
        ),
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
        ("{target: exam}", "{}", "give exactly one of target, mean, worst, families; got none"),
        ("{target: exam}", "{target: exam, worst: [web]}", "exactly one"),
        (
            "{target: exam}",
            "\n  mean: {web: 1,\n    'exma*': 1}",
            r"yaml:9: objective.mean.exma\*: 'exma\*' matches no evaluation domain; the nearest are"
            " 'exam', ",
        ),
        (
            "{target: exam}",
            "\n  families:\n    a: {mean: {'*': 1}}\n    b: {mean: {'w*': 1}}",
            "yaml:8: objective.families: 'web' is in 'a' and in 'b'; name it in the one that it",
        ),
        (
            "{target: exam}",
            "\n  families:\n    a: {mean: {'x*': 1}}",
            r"yaml:9: objective.families.a.mean.x\*: 'x\*' matches no evaluation domain",
        ),
        (
            "{target: exam}",
            "{target: exam, direction: {'e*': higher, '*m': lower}}",
            r"yaml:7: objective.direction: 'exam' is matched by 'e\*' \(higher\) and by '\*m'",
        ),
        (
            "{target: exam}",
            "{target: exam, leave_out: noise}\ndesign: {replicates: 0}",
            "yaml:7: objective.leave_out: noise is estimated from replicates, but "
            "design.replicates is 0; raise it to 2 or more",
        ),
        ("exam: {path", "web: {path", "evaluation.web: is already a training domain"),
        ("web: {path", "../web: {path", "cannot be the name of a folder"),
        ("{path: code.jsonl}", "{}", "yaml:4: corpus.domains.code: give either"),
        ("{path: code.jsonl}", "{pth: code.jsonl}", "code.pth: unknown field; did you mean 'path'"),
        (
            "objective",
            "# objective",
            "yaml: objective: is missing; for example objective: {target:",
        ),
    ],
)
def test_a_wrong_value_is_named(load, before, after, message):
    with pytest.raises(ConfigError, match=message):
        load(GOOD.replace(before, after, 1))


def test_a_misspelt_section_is_not_missing_too(load):
    with pytest.raises(ConfigError, match="objectives: unknown field; did you mean") as told:
        load(GOOD.replace("objective", "objectives", 1))
    assert not any("is missing" in note for note in getattr(told.value, "__notes__", ()))


def test_a_missing_field_has_the_name_that_the_file_would_have(tmp_path):
    class Start(BaseModel):
        start: int = Field(alias="from")

    (tmp_path / "a.yaml").write_text("name: a\n")
    with pytest.raises(ConfigError, match=r"a.yaml: from: is missing$"):
        read_sections(tmp_path / "a.yaml", Start, example="from")


def test_text_is_not_an_experiment(tmp_path):
    path = tmp_path / "web.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(
        ConfigError, match="is text, not an experiment; write one with: mixopt init"
    ):
        load_config(path)


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


def test_globs_of_a_file_are_of_its_domains_and_targets(load):
    config = load(GOOD.replace("{target: exam}", "{mean: {'*': 1, 'e*': 2, web: 5}}"))
    assert chosen_losses(config.objective, ("web", "code", "exam")).weights == {
        "code": 1 / 9,
        "exam": 3 / 9,
        "web": 5 / 9,
    }


def test_guardrails_of_one_word_are_recorded_as_what_they_mean(load):
    config = load(GOOD + "constraints: {guardrails: natural}\n")
    assert dump_config(config)["constraints"]["guardrails"] == {
        "reference": "natural",
        "margin": 0.02,
        "targets": {},
    }

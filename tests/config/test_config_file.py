"""A configuration reads back as it was resolved, with the tree of its domains; it harms nobody."""

import json
import os

import pytest
import yaml
from refusals import refuses

from mixopt import Mixture
from mixopt.config import (
    ConstraintsConfig,
    MixedConfig,
    SweepConfig,
    domain_tree,
    dump_sections,
    load_config,
    read_constraints,
    read_inventory,
    token_count,
)
from mixopt.constraints import Constraints
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
    resolved = dump_sections(config)
    assert load(resolved) == config
    guardrails = {"reference": "natural", "margin": 0.02, "targets": {}}
    assert resolved["constraints"]["guardrails"] == guardrails


def test_a_password_of_tracking_is_in_nothing_that_is_written_and_a_run_goes_on(load, tmp_path):
    config = load(GOOD, f"tracking.uri={URI}")
    assert config.tracking.uri.given == URI
    content = dump_sections(config)
    assert content["tracking"]["uri"] == "http://***@127.0.0.1:5000"
    open_run(config, tmp_path / "run").log.begin("prepare")
    record = tmp_path / "run/config.yaml"
    texts = yaml.safe_dump(content), repr(config), config.model_dump_json(), record.read_text()
    assert not any("s3cret" in text for text in texts)
    for reopened in (load_config(record), config):
        assert open_run(reopened, tmp_path / "run").log.records["prepare"].seconds is None


@pytest.mark.parametrize("field", ["tracking.uri.x", "seed"])
def test_a_password_in_the_wrong_place_is_not_repeated(load, field):
    assert "s3cret" not in refuses(ConfigError, "tracking.uri|seed", load, GOOD, f"{field}={URI}")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
NEST = "[" * 20_000 + "]" * 20_000
ATTACKS = [
    (load_config, BOMB, "more than 100000 values, aliases counted"),
    (read_constraints, "a: &a [*a]\n", "more than 64 nested sections"),
    (lambda path: read_inventory(path, ["web"]), f"a: {NEST}\n", "nested"),
    (Mixture.from_file, '"web\\nx": 1.0\n', r"domain 'web\\nx': a name has no control characters"),
]


@pytest.mark.parametrize(("read", "text", "message"), ATTACKS, ids=range(len(ATTACKS)))
def test_yaml_that_was_made_to_do_harm_is_one_line(read, text, message, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert refuses((ConfigError, MixtureError), message, read, path).startswith(str(path))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"proxy.options={NEST}", "nested too deeply"),
        ('design={"a\\nb": 1}', r"design\.'a\\nb': unknown field"),
    ],
)
def test_an_override_is_measured_too_and_said_in_a_line(load, override, message):
    assert len(refuses(ConfigError, message, load, GOOD, override)) < 400


# --- Values and limits that are given on their own, as people write them --------------------------


def test_a_number_of_tokens_is_at_least_one_and_finite_and_a_duration_is_seconds():
    billions = {"25e9": 25, 2.5e9: 2.5, "50B": 50, "1T": 1000, "1.5m": 0.0015, 9e17: 9e8, 1.0: 1e-9}
    for written, count in billions.items():
        assert token_count(written) == round(count * 10**9)
    assert (token_count(None), token_count(10**17 + 1)) == (None, 10**17 + 1)
    for wrong in (0.5, 0, -1, 1e18, float("nan"), float("inf"), "1e18", "1e999999999", True):
        refuses(ConfigError, "is not a number of tokens from 1 to 1e18", token_count, wrong)
    with pytest.raises(ConfigError, match="--tokens: 'many' is not a number of tokens from 1 to"):
        token_count("many", "--tokens")
    written = {0.5: 0.5, "90": 90, "10m": 600, "1.5h": 5400}
    assert {item: SweepConfig(patience=item).patience for item in written} == written


def test_a_file_of_a_mixture_is_kept_as_its_weights(tmp_path):
    (tmp_path / "w.yaml").write_text("weights: {web: 0.25, code: 0.75}\n")
    parts = {name: {"path": f"{name}.jsonl"} for name in ("code", "web")}
    mixed = MixedConfig(domains=parts, mixture=str(tmp_path / "w.yaml"))
    assert mixed.shares == {"code": 0.75, "web": 0.25}
    (tmp_path / "w.yaml").write_text("- web\n")
    with pytest.raises(ValueError, match="w.yaml: expected 'weights:' with a number for each dom"):
        MixedConfig(domains=parts, mixture=str(tmp_path / "w.yaml"))


DOMAINS = ("web", "code", "tex")


def test_a_glob_is_of_every_domain_that_no_name_overrides_and_0_overrides_other_globs():
    found = ConstraintsConfig(bounds={"*": [0.05, 1], "tex": [0, 0.2]}).bounds_of(DOMAINS)
    assert found == {"web": (0.05, 1), "code": (0.05, 1), "tex": (0, 0.2)}
    for absent in ("tex", "t*"):
        config = ConstraintsConfig(bounds={absent: 0, "*": [0.05, 1]})
        allowed = Constraints.from_config(config, dict.fromkeys(DOMAINS, 10))
        assert allowed.upper_D.tolist() == [1.0, 1.0, 0.0]
        assert allowed.lower_D.tolist() == [0.05, 0.05, 0.0]
    found = ConstraintsConfig(bounds={"*e*": 0, "web": [0.1, 0.2]}).bounds_of(DOMAINS)
    assert found == {"web": (0.1, 0.2), "code": (0.0, 0.0), "tex": (0.0, 0.0)}


def test_changes_keep_the_other_limits_of_the_run(tmp_path):
    base = ConstraintsConfig(max_epochs=4, guardrails="natural", bounds={"web": [0, 0.3]})
    (tmp_path / "limits.yaml").write_text("constraints: {bounds: {'*': [0.05, 1]}}\n")
    found = base.with_changes(read_constraints(tmp_path / "limits.yaml"), DOMAINS)
    assert (found.max_epochs, found.guardrails) == ({"*": 4}, base.guardrails)
    assert found.bounds == {"web": (0.05, 0.3), "code": (0.05, 1), "tex": (0.05, 1)}
    named = base.with_changes(ConstraintsConfig(bounds={"web": [0.2, 0.8]}, max_epochs=8), DOMAINS)
    assert (named.bounds, named.max_epochs) == ({"web": (0.2, 0.8)}, {"*": 8})
    for absent in ("code", "c*"):
        without = found.with_changes(ConstraintsConfig(bounds={absent: 0}), DOMAINS)
        assert without.bounds == found.bounds | {"code": (0.0, 0.0)}
    cells = ("web/a", "web/b", "code")
    without = ConstraintsConfig(bounds={"web": 0.5}).with_changes(
        ConstraintsConfig(bounds={"web": 0}), cells
    )
    assert without.bounds == {"web/a": (0.0, 0.0), "web/b": (0.0, 0.0)}


TOKENS = ["corpus.domains.code.tokens=3e9", "corpus.domains.prose.tokens=1_000_000_000"]


def write(path, text):
    path.write_text(text)
    return str(path)


def sizes(config):
    return {name: (s.tokens, s.bytes) for name, s in config.corpus.domains.items()}


def test_a_file_of_sizes_becomes_part_of_the_configuration_and_may_leave_out_sized_domains(
    config_path, tmp_path
):
    file = write(tmp_path / "sizes.yaml", "code: 5e9\nprose: {bytes: 2e10}\n")
    config = load_config(config_path, [f"corpus.inventory={file}"])
    assert sizes(config) == {"code": (5 * 10**9, None), "prose": (None, 2 * 10**10)}
    assert "inventory" not in dump_sections(config)["corpus"]
    (tmp_path / "sizes.yaml").unlink()
    record = write(tmp_path / "record.yaml", yaml.safe_dump(dump_sections(config)))
    assert load_config(record) == config
    file = write(tmp_path / "sizes.yaml", "code: 5e9\n")
    config = load_config(config_path, [f"corpus.inventory={file}", TOKENS[1]])
    assert sizes(config) == {"code": (5 * 10**9, None), "prose": (10**9, None)}


def test_files_that_an_untrusted_record_names_are_not_read(config_path, tmp_path):
    file = write(tmp_path / "sizes.yaml", "code: 5e9\nprose: 1e9\n")
    hand = f"validate.baselines=[{{hand: {file}}}]"
    for override, message in (
        (f"corpus.inventory={file}", "inventory: .*: a recorded configuration contains the sizes"),
        (hand, "is a file; a recorded configuration must contain the weights"),
    ):
        refuses(ConfigError, message, load_config, config_path, [override], trust=False)


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ("code: 5e9", [], "sizes.yaml: domain 'prose' is missing; add its tokens or bytes"),
        ("code: {tokens: 1, bytes: 2}\nprose: 1", [], "code: give exactly one of tokens, bytes"),
        ("code: {}\nprose: 1", [], "exactly one of tokens, bytes; got none"),
        ("code: {bytes: -1}\nprose: 1", [], "code: bytes: should be greater than 0, got -1"),
        ("- code", [], "sizes.yaml: expected a number of tokens for each domain"),
        ("code: 2e9\nprose: 1e9", TOKENS, "domains.code: states a size, and .* too; keep one"),
    ],
)
def test_a_file_that_cannot_be_right_is_named(config_path, tmp_path, content, overrides, message):
    file = write(tmp_path / "sizes.yaml", content)
    with pytest.raises(ConfigError, match=message):
        load_config(config_path, [f"corpus.inventory={file}", *overrides])


def test_bytes_become_tokens_where_a_corpus_says_how():
    stated = {"code": {"bytes": 4_000_000_000}, "prose": 7}
    rates = {"code": 0.25, "prose": 0.5}
    found = read_inventory(stated, ["code", "prose"], tokens_per_byte=rates)
    assert found == {"code": 10**9, "prose": 7}
    message = "inventory: code: converting bytes to tokens needs a prepared"
    refuses(ConfigError, message, read_inventory, stated, ["code", "prose"])


TREE = """\
corpus:
  domains:
    web:
      science: {high: {path: a.jsonl}, low: {path: b.jsonl}}
      news: {path: c.jsonl}
    code: {path: d.jsonl}
objective: {target: code}
"""
CELLS = ("web/science/high", "web/science/low", "web/news", "code")
NATURAL = dict.fromkeys(CELLS, 100)


def rows(path, *values):
    cells = [{"topic": topic, "quality": quality, "text": "x"} for topic, quality in values]
    path.write_text("".join(json.dumps(cell) + "\n" for cell in cells))


def limits(**fields):
    return Constraints.from_config(read_constraints(fields), NATURAL, target_tokens=1_000)


def test_nested_domains_have_their_paths_as_names_and_none_is_a_branch_of_another(load):
    assert tuple(load(TREE).corpus.domains) == CELLS
    with pytest.raises(MixtureError, match="'web' is a domain and the branch of 'web/a'"):
        Mixture({"web": 0.5, "web/a": 0.5})


def test_columns_make_a_domain_for_each_pair_of_values_that_is_there(load, tmp_path):
    (tmp_path / "texts").mkdir()
    file = tmp_path / "texts/a.jsonl"
    rows(file, ("science", "high"), ("news", "low"), ("science", "high"))
    source = "{data_files: a.jsonl, path: json, by: [topic, quality]}"
    text = f"corpus: {{root: {tmp_path}/texts, domains: {{web: {source}}}}}\n"
    config = load(text + "objective: {target: web/news/low}\n")
    assert list(config.corpus.domains) == ["web/news/low", "web/science/high"]
    news = config.corpus.domains["web/news/low"]
    assert news.cell == {"topic": "news", "quality": "low"}
    assert news.under(config.corpus.root).data_files == str(file)
    file.unlink()  # what is resolved reads no columns again
    (tmp_path / "again.yaml").write_text(json.dumps(dump_sections(config)))
    assert load_config(tmp_path / "again.yaml", trust=False).corpus == config.corpus


def test_limits_of_a_branch_are_of_all_below_it_and_those_of_a_glob_of_each_domain():
    found = limits(bounds={"web": [0.2, 0.5], "*/low": 0.1})
    assert found.groups == {"web/*": (CELLS[:3], 0.2, 0.5)}
    assert found.upper_D.tolist() == [1.0, 0.1, 1.0, 1.0]
    found = limits(bounds={"web": 0, "*": [0.01, 1]})
    assert (found.groups, found.upper_D.tolist()) == ({}, [0.0, 0.0, 0.0, 1.0])
    found = limits(max_epochs={"web": 2}, groups={"a": {"domains": ["web"], "bounds": 0.4}})
    assert found.upper_D.tolist() == [0.2, 0.2, 0.2, 1.0]
    assert found.groups["a"] == (CELLS[:3], 0.4, 0.4)


@pytest.mark.parametrize(
    ("by", "third", "message"),
    [
        ("[topic, quality]", "c", "a.jsonl: rows without a value in column 'quality'; fill th"),
        ("[topc]", "c", "a.jsonl: no column 'topc'; did you mean 'topic'"),
        ("[topic], tokens: 5", "c", "web.tokens: each cell has its own"),
        ("[topic]", "a/b", "web.by: a value cannot be part of a name: 'a/b': a name has no '/'"),
        ("[topic]", "c", "web.by: 3 cells; the maximum is 2"),
        ("[topic], data_files: b.parquet", "c", "web.by: b.parquet: "),
    ],
)
def test_columns_that_cannot_name_domains_are_one_line(
    load, tmp_path, monkeypatch, by, third, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(domain_tree, "MAX_CELLS", 2)
    rows(tmp_path / "a.jsonl", ("science", "high"), ("news", None), (third, "x"))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    text = f"corpus: {{domains: {{web: {{path: a.jsonl, by: {by}}}}}}}\nobjective: {{target: web}}"
    refuses(ConfigError, message, load, text)
    recorded = "web.by: a recorded configuration must list"
    refuses(ConfigError, recorded, load_config, tmp_path / "experiment.yaml", trust=False)

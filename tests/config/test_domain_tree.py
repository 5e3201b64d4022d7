"""Domains nest or are read from columns; limits hold on any level of the tree."""

import json

import pytest
from refusals import refuses

from mixopt import Mixture
from mixopt.config import domain_tree, dump_config, load_config, read_constraints
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError, MixtureError

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
    (tmp_path / "again.yaml").write_text(json.dumps(dump_config(config)))
    assert load_config(tmp_path / "again.yaml", trust=False).corpus == config.corpus


def test_limits_of_a_branch_are_of_all_below_it_and_those_of_a_glob_of_each_domain():
    found = limits(bounds={"web": [0.2, 0.5], "*/low": 0.1})
    assert found.groups == {"web/*": (CELLS[:3], 0.2, 0.5)}
    assert found.upper_D.tolist() == [1.0, 0.1, 1.0, 1.0]
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

"""`proxy.from` and guardrails on it: what cannot be right is one line with its field."""

import yaml

from mixopt.config import dump_config, load_config
from mixopt.run_directory.steps import step_fingerprints

DOMAINS = {"web": {"path": "w.jsonl"}, "law": {"path": "l.jsonl"}}


def load(tmp_path, **sections):
    content = {"corpus": {"domains": DOMAINS}, "objective": {"target": "web"}} | sections
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_config(path)


def fingerprints(tmp_path, **proxy):
    config = load(tmp_path, proxy={"name": "continued", **proxy})
    return step_fingerprints(dump_config(config))


def test_another_hash_makes_the_sweep_another_one(tmp_path):
    one = fingerprints(tmp_path, **{"from": "a", "options": {"start_hash": "11"}})
    other = fingerprints(tmp_path, **{"from": "a", "options": {"start_hash": "22"}})
    assert one["design"] == other["design"]
    assert one["sweep"] != other["sweep"]


def test_the_path_of_the_same_weights_changes_nothing(tmp_path):
    one = fingerprints(tmp_path, **{"from": "a", "options": {"start_hash": "11"}})
    assert one == fingerprints(tmp_path, **{"from": "b", "options": {"start_hash": "11"}})


def test_experiments_from_random_weights_record_no_start(tmp_path):
    assert not {"from"} & dump_config(load(tmp_path))["proxy"].keys()

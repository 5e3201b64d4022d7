"""The fields of a trainer of one's own: where they may stand, and what they change."""

import pytest

from mixopt.config import dump_config, load_config
from mixopt.run_directory.steps import step_fingerprints

BASE = """\
corpus: {domains: {web: {environment: a}, code: {environment: b}}}
evaluation: {mmlu: {environment: c}}
objective: {target: mmlu}
proxy:
"""
RUN = "  name: command\n  run: train {seed}\n  result: m.json\n"


@pytest.fixture
def load(tmp_path):
    def loaded(proxy):
        path = tmp_path / "own.yaml"
        path.write_text(BASE + proxy)
        return load_config(path)

    return loaded


def test_the_fields_are_read_and_become_the_proxys_options(load):
    more = "  timeout: 2h\n  retries: 1\n  losses: {mmlu: 'mmlu_*'}\n  paths: {web: [a, b]}\n"
    assert load(RUN + more).proxy.all_options == {
        "run": "train {seed}",
        "result": "m.json",
        "timeout": 7200.0,
        "retries": 1,
        "losses": {"mmlu": "mmlu_*"},
        "paths": {"web": ["a", "b"]},
    }


def test_a_folder_is_the_same_one_wherever_a_worker_runs(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = load(RUN + "  folder: trainer\n").proxy.all_options
    assert options["folder"] == str(tmp_path / "trainer")


def test_a_configuration_without_them_does_not_name_them(load):
    assert set(dump_config(load("  name: ngram\n"))["proxy"]) == {
        "name", "tokens", "eval_tokens", "simulate_epochs", "device", "options"
    }  # fmt: skip


def test_patience_makes_no_trial_stale_and_the_command_does(load):
    def sweep(proxy):
        return step_fingerprints(dump_config(load(proxy)))["sweep"]

    assert sweep(RUN) == sweep(RUN + "  timeout: 5\n  retries: 2\n")
    assert sweep(RUN) != sweep(RUN.replace("{seed}", "{trial}"))
    assert sweep(RUN) != sweep(RUN + "  losses: x/{domain}\n")

"""The section `proxy`: a trainer of one's own, domains without text, and what trials begin with."""

import pytest

from mixopt.config import dump_config
from mixopt.run_directory.steps import step_fingerprints

BASE = {
    "corpus": {"domains": {"web": {"environment": "a"}, "code": {"environment": "b"}}},
    "evaluation": {"mmlu": {"environment": "c"}},
    "objective": {"target": "mmlu"},
}
RUN = {"name": "command", "run": "train {seed}", "result": "m.json"}
SIZED = {"web": {"tokens": 10**12}, "code": {"tokens": 2 * 10**11}}


@pytest.fixture
def fingerprint(load):
    def of(step, **sections):
        return step_fingerprints(dump_config(load(BASE | sections)))[step]

    return of


def test_the_fields_of_a_command_become_the_proxys_options(load, tmp_path, monkeypatch):
    more = {"retries": 1, "losses": {"mmlu": "mmlu_*"}, "paths": {"web": ["a", "b"]}}
    assert load(BASE | {"proxy": RUN | more | {"timeout": "2h"}}).proxy.all_options == {
        "run": "train {seed}",
        "result": "m.json",
        "timeout": 7200.0,
        **more,
    }
    monkeypatch.chdir(tmp_path)  # its folder is the same one wherever a worker runs
    options = load(BASE | {"proxy": RUN | {"folder": "trainer"}}).proxy.all_options
    assert options["folder"] == str(tmp_path / "trainer")
    assert set(dump_config(load(BASE | {"proxy": {"name": "ngram"}}))["proxy"]) == {
        "name", "tokens", "eval_tokens", "simulate_epochs", "device", "options"
    }  # fmt: skip


def test_patience_makes_no_trial_stale_and_the_command_does(fingerprint):
    own = fingerprint("sweep", proxy=RUN)
    assert own == fingerprint("sweep", proxy=RUN | {"timeout": 5, "retries": 2})
    assert own != fingerprint("sweep", proxy=RUN | {"run": "train {trial}"})
    assert own != fingerprint("sweep", proxy=RUN | {"losses": "x/{domain}"})


def test_the_size_of_a_domain_without_text_is_what_is_prepared(load, fingerprint):
    own = {"proxy": RUN, "evaluation": {"mmlu": {}}}
    own["objective"] = {"target": "mmlu", "unit": "nats_per_token"}
    config = load(BASE | own | {"corpus": {"domains": SIZED}})
    assert not config.corpus.domains["web"].has_text

    def of(tokens, **source):
        domains = SIZED | {"web": {"tokens": tokens}}
        domains = {name: one | source for name, one in domains.items()}
        return fingerprint("prepare", corpus={"domains": domains}, **own)

    assert of(10**12) != of(10**13)
    assert of(10**12, path="a.txt") == of(10**13, path="a.txt")


def test_other_weights_to_begin_with_make_another_sweep_and_their_path_does_not(load, fingerprint):
    def begun(step, path, weights):
        proxy = {"name": "continued", "from": path, "options": {"start_hash": weights}}
        return fingerprint(step, proxy=proxy)

    assert begun("sweep", "a", "11") == begun("sweep", "b", "11")
    assert begun("sweep", "a", "11") != begun("sweep", "a", "22")
    assert begun("design", "a", "11") == begun("design", "a", "22")
    assert not {"from"} & dump_config(load(BASE))["proxy"].keys()

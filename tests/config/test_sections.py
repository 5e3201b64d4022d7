"""Objectives over tasks and families, and a trainer of one's own: what is resolved and stale."""

import pytest
from refusals import refuses

from mixopt.config import dump_sections
from mixopt.errors import ConfigError
from mixopt.objective import Objective
from mixopt.run_directory.steps import FIT, PREPARE, step_differences, step_fingerprints

START = """\
corpus:
  domains:
    web: {path: w.jsonl}
    law: {path: l.jsonl}
"""
TASKS = """\
tasks:
  sets:
    arc: {path: arc.jsonl, family: knowledge}
    sciq: {path: sciq.jsonl, family: knowledge}
    eval: {path: eval.jsonl, family: coding}
    lambada: lambada.jsonl
"""
ARC, SCIQ = "task/arc/bits_per_byte", "task/sciq/bits_per_byte"
EVAL, LAMBADA = "task/eval/bits_per_byte", "task/lambada/bits_per_byte"


@pytest.fixture
def aimed(load):
    def of(objective, tasks=TASKS):
        config = load(f"{START}{tasks}objective: {objective}")
        return Objective.from_config(config.resolved_objective, config.losses)

    return of


@pytest.mark.parametrize(
    ("objective", "weights"),
    [
        ("{target: task/arc}", {ARC: 1.0}),
        ("{target: task/arc/bits_per_byte}", {ARC: 1.0}),
        ("{target: family/knowledge}", {ARC: 0.5, SCIQ: 0.5}),
        # A family is averaged first, and a task beside families is one of its own.
        ("{mean: {family/knowledge: 1, task/eval: 3}}", {ARC: 0.125, SCIQ: 0.125, EVAL: 0.75}),
        ("{worst: [family/coding, task/lambada]}", {EVAL: 1.0, LAMBADA: 1.0}),
        (
            "{families: {all: {mean: {family/knowledge: 2, task/eval: 1}}}, scale: spread}",
            {ARC: 0.4, SCIQ: 0.4, EVAL: 0.2},
        ),
    ],
)
def test_tasks_and_families_are_spelt_out_as_their_bits_per_byte(aimed, objective, weights):
    found = aimed(objective)
    assert found.weights == weights
    assert found.higher == ()
    found = aimed("{mean: {family/knowledge: 1, family/coding: 3}, scale: spread}")
    assert found.families == {"knowledge": (ARC, SCIQ), "coding": (EVAL,)}


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("{mean: {family/codin: 1}}", "no task has the family 'codin'; did you mean 'coding'"),
        ("{mean: {family/coding: 1, 'mmlu*': 1}}", "'mmlu[*]' is a glob, which cannot be combined"),
        ("{mean: {family/coding: 1, task/eval: 1}}", "is in 'coding' and in 'task/eval"),
        ("{mean: {task/lambada: 1, web: 1}, unit: nats_per_token}", "in different units; use a"),
    ],
)
def test_what_cannot_be_measured_is_said(aimed, objective, said):
    refuses(ConfigError, said, aimed, objective)


def test_the_family_of_a_task_changes_the_fit_alone_and_a_record_without_tasks_names_none(load):
    text = f"{START}{TASKS}objective: {{target: web}}"
    before, after = (dump_sections(load(t)) for t in (text, text.replace(": coding", ": code")))
    was, now = step_fingerprints(before), step_fingerprints(after)
    assert next(step for step in was if was[step] != now[step]) == "fit"
    found = list(step_differences(FIT, before, after))
    assert found == [("tasks.sets.eval.family", "coding", "code")]
    assert not list(step_differences(PREPARE, before, after))
    plain = dump_sections(load(f"{START}objective: {{target: web}}"))
    assert "tasks" not in plain
    assert "noise" not in plain["objective"]


# --- A trainer of one's own, domains without text, and what trials begin with ---------------------


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
        return step_fingerprints(dump_sections(load(BASE | sections)))[step]

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
    assert set(dump_sections(load(BASE | {"proxy": {"name": "ngram"}}))["proxy"]) == {
        "name", "tokens", "eval_tokens", "simulate_epochs", "device", "options"
    }  # fmt: skip


def test_patience_makes_no_trial_stale_and_the_command_does(fingerprint):
    expected = fingerprint("sweep", proxy=RUN)
    assert expected == fingerprint("sweep", proxy=RUN | {"timeout": 5, "retries": 2})
    assert expected != fingerprint("sweep", proxy=RUN | {"run": "train {trial}"})
    assert expected != fingerprint("sweep", proxy=RUN | {"losses": "x/{domain}"})


def test_the_size_of_a_domain_without_text_is_what_is_prepared(load, fingerprint):
    sections = {"proxy": RUN, "evaluation": {"mmlu": {}}}
    sections["objective"] = {"target": "mmlu", "unit": "nats_per_token"}
    config = load(BASE | sections | {"corpus": {"domains": SIZED}})
    assert not config.corpus.domains["web"].has_text

    def of(tokens, **source):
        domains = SIZED | {"web": {"tokens": tokens}}
        domains = {name: domain | source for name, domain in domains.items()}
        return fingerprint("prepare", corpus={"domains": domains}, **sections)

    assert of(10**12) != of(10**13)
    assert of(10**12, path="a.txt") == of(10**13, path="a.txt")


def test_other_weights_to_begin_with_make_another_sweep_and_their_path_does_not(load, fingerprint):
    def begun(step, path, weights):
        proxy = {"name": "continued", "from": path, "options": {"start_hash": weights}}
        return fingerprint(step, proxy=proxy)

    assert begun("sweep", "a", "11") == begun("sweep", "b", "11")
    assert begun("sweep", "a", "11") != begun("sweep", "a", "22")
    assert begun("design", "a", "11") == begun("design", "a", "22")
    assert not {"from"} & dump_sections(load(BASE))["proxy"].keys()

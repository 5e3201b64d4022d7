"""Microanneals from a checkpoint: replay is the base, and seeds change the order alone."""

import pytest
import yaml
from made_base import make_base

from mixopt.pipeline import AnnealAsked, anneal
from mixopt.reporting import anneals_json


@pytest.fixture(scope="module")
def run(tmp_path_factory, text_files, one_thread):
    folder = tmp_path_factory.mktemp("continued")
    texts = {name: text_files[name] for name in ("code", "prose")}
    base = make_base(folder, texts)
    parts = {name: {"path": str(path)} for name, path in texts.items()}
    content = {
        "name": "continued",
        "corpus": {
            "domains": {
                "help": {"path": str(text_files["help"])},
                "more": {"path": str(text_files["code"])},
                "replay": {"mixed": {"domains": parts, "mixture": {"code": 0.5, "prose": 0.5}}},
            }
        },
        "proxy": {
            "name": "continued",
            "from": str(base),
            "tokens": 2_048,
            "eval_tokens": 1_024,
            "device": "cpu",
            "options": {"precision": "float32", "compile": False},
        },
        "sweep": {"workers": 1},
        "objective": {"mean": {"help": 1, "code": 1}},
        "constraints": {"guardrails": {"reference": "base", "margin": 0.0}},
        "tracking": {"enabled": False},
    }
    path = folder / "anneals.yaml"
    path.write_text(yaml.safe_dump(content))
    return anneal(path, folder / "run", AnnealAsked(("help", "more"), 0.5, 2))


def test_the_base_is_the_replay_alone(run):
    assert dict(run.anneals.base) == {"help": 0.0, "more": 0.0, "replay": 1.0}
    assert run.config.constraints.proportions is None


def test_a_source_is_best_on_its_own_text(run):
    assert run.anneals.ranks("help")["help"] == 1
    assert run.anneals.ranks("code")["more"] == 1


def test_what_the_parts_of_the_replay_lose_is_a_cost(run):
    name, cost = run.anneals.largest_cost("help")
    assert name in {"prose", "replay", "more"}
    assert cost.mean > 0


def test_guardrails_on_the_checkpoint_compare_with_its_losses(run):
    found, base = run.anneals, run.base_losses
    worse = {
        name
        for name in run.losses
        if found.control_loss(name) + found.effect("help", name).mean > base[name]
    }
    assert set(anneals_json(run)["sources"]["help"]["guardrails_broken"]) == worse

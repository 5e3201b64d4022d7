"""Other questions to a run start from its own limits."""

from __future__ import annotations

import json
import shutil

import pytest
from command_line import mixopt as command

from mixopt import Mixture, load_run, predict
from mixopt.config import ConstraintsConfig


@pytest.fixture(scope="module")
def bounded(finished, tmp_path_factory):
    """A copy of the run, in which the share of code is at most 80%."""
    return shutil.copytree(finished, tmp_path_factory.mktemp("bounded") / "run")


def weights(*words):
    ended = command("propose", *words, "--json")
    assert ended.code == 0, ended.error
    return json.loads(ended.out)["weights"]


def test_another_target_keeps_the_constraints_of_the_run(bounded):
    assert 0.7 < weights(bounded, "--target", "code")["code"] <= 0.8 + 1e-9


def test_a_file_of_a_mixture_is_predicted_as_its_weights(bounded, tmp_path):
    own = {"code": 0.3, "prose": 0.7}
    (tmp_path / "own.yaml").write_text(json.dumps(own))
    run, path = load_run(bounded), str(tmp_path / "own.yaml")
    found = [run.predict(one, tokens="1B") for one in (own, path, Mixture(own))]
    found += [predict(bounded, one, tokens=10**9) for one in (own, path, Mixture(own))]
    assert all(one.to_json() == found[0].to_json() for one in found)
    assert found[0].predicted.epochs["code"] == pytest.approx(0.3 / 20)
    for fields in ({"bounds": {"code": 0.25}}, ConstraintsConfig(bounds={"code": 0.25})):
        assert run.propose(constraints=fields).mixture["code"] == pytest.approx(0.25)


def test_an_answer_does_not_overwrite_another(bounded):
    for _ in range(3):
        weights(bounded, "--target", "help")
    names = {path.name for path in (bounded / "proposals").glob("help*")}
    assert names == {"help.yaml", "help-2.yaml", "help-3.yaml"}


def test_what_is_not_free_keeps_its_share_of_a_mixture(bounded, tmp_path):
    domains = list(weights(bounded))
    held = dict.fromkeys(domains, 1 / len(domains))
    (tmp_path / "ours.yaml").write_text(json.dumps(held))
    first, second, *others = domains
    found = weights(bounded, "--free", f"{first}={tmp_path}/ours.yaml", "--free", second)
    assert {name: found[name] for name in others} == pytest.approx({n: held[n] for n in others})


def test_a_run_holds_the_rest_at_what_it_recommends(bounded):
    first, *_ = weights(bounded)
    ended = command("propose", bounded, "--free", first)
    assert ended.code == 2
    assert f"--free {first}: the other domains fix the share of a single one" in ended.error

"""A sweep whose proxy has experts keeps what they were given, marks trials, and keeps away."""

import json
import shutil

import pytest
import yaml

import mixopt
from mixopt import propose
from mixopt.errors import RunError
from mixopt.run_directory import collapsed_trials

SAID: list[str] = []


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run that took all steps."""
    folder = tmp_path_factory.mktemp("sweep")
    domains = {}
    for name in ("code", "manual"):
        text = [json.dumps({"text": f"{name} " * 50 + str(k)}) for k in range(40)]
        (folder / f"{name}.jsonl").write_text("\n".join(text))
        domains[name] = {"path": "json", "data_files": str(folder / f"{name}.jsonl")}
    content = {
        "name": "routed",
        "corpus": {"domains": domains, "tokenizer": "bytes"},
        "design": {"trials": 16, "replicates": 1, "max_usage": 50},
        "proxy": {"name": "experts_proxy:Routed", "tokens": 100},
        "sweep": {"workers": 1},
        "fit": {"regressors": ["linear"], "folds": 3},
        "objective": {"target": "code"},
        "propose": {"samples": 500, "bootstrap": 2},
        "validate": {"seeds": 3, "baselines": ["natural"]},
        "tracking": {"enabled": False},
    }
    (folder / "routed.yaml").write_text(yaml.safe_dump(content))
    return mixopt.run(folder / "routed.yaml", folder / "run", say=SAID.append)


def shares(run) -> dict[str, float]:
    return dict(zip(run.trials.table["trial"], run.trials.weights()[:, 0], strict=True))


def test_trials_whose_experts_collapse_are_marked_and_named_and_a_proposal_beside_them_warned_of(
    done,
):
    marked = collapsed_trials(done.path)
    assert set(marked) == {name for name, code in shares(done).items() if code > 0.7}
    assert 1 < len(marked) < len(done.trials)
    (line,) = (line for line in SAID if line.startswith("sweep: experts collapsed"))
    counts = f"collapsed in {len(marked)} of {len(done.trials)} trials"
    assert counts in line
    assert done.proposal.mixture["code"] > 0.9
    assert "the nearest to the proposal, collapsed" in " ".join(done.proposal.warnings)
    page = (done.path / "report.html").read_text()
    for said in ("<h3>Experts</h3>", counts, "layer 1: collapse: expert 0"):
        assert said in page
    for name in ("experts_load", "experts_domains"):
        assert (done.path / f"figures/{name}.svg").exists()


def test_a_dense_proxy_leaves_none_and_what_was_there_goes_with_the_trials(done, tmp_path):
    out = shutil.copytree(done.path, tmp_path / "run")
    dense = ["proxy.options.experts=false"]
    with pytest.raises(RunError, match="experts"):
        mixopt.run(done.source, out, overrides=dense, until="sweep")
    mixopt.run(done.source, out, overrides=dense, redo="sweep")
    assert not list(out.glob("*experts.parquet"))
    assert collapsed_trials(out) is None
    assert "Experts" not in (out / "report.html").read_text()


def test_a_guardrail_keeps_the_proposal_away_from_them(done):
    proposal = propose(done.path, constraints={"guardrails": {"experts": True}})
    code = proposal.mixture["code"]
    above = min(share for share in shares(done).values() if share > 0.7)
    below = max(share for share in shares(done).values() if share <= 0.7)
    assert code == pytest.approx((above + below) / 2, abs=0.01), "as much code as is allowed"
    assert code <= (above + below) / 2 + 1e-6
    assert any("constraints.guardrails.experts" in item for item in proposal.binding)
    assert not any("collapsed: mixopt" in warning for warning in proposal.warnings)

"""A sweep whose proxy has experts keeps what they were given, marks trials, and keeps away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

import mixopt
from mixopt import propose
from mixopt.errors import RunError
from mixopt.run_directory import collapsed_trials


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
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
    path = folder / "routed.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def done(config, said):
    """A run that took all steps."""
    return mixopt.run(config, config.parent / "run", say=said.append)


def shares(run) -> dict[str, float]:
    return dict(zip(run.trials.table["trial"], run.trials.weights()[:, 0], strict=True))


def test_trials_whose_experts_collapse_are_marked_and_named(done, said):
    marked = collapsed_trials(done.path)
    assert set(marked) == {name for name, code in shares(done).items() if code > 0.7}
    assert 1 < len(marked) < len(done.trials)
    line = next(line for line in said if line.startswith("sweep: experts collapsed"))
    assert f"collapsed in {len(marked)} of {len(done.trials)} trials" in line


def test_a_dense_proxy_leaves_none_and_what_was_there_goes_with_the_trials(done, config, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(config.parent / "run", out)
    dense = ["proxy.options.experts=false"]
    with pytest.raises(RunError, match="experts"):
        mixopt.run(config, out, overrides=dense, until="sweep")
    mixopt.run(config, out, overrides=dense, redo="sweep")
    assert not list(out.glob("*experts.parquet"))
    assert collapsed_trials(out) is None
    assert "Experts" not in (out / "report.html").read_text()


def test_a_proposal_beside_collapsed_trials_is_warned_of(done):
    assert done.proposal.mixture["code"] > 0.9
    assert any("the nearest to the proposal, collapsed" in one for one in done.proposal.warnings)


def test_a_guardrail_keeps_the_proposal_away_from_them(done, config, tmp_path):
    limits = tmp_path / "limits.yaml"
    limits.write_text("guardrails: {experts: true}")

    proposal = propose(done.path, constraints=limits)
    code = proposal.mixture["code"]
    above = min(one for one in shares(done).values() if one > 0.7)
    below = max(one for one in shares(done).values() if one <= 0.7)
    assert code == pytest.approx((above + below) / 2, abs=0.01), "as much code as is allowed"
    assert code <= (above + below) / 2 + 1e-6
    assert any("constraints.guardrails.experts" in one for one in proposal.binding)
    assert not any("collapsed: mixopt" in one for one in proposal.warnings)


def test_the_report_shows_the_experts_of_the_proposal(done):
    page = (done.path / "report.html").read_text()
    assert "<h3>Experts</h3>" in page
    assert "layer 1: collapse" in page
    for name in ("experts_load", "experts_domains"):
        assert (done.path / f"figures/{name}.svg").exists()
    marked = len(collapsed_trials(done.path))
    assert f"collapsed in {marked} of {len(done.trials)} trials" in page
    assert "layer 1: collapse: expert 0" in page

"""Microanneals as a run: what is trained, what is said, and what is combined."""

import polars as pl
import pytest
import yaml
from made_run import domain_names, made_config

from mixopt import load_run, run
from mixopt.errors import InfeasibleError, RunError
from mixopt.tracking import outcomes

SOURCES = ["code_news", "maths_news", "books_news"]


def experiment(folder, **changes):
    """Write an experiment of six domains, three of them sources; return its file."""
    content = made_config(folder, 6) | {
        "design": {"method": "anneals", "anneals": {"sources": SOURCES}},
        "constraints": {},
        "validate": {"seeds": 3, "rounds": 1, "max_seeds": 3, "baselines": ["control"]},
        "fit": {"regressors": ["log_linear"], "folds": 3},
    }
    path = folder / "made.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def test_the_control_and_each_source_are_trained_with_every_seed_and_ranked(tmp_path):
    lines = []
    finished = run(experiment(tmp_path), tmp_path / "run", until="sweep", say=lines.append)
    table = finished.trials.table
    assert table["role"].value_counts().sort("role").rows() == [("anneal", 9), ("control", 3)]
    exam = load_run(finished.path).anneals.filter(pl.col("target") == "exam")
    assert set(exam["source"]) == set(SOURCES)
    assert exam["source"][-1] == "books_news"
    said = [line for line in lines if line.startswith("sweep: ") and "3 seeds" in line]
    assert {name for line in said for name in SOURCES if name in line} == set(SOURCES)
    assert len(said) == 3
    found = outcomes.run_outcome(finished)
    effects = load_run(finished.path).anneals.filter(pl.col("target").is_null())
    for name, difference in effects.select("source", "difference").iter_rows():
        assert found[f"anneal_gain/{name}"] == pytest.approx(difference)
    for name in SOURCES:
        low, high = found[f"anneal_gain_low/{name}"], found[f"anneal_gain_high/{name}"]
        assert low < found[f"anneal_gain/{name}"] < high


def test_a_source_without_tokens_enough_is_refused_and_a_run_of_mixtures_has_no_anneals(tmp_path):
    limits = {"constraints": {"max_epochs": 1}, "propose": {"target_tokens": 1e12}}
    with pytest.raises(InfeasibleError):
        run(experiment(tmp_path, **limits), tmp_path / "run", until="design")
    plain = {"design": {"trials": 4}, "validate": {}}
    finished = run(experiment(tmp_path, **plain), tmp_path / "plain", until="design")
    with pytest.raises(RunError, match="method: anneals makes some"):
        _ = finished.anneals


@pytest.mark.nightly
def test_the_steps_behind_the_sweep_combine_the_sources(tmp_path):
    base = [name for name in domain_names(6) if name not in SOURCES]
    path = experiment(tmp_path, constraints={"proportions": {"base": base}})
    finished = run(path, tmp_path / "run")
    control = finished.trials.weights()[finished.trials.table["role"].to_list().index("control")]
    weights = finished.recommendation.mixture.over(finished.trials.domains).array
    parts = [finished.trials.domains.index(name) for name in base]
    ratios = control[parts] / control[parts].sum()
    assert weights[parts] == pytest.approx(ratios * weights[parts].sum(), abs=1e-6)
    assert "control" in finished.validation.differences

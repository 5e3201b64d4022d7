"""A worker that stops, dies or hangs costs its own training, and nothing else."""

import re

import pytest
from work_runs import faulty_job, noted, trials_named

from mixopt.config import SweepConfig
from mixopt.sweeps import run_trials


def swept(folder, corpus, said, *, patience=600.0, **options):
    """Train six trials, a to f, by a faulty proxy and one worker; return the results in order."""
    job, trials = faulty_job(folder, corpus.path, **options), trials_named(*"abcdef")
    sweep = SweepConfig(workers=1, patience=patience)
    return run_trials(trials, job, folder / "trials", sweep=sweep, say=said.append)


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    """The results of a sweep in which nothing goes wrong."""
    return swept(tmp_path_factory.mktemp("undisturbed"), corpus, [])


def test_a_stopped_worker_is_replaced_within_patience(corpus, undisturbed, tmp_path):
    said, patience = [], 1.5
    assert swept(tmp_path, corpus, said, fault="stop", at="c", patience=patience) == undisturbed
    log = tmp_path / "trained.log"
    assert sorted(noted(log, "ended")) == ["a,b", "c,d", "e,f"]
    lines = log.read_text().splitlines()
    first, second = (float(line.split()[1]) for line in lines if re.match("began .* c,d", line))
    # A second for the new worker's start, on a busy machine several.
    assert patience <= second - first < patience + 6
    assert "retrying c and 1 more" in said[0]
    assert "made no progress for 1." in said[0]


@pytest.mark.parametrize("fault", ["hang", "sleep"])
def test_a_worker_whose_heart_beats_and_nothing_moves_is_replaced(
    corpus, undisturbed, tmp_path, fault
):
    said = []
    assert swept(tmp_path, corpus, said, fault=fault, at="c", patience=1.5) == undisturbed
    assert "made no progress for 1." in said[0]
    assert "while training" in said[0]

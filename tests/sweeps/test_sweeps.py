"""A sweep loses nothing: failures, divergence, killed workers and killed sweeps included."""

import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from work_runs import faulty_job, noted, trials_named

from mixopt.config import SweepConfig
from mixopt.errors import CorpusError
from mixopt.sweeps import (
    Ended,
    GroupRunner,
    LocalExecutor,
    Site,
    run_trials,
    trial_files,
    trial_paths,
)
from mixopt.sweeps.groups import Beat, GroupResult, read_result, write_beat, write_result

ALONE = SweepConfig(workers=1)


@pytest.fixture
def make_job(corpus, tmp_path):
    return partial(faulty_job, tmp_path, corpus.path)


def trained(job) -> list[str]:
    groups = noted(Path(job.options["log"]), "ended")
    return [name for names in groups for name in names.split(",")]


def test_every_trial_has_a_result_in_its_place_and_is_not_trained_again(make_job, tmp_path):
    job, trials, folder = make_job(), trials_named(*"abcde"), tmp_path / "trials"
    results = run_trials(trials, job, folder, sweep=SweepConfig(workers=2))
    assert [result.trial for result in results] == ["a", "b", "c", "d", "e"]
    assert [r.losses.nats_per_token["code"] for r in results] == [1.0, 1.2, 1.4, 1.6, 1.8]
    assert run_trials(trials, job, folder, sweep=ALONE) == results
    assert sorted(trained(job)) == ["a", "b", "c", "d", "e"]


def test_a_worker_that_is_killed_takes_only_its_own_half_group_along(make_job, tmp_path):
    job = make_job(fault="kill", at="a", times=9)
    results = run_trials(trials_named(*"abcde"), job, tmp_path / "trials", sweep=ALONE)
    assert [r.status for r in results] == ["failed"] + ["finished"] * 4
    assert results[0].reason.startswith("tried twice: the worker ended with signal SIGKILL; out of")


@pytest.fixture
def job_that_changes_its_corpus(make_job, corpus, tmp_path):
    shutil.copytree(corpus.path, tmp_path / "corpus")
    return lambda how: replace(make_job(fault=how, at="a"), corpus=tmp_path / "corpus")


@pytest.mark.parametrize(
    ("how", "message"),
    [("damage", r"hash|altered|damaged"), ("replace", r"changed while trials trained on it")],
)
def test_nothing_is_kept_of_a_group_whose_corpus_changed(
    job_that_changes_its_corpus, tmp_path, how, message
):
    trials, folder = trials_named("a", "b", "c"), tmp_path / "trials"
    with pytest.raises(CorpusError, match=message):
        run_trials(trials, job_that_changes_its_corpus(how), folder, sweep=ALONE)
    assert not list(folder.glob("[!.]?.json"))


def test_a_change_of_modes_ends_no_sweep(job_that_changes_its_corpus, tmp_path):
    job = job_that_changes_its_corpus("mode")
    assert len(run_trials(trials_named("a", "b"), job, tmp_path / "trials", sweep=ALONE)) == 2


def test_a_kill_between_two_files_of_a_group_trains_nothing_twice(make_job, tmp_path, monkeypatch):
    job, trials, folder = make_job(), trials_named("a", "b"), tmp_path / "trials"
    write = trial_files.write_sealed

    def write_until_killed(path, content):
        if path.name == "b.json":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(trial_files, "write_sealed", write_until_killed)
    with pytest.raises(KeyboardInterrupt):
        run_trials(trials, job, folder, sweep=ALONE)
    assert [path.name for path in trial_paths(folder)] == ["a.json"]
    monkeypatch.undo()
    assert len(run_trials(trials, job, folder, sweep=ALONE)) == 2
    assert trained(job) == ["a", "b"]


def train(job, site, trials, *, whole=True):
    """Train a group; unless `whole`, stop before its folder is deleted, as a killed owner does."""
    with GroupRunner(job, site.folder, LocalExecutor(site)) as runner:
        (outcome, *_) = runner.run([trials]) if whole else [next(runner.run([trials]))]
    return outcome


def test_results_left_by_a_killed_owner_are_used_and_not_trained_again(make_job, tmp_path):
    """Its worker has written the result of a group; the owner has not read it."""
    job, trials, site = make_job(), trials_named("a", "b"), Site(tmp_path, device="cpu", workers=1)
    train(job, site, trials, whole=False)
    assert len(list((tmp_path / "work").glob("a-*/result.json"))) == 1
    outcome = train(job, site, trials)
    assert [result.trial for result in outcome.results] == ["a", "b"]
    assert trained(job) == ["a", "b"]
    assert not list((tmp_path / "work").glob("a-*"))


def test_a_failure_that_a_stopped_owner_has_left_is_trained_again(make_job, tmp_path):
    job, trials, site = make_job(), trials_named("a"), Site(tmp_path, device="cpu", workers=1)
    train(job, site, trials, whole=False)
    (left,) = (tmp_path / "work").glob("a-*")
    result = read_result(left)
    failed = [replace(item, status="failed", losses=None) for item in result.results]
    write_result(left, result.model_copy(update={"results": failed}))
    outcome = train(job, site, trials)
    assert [item.status for item in outcome.results] == ["finished"]
    assert trained(job) == ["a", "a"]


def test_results_of_another_job_or_corpus_are_not_used(make_job, tmp_path, corpus):
    corpus = shutil.copytree(corpus.path, tmp_path / "corpus")
    job, trials = replace(make_job(), corpus=corpus), trials_named("a")
    site = Site(tmp_path / "trials", device="cpu", workers=1)

    train(job, site, trials, whole=False)
    train(replace(job, made_by="another"), site, trials, whole=False)
    (corpus / "index.json").touch()
    train(job, site, trials, whole=False)
    assert trained(job) == ["a", "a", "a"]


def test_paths_of_a_sweep_are_absolute(make_job, tmp_path, monkeypatch):
    """A worker may have another working directory than the owner."""
    monkeypatch.chdir(tmp_path)
    job = make_job(lie="files", at="a")
    (result,) = run_trials(trials_named("a"), job, Path("trials"), sweep=ALONE)
    assert result.reason == str(tmp_path / "trials" / "files")


class Vanishing(LocalExecutor):
    """Its nodes go away, after a first heartbeat or before any."""

    def __init__(self, site, beats):
        super().__init__(site)
        self.beats, self.states_given = beats, 0

    def start(self, folders):
        for folder in folders if self.beats else ():
            where = {"node": "n1", "kind": "L4", "gpus": 1.0}
            write_beat(folder, Beat(doing="training", seconds=5.0, **where))
        return list(map(str, folders))

    def states(self, handles):
        self.states_given += 1
        gone = Ended("the node is gone", "lost") if self.states_given > 3 else "running"
        return dict.fromkeys(handles, gone)

    def cancel(self, handles):
        pass


@pytest.mark.parametrize("beats", [True, False])
def test_a_lost_attempt_reports_the_seconds_it_cost(make_job, tmp_path, beats):
    executor = Vanishing(Site(tmp_path, device="cpu", workers=1), beats)
    with GroupRunner(make_job(), tmp_path, executor) as runner:
        (outcome,) = runner.run([trials_named("a")])
    assert (outcome.fault, outcome.beat.kind) == ("lost", "L4" if beats else "cpu")
    assert outcome.beat.seconds == 5.0 if beats else 0.02 < outcome.beat.seconds < 5.0


class Ending(Vanishing):
    """Its group has a result at once."""

    def start(self, folders):
        for folder in folders:
            write_beat(folder, Beat(doing="training", done=900, seconds=5.0))
            write_result(folder, GroupResult(error="no such layer"))
        return list(map(str, folders))


def test_progress_includes_a_group_s_tokens_until_its_results_arrive(make_job, tmp_path):
    """Otherwise the progress bar would jump back whenever a group ends."""
    executor, shown = Ending(Site(tmp_path, device="cpu", workers=1), beats=True), []
    with GroupRunner(make_job(), tmp_path, executor, report=shown.extend) as runner:
        list(runner.run([trials_named("a")]))
    assert [beat.done for beat in shown] == [900]


class Hanging(Vanishing):
    """Its group stands still while it trains."""

    cancelled = ()

    def start(self, folders):
        for folder in folders:
            write_beat(folder, Beat(doing="training", seconds=5.0, moves=1))
        return list(map(str, folders))

    def states(self, handles):
        return dict.fromkeys(handles, "running")

    def cancel(self, handles):
        self.cancelled = (*self.cancelled, *handles)


def test_a_group_without_progress_is_stopped_and_may_be_retried(make_job, tmp_path):
    executor = Hanging(Site(tmp_path, device="cpu", workers=1), beats=True)
    with GroupRunner(make_job(), tmp_path, executor, patience=0.1) as runner:
        (outcome,) = runner.run([trials_named("a")])
    assert re.match(r"the worker made no progress for 0\.\d s while training", outcome.reason)
    assert outcome.fault == "died"
    assert [Path(handle).name.partition("-")[0] for handle in executor.cancelled] == ["a"]


class Outliving(Hanging):
    """Its groups continue to train when the owner is killed."""

    outlives_owner, started = True, 0

    def start(self, folders):
        self.started += len(folders)
        return super().start(folders)

    def states(self, handles):
        if self.started:
            raise KeyboardInterrupt
        for handle in handles:
            write_result(Path(handle), GroupResult(error="no such layer"))
        return dict.fromkeys(handles, "waiting")


def test_groups_that_outlive_a_killed_owner_are_followed_and_stopped_by_the_next(
    make_job, tmp_path
):
    job, groups = make_job(), [trials_named("a"), trials_named("b")]
    first, second, third = (Outliving(Site(tmp_path, workers=1), beats=True) for _ in range(3))
    with pytest.raises(KeyboardInterrupt):
        list(GroupRunner(job, tmp_path, first).run([[*group] for group in groups[:1]]))
    with GroupRunner(job, tmp_path, second) as runner:
        (outcome,) = runner.run(groups[:1])
    assert (outcome.reason, second.started) == ("no such layer", 0)
    with pytest.raises(KeyboardInterrupt):
        list(GroupRunner(job, tmp_path, first).run(groups[1:]))
    (left,) = (tmp_path / "work").glob("b-*")
    with GroupRunner(job, tmp_path, third):
        pass
    assert third.cancelled == (str(left),)
    assert not left.exists()

"""check_executor passes the executors that are installed, and finds out those that break a promise.

The broken ones write results in this process, each with one thing changed.
"""

import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
from one_by_one import OneByOne

from mixopt.sweeps import Ended, LocalExecutor, RayExecutor, SlurmExecutor, train_group
from mixopt.sweeps.groups import GROUP, Beat, Group, write_beat, write_result
from mixopt.system import host_name, read_json, start_of, write_json
from mixopt.testing import check_executor
from mixopt.trials import Trial


class Sound:
    """Trains in this process; what would end it is known by a trial's name."""

    poll, queues, outlives_owner, slots = 0.01, False, False, 2

    def __init__(self, site):
        self.ended = {}

    def start(self, folders):
        for folder in folders:
            group = read_json(folder / GROUP, Group)
            kind = group.trials[0].name.partition("_")[0] if group.trials else ""
            self.ended[str(folder)] = Ended("the worker ended")
            if kind == "slow":
                self.ended[str(folder)] = "running"
            elif kind not in {"killed", "exits"}:
                result = self.result(group)
                write_beat(folder, Beat(seconds=0.1, node="here"))
                self.write(folder, result)
        return list(map(str, folders))

    def result(self, group):
        trials = [Trial(**dict(shape)) for shape in group.trials]
        heart = SimpleNamespace(report=lambda progress: None)
        try:
            return train_group.train_trials(train_group.load_job(group.job), trials, heart)
        except Exception as error:
            return train_group.failure(error)

    def write(self, folder, result):
        write_result(folder, result)

    def states(self, handles):
        return {handle: self.ended[handle] for handle in handles}

    def cancel(self, handles):
        pass

    def close(self):
        pass


class NoSlots(Sound):
    slots = 0


class TakesAnyOption(Sound):
    def __init__(self, site, **options):
        super().__init__(site)


class TunesNothing(Sound):
    """Says of a folder without trials that one trial fits."""

    def result(self, group):
        result = super().result(group)
        return result if group.trials else result.model_copy(update={"tuned": 1})


class GivesNoReason(Sound):
    def write(self, folder, result):
        if result.error is not None:
            result = result.model_copy(update={"error": "it failed"})
        super().write(folder, result)


class TrainsOnAnyCorpus(Sound):
    def result(self, group):
        job = replace(group.job, corpus_hash="")
        return super().result(group.model_copy(update={"job": job}))


class NeverEnds(Sound):
    def start(self, folders):
        return list(map(str, folders))

    def states(self, handles):
        return dict.fromkeys(handles, "running")


class LosesAResult(Sound):
    def write(self, folder, result):
        if not folder.name.startswith("plain_2"):
            super().write(folder, result)


class TakesADeathForALoss(Sound):
    def states(self, handles):
        return {handle: Ended("it is gone", "lost") for handle in handles}


class OtherResults(Sound):
    def write(self, folder, result):
        results = [replace(item, tokens=7) for item in result.results]
        super().write(folder, result.model_copy(update={"results": results}))


class LeavesItsWorkers(Sound):
    """Starts a process for the slow trial, and forgets it."""

    def start(self, folders):
        for folder in folders:
            group = read_json(folder / GROUP, Group)
            if group.trials and group.trials[0].name.startswith("slow"):
                left = subprocess.Popen(["sleep", "60"])
                started.append(left)
                name = {"host": host_name(), "pid": left.pid, "started": start_of(left.pid)}
                write_json(folder.parents[3] / "trained_by" / "left.json", name)
        return super().start(folders)


started = []


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    while started:
        started[-1].kill()
        started.pop().wait()


@pytest.fixture
def here(monkeypatch):
    """Count this process as none that an executor started."""
    from mixopt.testing import _executors

    monkeypatch.setattr(_executors.CheckedProxy, "_write_process", lambda self: None)
    monkeypatch.setattr(_executors, "ENDING", 0.3)


@pytest.mark.parametrize(
    ("factory", "promise"),
    [
        (TakesAnyOption, "an unknown option is refused"),
        (TunesNothing, "a folder without trials is tuned"),
        (GivesNoReason, "the reason contains the proxy's error"),
        (TrainsOnAnyCorpus, "a corpus with another hash is refused"),
        (NoSlots, "slots is a whole number >= 1. Broken: it is 0"),
        (LosesAResult, "trials that do not fail have results. Broken: ['plain_2'"),
        (TakesADeathForALoss, "a failed trial (killed) has the fault 'died'. Broken: 'lost'"),
        (OtherResults, "results equal those of direct training"),
        (LeavesItsWorkers, "leaving the context ends all its processes"),
        (NeverEnds, "each folder ends, with or without a result. Broken: no result after 2 s"),
    ],
)
def test_a_broken_promise_is_found_and_named(here, factory, promise):
    with pytest.raises(AssertionError) as caught:
        check_executor(factory, seconds=2.0)
    assert str(caught.value).startswith(f"an executor promises: {promise}")


@pytest.mark.nightly
@pytest.mark.parametrize("factory", [LocalExecutor, OneByOne])
def test_an_executor_of_processes_keeps_its_promises(factory):
    check_executor(factory)


def test_slurm_keeps_them(slurm_cluster, tmp_path_factory):
    check_executor(SlurmExecutor, folder=tmp_path_factory.mktemp("slurm"), seconds=240.0)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ray_keeps_them(ray_nodes):
    check_executor(RayExecutor, options={"address": ray_nodes.address}, seconds=240.0)


def test_a_sound_executor_keeps_its_promises_in_the_folder_given(here, tmp_path):
    seen = []

    class Asks(Sound):
        def __init__(self, site, queue="none"):
            seen.append((queue, site.folder.parents[1]))
            super().__init__(site)

    check_executor(Asks, options={"queue": "short"}, folder=tmp_path)
    assert set(seen) == {("short", tmp_path)}

"""check_executor passes the executors that are installed, and finds out those that break a promise.

The broken ones are an executor that trains in this process, each with one thing changed.
"""

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest
import slurm_cluster
from one_by_one import OneByOne

from mixopt.corpus import Corpus, corpus_hash
from mixopt.errors import CorpusError
from mixopt.sweeps import (
    FolderExecutor,
    GroupOutcome,
    LocalExecutor,
    Place,
    RayExecutor,
    SlurmExecutor,
)
from mixopt.system import only_one, write_json
from mixopt.testing import check_executor
from mixopt.trials import Losses, Progress, make_proxy


class Sound:
    """Trains in this process; what would end it is known by a trial's name."""

    def __init__(self, job, site):
        self.job, self.site, self.workers = job, site, 1
        self.place = Place("here")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def group_size(self):
        return make_proxy(self.job.proxy, self.job.options).group_size(None, None)

    def run(self, groups, report):
        done = set()
        while waiting := [number for number in groups if number not in done]:
            done.add(waiting[0])
            outcome = self.outcome(waiting[0], groups[waiting[0]], report)
            yield replace(outcome, place=self.place)

    def outcome(self, number, trials, report):
        members = trials[:2]
        report(number, Progress(0, 10), self.place)
        end = members[0].name.partition("_")[0]
        if end in {"killed", "exits"}:
            return GroupOutcome(number, reason="the worker ended", fault="died")
        if end == "slow":
            return GroupOutcome(number, reason="it takes too long")
        if end == "memory":
            return GroupOutcome(number, reason="MemoryError", fault="memory")
        if self.job.corpus_hash != corpus_hash(self.job.corpus):
            raise CorpusError("another corpus")
        try:
            results = self.trained(members)
        except ValueError as error:
            return GroupOutcome(number, reason=f"ValueError: {error}")
        return GroupOutcome(number, results, trained=len(members))

    def trained(self, members):
        corpus = Corpus.open(self.job.corpus, verify=False)
        proxy = make_proxy(self.job.proxy, self.job.options)
        return proxy.train(members, corpus, self.job.training, lambda progress: None)


class NoWorkers(Sound):
    workers = 0

    def __init__(self, job, site):
        super().__init__(job, site)
        self.workers = 0


class NoSize(Sound):
    def group_size(self):
        return 0


class SizeOfItsOwn(Sound):
    def group_size(self):
        return 64


class AnyOption(Sound):
    def __init__(self, job, site, **_):
        super().__init__(job, site)


class LosesOne(Sound):
    def run(self, groups, report):
        for outcome in super().run(groups, report):
            if outcome.group != 1:
                yield outcome


class AnswersTwice(Sound):
    def run(self, groups, report):
        for outcome in super().run(groups, report):
            yield outcome
            if outcome.group == 0:
                yield outcome


class NothingMore(Sound):
    def run(self, groups, report):
        yield from super().run(dict(groups), report)


class NeverEnds(Sound):
    def run(self, groups, report):
        import time

        if groups:
            time.sleep(60)
        yield from super().run(groups, report)


class NoProgress(Sound):
    def run(self, groups, report):
        yield from super().run(groups, lambda *_: None)


class ReportsNowhere(Sound):
    def run(self, groups, report):
        yield from super().run(groups, lambda group, done, _: report(group, done, Place("")))


class WasNowhere(Sound):
    def run(self, groups, report):
        for outcome in super().run(groups, report):
            yield replace(outcome, place=Place(""))


class OtherOrder(Sound):
    def trained(self, members):
        return super().trained(members)[::-1]


class OtherResults(Sound):
    def trained(self, members):
        losses = Losses(1, {"code": 1.0}, {"code": 1.0})
        return [replace(result, losses=losses) for result in super().trained(members)]


class DropsWhatIsOver(Sound):
    def outcome(self, number, trials, report):
        found = super().outcome(number, trials, report)
        dropped = len(trials) > 2 and found.reason is None
        return replace(found, reason="no room for the third") if dropped else found


class TakesADeathForAReason(Sound):
    def outcome(self, number, trials, report):
        found = super().outcome(number, trials, report)
        return replace(found, fault=None)


class TakesAReasonForADeath(Sound):
    def outcome(self, number, trials, report):
        found = super().outcome(number, trials, report)
        return replace(found, fault="died") if found.reason else found


class KeepsReasons(Sound):
    def outcome(self, number, trials, report):
        found = super().outcome(number, trials, report)
        return replace(found, reason="it failed") if found.reason and not found.fault else found


class TrainsOnAnything(Sound):
    def __init__(self, job, site):
        super().__init__(replace(job, corpus_hash=corpus_hash(job.corpus)), site)


class LeavesItsWorkers(Sound):
    """Starts a process for the slow trial, and forgets it."""

    def outcome(self, number, trials, report):
        if trials[0].name == "plain_1" and len(trials) == 1:
            log = self.job.options["log"]
            from mixopt.system import host_name, start_of

            left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            started.append(left)
            name = {"host": host_name(), "pid": left.pid, "started": start_of(left.pid)}
            write_json(self.site.folder / ".." / log / "left.json", name)
        return super().outcome(number, trials, report)


started = []


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch):
    """A real Slurm of two nodes."""
    why = slurm_cluster.why_not()
    if why is not None:
        pytest.skip(why)
    cluster = slurm_cluster.SlurmCluster(tmp_path_factory.mktemp("slurm_daemons"))
    try:
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def ray_cluster(tmp_path_factory):
    """A real cluster of Ray of two nodes."""
    ray_nodes = pytest.importorskip("ray_nodes")
    cluster = ray_nodes.started(tmp_path_factory.mktemp("ray_nodes"))
    yield cluster
    ray_nodes.ended(cluster)


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    while started:
        process = started.pop()
        process.kill()
        process.wait()


@pytest.fixture
def here(monkeypatch):
    """Count this process as none that an executor started."""
    from mixopt.testing import _executor_proxy, _executor_runs

    monkeypatch.setattr(_executor_proxy.CheckedProxy, "_leave_name", lambda self: None)
    monkeypatch.setattr(_executor_proxy, "STEADY", 0.0)
    monkeypatch.setattr(_executor_runs, "ENDING", 0.3)


BROKEN = [
    (NoWorkers, "workers is a whole number >= 1. Broken: it is 0"),
    (NoSize, "group_size is a whole number >= 1. Broken: it is 0"),
    (SizeOfItsOwn, "group_size is not above what the proxy says. Broken: 64"),
    (AnyOption, "an option that it does not have is refused. Broken: no_such_option=1 was taken"),
    (LosesOne, "each group is answered, added ones too. Broken: groups [1] are not"),
    (AnswersTwice, "a group is answered once"),
    (NothingMore, "each group is answered, added ones too. Broken: groups [2"),
    (NeverEnds, "each group is answered. Broken: none for 1 s; groups [0, 1]"),
    (NoProgress, "progress is reported of a group that takes seconds. Broken: it never was"),
    (ReportsNowhere, "a report says on which node"),
    (WasNowhere, "an outcome says where it was"),
    (OtherOrder, "results are of the group's trials, in its order"),
    (OtherResults, "results are those of training directly"),
    (DropsWhatIsOver, "trials that nothing happens to have results"),
    (TakesADeathForAReason, "a trial that ends so (memory) has the fault 'memory'"),
    (TakesAReasonForADeath, "a trial that ends so (raises) has no fault"),
    (KeepsReasons, "the reason is what the proxy raised. Broken: it is 'it failed'"),
    (TrainsOnAnything, "a corpus of another hash is refused"),
    (LeavesItsWorkers, "leaving ends its workers"),
]


def test_a_sound_executor_keeps_all_promises(here):
    check_executor(Sound)


@pytest.mark.parametrize(
    ("factory", "promise"), BROKEN, ids=[factory.__name__ for factory, _ in BROKEN]
)
def test_a_broken_promise_is_found_and_named(here, factory, promise):
    with pytest.raises(AssertionError) as caught:
        check_executor(factory, seconds=1.0)
    assert str(caught.value).startswith(f"an executor promises: {promise}")


def test_the_local_executor_keeps_its_promises():
    check_executor(LocalExecutor)


@pytest.mark.nightly
def test_an_executor_made_of_one_workplace_keeps_them():
    check_executor(OneByOne)


class WithTasks(FolderExecutor):
    """Starts two tasks when it begins, as a loop in a shell would, and ends them."""

    def __enter__(self):
        run = self._site.folder.parent
        self._held = ExitStack()
        self._held.enter_context(only_one(run))  # for which tasks that wait stay
        command = [sys.executable, "-m", "mixopt", "work", str(run), "--wait", "--trust"]
        self._tasks = [
            subprocess.Popen([*command, "--task", f"{k}/2"], stderr=subprocess.DEVNULL)
            for k in range(2)
        ]
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        for task in self._tasks:
            task.terminate()
            task.wait(30)
        self._held.close()


@pytest.mark.nightly
def test_the_folder_s_tasks_keep_them():
    check_executor(WithTasks)


@pytest.mark.nightly
def test_slurm_keeps_them(slurm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    check_executor(SlurmExecutor, options={"tasks": 2}, folder=folder, seconds=240.0)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ray_keeps_them(ray_cluster):
    check_executor(RayExecutor, options={"address": ray_cluster.address}, seconds=240.0)


def test_a_folder_that_places_share_is_used_and_options_are_passed_on(here, tmp_path):
    seen = []

    class Asks(Sound):
        def __init__(self, job, site, queue="none"):
            seen.append((queue, site.folder.parents[1]))
            super().__init__(job, site)

    check_executor(Asks, options={"queue": "short"}, folder=tmp_path)
    assert set(seen) == {("short", tmp_path)}

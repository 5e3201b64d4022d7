"""The files of a work folder: half written, damaged, of others, or of hosts whose clocks differ."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace

import pytest

from mixopt.errors import RunError
from mixopt.mixture import Mixture
from mixopt.sweeps import Job, Site, WorkFolder, WorkOrder, WorkShare, cancel_work, trial_log
from mixopt.sweeps.on_folder.pulses import Pulses
from mixopt.sweeps.on_folder.work_board import HIDDEN, WorkBoard
from mixopt.sweeps.on_folder.work_folder import job_hash
from mixopt.sweeps.on_folder.work_shapes import OutcomeShape, TaskShape
from mixopt.system import STALE, WATCH, read_json, this_process
from mixopt.trials import Losses, Training, Trial, TrialResult, result_to_json, trial_to_json

TRIALS = [
    Trial(name, Mixture({"code": 0.25, "prose": 0.75}), seed=n) for n, name in enumerate("ab")
]


class Clock:
    """Seconds that a test counts."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    made = WorkFolder(tmp_path / "trials")
    made.write_order(order_of(made))
    return made


def order_of(folder) -> WorkOrder:
    training = Training(1000, device="cpu", files=str(folder.trials / "files"))
    job = Job("ngram", {"window": 8}, folder.trials.parent / "corpus", training, "5e")
    return WorkOrder.of(job, Site(folder.trials), TRIALS)


def add_task(folder, *holding, host="", **more) -> TaskShape:
    """Write what a task says, of this process or of one on another host."""
    owner = this_process()
    owner = replace(owner, host=host) if host else owner
    task = TaskShape(owner=owner, holding=list(holding), **more)
    folder.write_beat(folder.tasks / f"{owner.token}.json", task.model_dump(mode="json"))
    return task


def add_outcome(folder, task, trial=TRIALS[0], attempt=1, loss=1.0, **more) -> OutcomeShape:
    losses = Losses(1000, {"code": loss}, {"code": loss})
    result = result_to_json(TrialResult(trial.name, "finished", 1000, 5, 0.1, losses))
    content = {
        "job": job_hash(order_of(folder).job),
        "trial": trial_to_json(trial),
        "attempt": attempt,
        "token": task.owner.token,
        "result": result,
        "node": "n1",
        "kind": "cpu",
        "gpus": 0.0,
        "seconds": 1.0,
        "trained": 1,
    }
    outcome = OutcomeShape(**(content | more))
    folder.write_outcome(outcome)
    return outcome


def looked(folder, clock=time.monotonic) -> tuple[WorkBoard, WorkOrder]:
    board, order = WorkBoard(folder, clock), folder.read_order()
    board.look(order)
    return board, order


def test_an_order_is_read_as_it_was_written(folder):
    assert folder.read_order() == order_of(folder)


def test_an_order_is_found_where_another_host_has_the_folder(folder, tmp_path):
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    order = WorkFolder(moved / "trials").read_order(trust=False)
    assert order.job.corpus == moved / "corpus"
    assert order.job.training.files == str(moved / "trials" / "files")
    moved.rename(tmp_path)


def test_an_order_whose_corpus_is_elsewhere_needs_trust(folder, tmp_path):
    order = order_of(folder)
    away = tmp_path.parent / "elsewhere"
    folder.write_order(replace(order, job=replace(order.job, corpus=away)))
    assert folder.read_order(trust=True).job.corpus == away
    with pytest.raises(RunError, match="outside this folder.*add --trust"):
        folder.read_order(trust=False)


@pytest.mark.parametrize(
    "content", ["", '{"format": "mixopt-or', "[]", '{"sha256": "0"}', "\0" * 64]
)
def test_a_torn_order_is_an_error_that_names_it(folder, content):
    folder.order_file.write_text(content)
    with pytest.raises(RunError, match="order.json: "):
        folder.read_order()


def test_an_edited_order_is_not_believed(folder):
    content = read_json(folder.order_file)
    content["job"]["proxy"] = "os:system"
    folder.order_file.write_text(json.dumps(content))
    with pytest.raises(RunError, match="has changed since it was written"):
        folder.read_order()


def test_of_many_who_make_the_order_or_claim_one_is_first(tmp_path):
    folder = WorkFolder(tmp_path / "trials")
    won, made, gate = [], [], threading.Barrier(8)

    def race(number):
        gate.wait()
        made.append(folder.begin_order(order_of(folder)))
        if folder.claim("a", 1, f"{number:016x}"):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert (len(won), sum(made)) == (1, 1)
    assert folder.claim_of("a", 1) == f"{won[0]:016x}"
    assert not list(tmp_path.rglob(".*.tmp"))


def test_claims_are_made_where_a_file_system_has_no_links(folder, monkeypatch):
    def no_links(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    assert folder.claim("a", 1, "0" * 16)
    assert not folder.claim("a", 1, "1" * 16)
    assert folder.claim_of("a", 1) == "0" * 16


def test_a_result_is_believed_and_its_trial_needs_no_more(folder):
    task = add_task(folder)
    folder.claim("a", 1, task.owner.token)
    add_outcome(folder, task)
    board, order = looked(folder)
    assert board.result(order, "a")[0].losses.nats_per_token == {"code": 1.0}
    assert board.next_attempt(order, "a") is None
    assert board.next_attempt(order, "b") == 1


@pytest.mark.parametrize(
    "more",
    [
        {"job": "0" * 64},
        {"trial": replace(TRIALS[0], seed=7)},
        {"trial": replace(TRIALS[0], mixture=Mixture({"code": 1.0, "prose": 0.0}))},
        {"result": {**result_to_json(TrialResult("b", "failed", 0, 0, 0.0, reason="x"))}},
        {"result": {"trial": "a"}},
    ],
)
def test_a_result_of_another_job_mixture_seed_or_trial_is_not_believed(folder, more):
    task = add_task(folder)
    folder.claim("a", 1, task.owner.token)
    add_outcome(folder, task, **more)
    board, order = looked(folder)
    assert board.result(order, "a") is None


def test_a_changed_or_torn_result_is_not_believed_until_it_is_whole(folder):
    task = add_task(folder)
    folder.claim("a", 1, task.owner.token)
    add_outcome(folder, task)
    (path,) = folder.results.iterdir()
    whole = path.read_text()
    board, order = looked(folder)
    for content in (whole[: len(whole) // 2], whole.replace("1.0", "0.5"), ""):
        path.write_text(content)
        assert WorkFolder(folder.trials).read_outcome(path.name) is None
    path.write_text(whole)
    board.look(order)
    assert board.result(order, "a") is not None


@pytest.mark.parametrize("content", ["", "{", '{"token": "../../x"}', "[1]"])
def test_a_torn_claim_is_nobodys_after_a_while(folder, clock, content):
    folder.claims.mkdir(parents=True)
    (folder.claims / "a.1").write_text(content)
    board, order = looked(folder, clock)
    assert board.next_attempt(order, "a") is None
    clock.now += STALE + 1
    board.look(order)
    assert board.next_attempt(order, "a") == 2


def test_files_that_are_none_of_ours_are_passed_over(folder):
    folder.claims.mkdir(parents=True)
    for name in ("a", ".1", "a.x", "a.99999999999"):
        (folder.claims / name).write_text("{}")
    folder.tasks.mkdir(parents=True)
    (folder.tasks / "junk.json").write_text("{}")
    board, order = looked(folder)
    assert board.tasks == {}
    assert board.next_attempt(order, "a") == 1


def test_a_task_of_this_host_is_gone_as_soon_as_its_process_is(folder):
    task = add_task(folder, "a.1")
    folder.claim("a", 1, task.owner.token)
    board, order = looked(folder)
    assert board.last_attempt("a").running
    gone = task.model_copy(update={"owner": replace(task.owner, pid=2**22 + 1)})
    folder.write_beat(folder.tasks / f"{task.owner.token}.json", gone.model_dump(mode="json"))
    board.look(order)
    assert board.last_attempt("a").lost
    assert board.next_attempt(order, "a") == 2


@pytest.mark.parametrize("skew", [-7200.0, 0.0, 7200.0])
def test_a_task_of_another_host_lives_while_its_beats_move_whatever_its_clock(clock, skew):
    pulses = Pulses(clock)
    owner = replace(this_process(), host="far", seen=time.time() + skew)
    for beat in range(100):
        assert pulses.alive(replace(owner, beats=beat))
        clock.now += 2
    for _ in range(int(STALE // 2) - 1):
        clock.now += 2
        assert pulses.alive(replace(owner, beats=99))
    clock.now += 3
    assert not pulses.alive(replace(owner, beats=99))


def test_a_task_that_was_not_seen_for_long_is_watched_for_less(clock):
    pulses = Pulses(clock)
    owner = replace(this_process(), host="far", seen=time.time() - 1000)
    assert pulses.alive(owner)
    for _ in range(4):
        clock.now += WATCH / 3
    assert pulses.alive(owner)  # one look after a long time counts for five seconds at most
    for _ in range(4):
        clock.now += WATCH / 3
        pulses.alive(owner)
    assert not pulses.alive(owner)


def test_a_task_that_has_let_go_of_a_claim_has_lost_it(folder, clock):
    task = add_task(folder)
    folder.claim("a", 1, task.owner.token)
    board, order = looked(folder, clock)
    assert board.last_attempt("a").running  # it may not have said so yet
    clock.now += STALE + 1
    board.look(order)
    assert board.last_attempt("a").lost


def test_an_outcome_that_a_file_server_does_not_show_yet_is_waited_for(folder, clock):
    task = add_task(folder, wrote=["a.1"], ended=True)
    folder.claim("a", 1, task.owner.token)
    board, order = looked(folder, clock)
    clock.now += HIDDEN - 1
    board.look(order)
    assert board.last_attempt("a").running
    clock.now += 2
    board.look(order)
    assert board.last_attempt("a").lost


@pytest.mark.parametrize(
    ("fault", "reason", "tries"),
    [("died", "killed", 2), ("memory", "short", 2), (None, "no layer", 1), ("lost", "gone", 4)],
)
def test_without_an_owner_tasks_try_again_by_its_rules(folder, fault, reason, tries):
    task = add_task(folder)
    attempt = 1
    while True:
        folder.claim("a", attempt, task.owner.token)
        add_outcome(folder, task, attempt=attempt, result=None, reason=reason, fault=fault)
        board, order = looked(folder)
        if board.is_settled(order, "a"):
            break
        attempt = board.next_attempt(order, "a")
    assert attempt == tries


def test_what_memory_was_short_for_trains_in_halves(folder):
    task = add_task(folder)
    for attempt, trained in ((1, 8), (2, 4), (3, 2)):
        folder.claim("a", attempt, task.owner.token)
        short = {"result": None, "reason": "short", "fault": "memory", "trained": trained}
        add_outcome(folder, task, attempt=attempt, **short)
        board, order = looked(folder)
        assert board.together(order, "a") == trained // 2
        assert board.next_attempt(order, "a") == attempt + 1


def test_with_an_owner_a_further_attempt_is_the_owners_to_give(folder):
    task = add_task(folder)
    folder.write_beat(folder.owner_file, vars(this_process()))
    folder.claim("a", 1, task.owner.token)
    add_outcome(folder, task, result=None, reason="gone", fault="lost")
    board, order = looked(folder)
    assert board.next_attempt(order, "a") is None
    assert not board.is_settled(order, "a")
    entry = order.trials["a"].model_copy(update={"attempt": 2})
    order = replace(order, trials={**order.trials, "a": entry})
    assert board.next_attempt(order, "a") == 2


def test_a_share_comes_first_and_then_those_of_others():
    assert WorkShare(1, 3).first(list("abcdefg")) == list("be") + list("cf") + list("adg")
    assert sorted(WorkShare(2, 3).first(list("abcdefg"))) == list("abcdefg")


def test_cancelling_is_done_once_and_says_so(folder):
    said = []
    assert cancel_work(folder.trials, said.append)
    assert folder.read_order().state == "cancelled"
    assert "cancelled; tasks stop within seconds" in said[0]
    assert not cancel_work(folder.trials, said.append)


def test_the_log_of_a_trial_is_that_of_its_last_task(folder):
    assert trial_log(folder.trials, "a") is None
    first, second = add_task(folder), add_task(folder)
    folder.claim("a", 1, first.owner.token)
    folder.claim("a", 2, second.owner.token)
    assert trial_log(folder.trials, "a") == folder.logs / f"{second.owner.token}.log"

"""Serve the order of a work folder: the loop of a `mixopt work` task.

A task trains its own share of the trials first, then what nobody has claimed, then what other
tasks have left. It claims as many at once as its device trains together, at most a fair share, so
that groups form where they train. A task that is told to stop says of its claims that they are
lost at once, so that nobody has to find out.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mixopt.errors import CorpusError, MixoptError, RunError
from mixopt.sweeps.contract import GroupOutcome
from mixopt.sweeps.group_sizes import GroupSizes
from mixopt.sweeps.on_folder.pulses import Heartbeat
from mixopt.sweeps.on_folder.work_board import WorkBoard
from mixopt.sweeps.on_folder.work_folder import WorkFolder, WorkOrder, job_hash
from mixopt.sweeps.on_folder.work_shapes import COMMAND, OutcomeShape, TaskShape
from mixopt.sweeps.on_folder.work_share import WorkShare, check_corpus, device_of, plain_name
from mixopt.sweeps.workplace import Workplace
from mixopt.system import (
    Owner,
    Say,
    check_trusted,
    check_trusted_command,
    check_trusted_path,
    host_name,
    silent,
    this_process,
)
from mixopt.trials import Progress, Trial, result_to_json, trial_to_json

POLL = 1.0  # seconds between two looks at the folder
WROTE = 200  # outcomes that a task names
_SCHEDULED = (("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"), ("SLURM_JOB_ID",))


class TaskServer:
    """One task of a work folder: one worker process, and the claims that it trains."""

    def __init__(
        self,
        folder: Path,
        share: WorkShare,
        *,
        trust: bool = False,
        say: Say = silent,
    ) -> None:
        """Note what there is; nothing is started yet.

        Args:
            folder: The folder of the trials.
            share: Which task it is.
            trust: Whether code that the order names may be imported, and a corpus elsewhere opened.
            say: Called with a line about what it does.
        """
        self._folder, self._share, self._trust, self._say = WorkFolder(folder), share, trust, say
        self._owner = this_process()
        self._board = WorkBoard(self._folder)
        job = next((names for names in _SCHEDULED if all(n in os.environ for n in names)), ())
        name = "_".join(os.environ[part] for part in job)
        self._task = TaskShape(owner=self._owner, share=str(share), job=name[:100])
        self._lock = threading.Lock()
        self._order: WorkOrder | None = None
        self._place: Workplace | None = None
        self._stopping = threading.Event()
        self._halted: str | None = None
        self._problem: CorpusError | None = None
        self._heart = Heartbeat(self._owner, self._beat)
        self.trained = 0

    @property
    def token(self) -> str:
        """What claims and files of this task are named by."""
        return self._owner.token

    @property
    def log(self) -> Path:
        """Where its worker's standard error goes."""
        return self._folder.logs / f"{self.token}.log"

    def stop(self) -> None:
        """End soon, and give back what is not trained; safe in a handler of signals."""
        self._stopping.set()

    def serve(self, linger: Callable[[], bool] = lambda: False) -> str:
        """Train until there is no more to do.

        Args:
            linger: Tells, when all that was ordered is done, whether more may be.

        Returns:
            Why it ended: `done`, `closed`, `cancelled` or `stopped`.

        Raises:
            PluginError: The order names code that is not trusted.
            CorpusError: This host does not see the corpus of the order, or sees another one.
            MixoptError: The proxy cannot be built, or refuses the corpus.
        """
        watcher = threading.Thread(target=self._watch, daemon=True, name="mixopt-halt")
        self._heart.start()
        watcher.start()
        try:
            return self._serve(linger)
        except MixoptError as error:
            if self._stopping.is_set():
                return "stopped"
            self._note(problem=str(error)[:4000])
            raise
        finally:
            self._stopping.set()
            watcher.join()
            if self._place is not None:
                self._place.end()
            self._heart.end()
            self._note(ended=True, doing=None)

    def _serve(self, linger: Callable[[], bool]) -> str:
        while not self._stopping.is_set():
            order = self._read_order()
            if order is not None and order.state != "open":
                return order.state
            if order is not None:
                self._take_up(order)
                self._board.look(order)
                claimed = self._claim(order)
                if claimed:
                    self._train(order, claimed)
                    continue
                settled = all(self._board.is_settled(order, name) for name in order.trials)
                if settled and not linger():
                    return "done"
            self._stopping.wait(POLL)
        return "stopped"

    def _read_order(self) -> WorkOrder | None:
        """Return the order; the one before, while it cannot be read."""
        try:
            return self._folder.read_order(trust=self._trust) or self._order
        except RunError:
            if self._order is None and self._stopping.wait(POLL):
                return None
            return self._order or self._folder.read_order(trust=self._trust)

    def _take_up(self, order: WorkOrder) -> None:
        """Have a worker for an order's job; a new one if it is another job than before."""
        if self._order is None or self._order.job != order.job:
            self._check_trusted(order)
            check_corpus(order)
            if self._place is not None:
                self._place.end()
            self._place = None
        self._order = order
        if self._place is None:
            device = device_of(order, self._share)
            self._note(kind=device.kind, gpus=float(device.gpus))
            sizes = GroupSizes(self._folder.sizes / plain_name(device.kind))
            self._place = Workplace(order.job, device, sizes, self.log, order.patience)
            self._halted = None
            self._note(doing="compiling")
            self._place.group_size()
            self._note(doing=None)

    def _check_trusted(self, order: WorkOrder) -> None:
        """Check that what an order names as code may be run."""
        where, proxy = str(self._folder.order_file), order.job.proxy
        check_trusted("proxy", proxy, where, self._trust)
        command = order.job.options.get("run")
        if proxy == COMMAND and command is not None:
            text = shlex.join(map(str, command)) if isinstance(command, list) else str(command)
            check_trusted_command(text, where, self._trust)
        start = order.job.options.get("start")
        if start is not None:
            check_trusted_path(str(start), where, self._trust)

    def _claim(self, order: WorkOrder) -> dict[str, int]:
        """Claim trials that train together: their names and attempts."""
        assert self._place is not None
        fair = max(1, -(-len(order.trials) // self._share.count))
        most, claimed = min(self._place.group_size(), fair), dict[str, int]()
        for name in self._share.first(list(order.trials)):
            if len(claimed) >= most:
                break
            number = self._board.next_attempt(order, name)
            if number is None:
                continue
            limit = self._board.together(order, name) or most
            if len(claimed) < limit and self._folder.claim(name, number, self.token):
                claimed[name], most = number, min(most, limit)
        return claimed

    def _train(self, order: WorkOrder, claimed: dict[str, int]) -> None:
        place, trials = self._place, [order.trial(name) for name in claimed]
        assert place is not None
        held = [f"{name}.{number}" for name, number in claimed.items()]
        self._note(doing="starting", trials=list(claimed), holding=held, done=0, total=0)
        self._heart.beat()
        outcome = place.train(0, trials, self._progress)
        outcome = self._as_lost(order, outcome)
        for trial in trials:
            self._folder.write_outcome(self._outcome(order, outcome, trial, claimed[trial.name]))
        self.trained += len(outcome.results)
        wrote = [*self._task.wrote, *held][-WROTE:]
        self._note(doing=None, trials=[], holding=[], wrote=wrote)
        self._heart.beat()
        if self._halted is not None:
            place.end()
            self._place = None
        if self._problem is not None:
            raise self._problem

    def _as_lost(self, order: WorkOrder, outcome: GroupOutcome) -> GroupOutcome:
        """Say that trials are lost whose worker this task has ended itself."""
        if len(outcome.results) or outcome.reason is None:
            return outcome
        if self._halted is None and outcome.fault is None:
            try:
                check_corpus(order)
            except CorpusError as error:
                self._problem, self._halted = error, str(error)
        if self._halted is None:
            return outcome
        return replace(outcome, reason=self._halted, fault="lost")

    def _outcome(
        self, order: WorkOrder, outcome: GroupOutcome, trial: Trial, number: int
    ) -> OutcomeShape:
        """Return what became of one member of a group."""
        result = next((one for one in outcome.results if one.trial == trial.name), None)
        return OutcomeShape(
            job=job_hash(order.job),
            trial=trial_to_json(trial),
            attempt=number,
            token=self.token,
            result=None if result is None else result_to_json(result),
            reason=None if result is not None else outcome.reason,
            fault=None if result is not None else outcome.fault,
            node=outcome.place.node,
            kind=outcome.place.kind,
            gpus=outcome.place.gpus,
            seconds=outcome.seconds,
            trained=max(1, outcome.trained or 1),
        )

    def _progress(self, progress: Progress) -> None:
        self._note(doing=progress.doing, done=progress.done, total=progress.total)

    def _note(self, **changes: object) -> None:
        with self._lock:
            self._task = self._task.model_copy(update=changes)
        if "ended" in changes or "problem" in changes:
            self._heart.beat()

    def _beat(self, owner: Owner) -> None:
        with self._lock:
            self._task = self._task.model_copy(update={"owner": owner})
            content = self._task.model_dump(mode="json")
        self._folder.write_beat(self._folder.tasks / f"{self.token}.json", content)

    def _watch(self) -> None:
        """End the worker when this task is told to stop, or what it trains is not wanted."""
        while not self._stopping.wait(2 * POLL):
            reason = self._unwanted()
            if reason is not None:
                self._halt(reason)
        self._halt("the task was told to stop")

    def _unwanted(self) -> str | None:
        with self._lock:
            holding = list(self._task.holding)
        if not holding:
            return None
        try:
            order = self._folder.read_order(trust=self._trust)
        except MixoptError:
            return None
        if order is not None and order.state == "cancelled":
            return "the sweep was cancelled"
        mine = {trial: int(number) for trial, _, number in (key.rpartition(".") for key in holding)}
        for trial, number in self._folder.claimed():
            if number > mine.get(trial, number):
                return f"the task was considered lost, and another one retries {trial}"
        return None

    def _halt(self, reason: str) -> None:
        self._halted = self._halted or f"{reason} on {host_name()}"
        if self._place is not None:
            self._place.end()

"""Serve a run's open order: `mixopt work`, started by a scheduler, a loop or a hand, on any host.

Where the design is there and nobody has ordered anything, a task makes the order of the sweep
itself. It is the same whoever makes it, and the first one counts, so that some bare tasks do a
sweep after `mixopt design`, and `mixopt run` gathers their results.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.errors import MixoptError, RunError
from mixopt.run_directory import DESIGN, STEPS, SWEEP, load_run
from mixopt.sweeps import FILES, TaskServer, WorkFolder, WorkOrder, WorkShare
from mixopt.system import Say, host_name, is_in_use, silent
from mixopt.trials import TrialFolder

if TYPE_CHECKING:
    from types import FrameType

POLL = 1.0  # seconds between two looks for an order
OWNER_BEGINS = 60.0  # seconds for which any task waits for the order of an owner that is at work
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def work(
    directory: str | Path,
    task: str = "0/1",
    *,
    trust: bool = False,
    wait: bool = False,
    say: Say = silent,
) -> int:
    """Train trials of a run until there is no more to do; any number of tasks may.

    SIGTERM and SIGINT end it within seconds; what it was training is given back at once.

    Args:
        directory: The run directory, on a path that all tasks see.
        task: Which of how many tasks this is, as `K/N`, K from 0.
        trust: Import code that the directory names, and follow links that lead out of it.
        wait: Stay until nobody is at work in the directory any more and all that was ordered is
            done; wait for an order where there is none.
        say: Called with a line about what happens.

    Returns:
        The signal that ended it; 0 for none.

    Raises:
        RunError: The directory is not seen, is not a run's, or has nothing to do yet.
        PluginError: It names code that is not trusted.
        CorpusError: The corpus is not seen here, or is another one.
        MixoptError: The proxy cannot be built, or refuses the corpus.
    """
    share, directory = WorkShare.of(task), Path(directory)
    stop = _Stop()
    with stop.on_signals():
        served, until = False, time.monotonic() + OWNER_BEGINS
        while not stop.asked.is_set():
            waits = wait or time.monotonic() < until
            folder = _open_folder(directory, trust=trust, first=not served, wait=wait, owned=waits)
            if folder is not None:
                served = True
                _serve(folder, share, directory, stop, trust=trust, wait=wait, say=say)
                if not wait:
                    break
            if wait and served and not is_in_use(directory):
                break
            stop.asked.wait(POLL)
    return stop.number


class _Stop:
    """Whether a signal asked this process to end."""

    def __init__(self) -> None:
        self.asked, self.number = threading.Event(), 0
        self.server: TaskServer | None = None

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take note of signals while the block runs; only a process's main thread hears them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {one: signal.signal(one, self._hear) for one in _SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        self.asked.set()
        if self.server is not None:
            self.server.stop()


def _serve(
    folder: Path,
    share: WorkShare,
    directory: Path,
    stop: _Stop,
    *,
    trust: bool,
    wait: bool,
    say: Say,
) -> None:
    server = stop.server = TaskServer(folder, share, trust=trust)
    if stop.asked.is_set():
        return
    linger: Callable[[], bool] = (lambda: is_in_use(directory)) if wait else (lambda: False)
    say(f"work: task {share} on {host_name()} trains for {folder}; log: {server.log}")
    why = server.serve(linger)
    say(f"work: task {share}: {why}; {server.trained} trials trained")


def _open_folder(
    directory: Path, *, trust: bool, first: bool, wait: bool, owned: bool
) -> Path | None:
    """Return the folder of trials with an open order; None where a task has to wait.

    Args:
        directory: The run.
        trust: Whether code that it names may be imported.
        first: Whether none was served yet.
        wait: Whether to wait for an order.
        owned: Whether to wait for the order of a mixopt that is at work here.

    Raises:
        RunError: There is nothing to do, and this task does not wait.
    """
    if not directory.is_dir():
        raise RunError(
            f"{directory}: not found on {host_name()}; use an --out folder that all nodes share"
        )
    states = {}
    for step in STEPS:
        if step.trains:
            folder = step.trial_folder(directory)
            try:
                order = WorkFolder(folder).read_order()
            except MixoptError:
                order = None
                if not wait:
                    time.sleep(POLL)  # it may be half written
                    order = WorkFolder(folder).read_order()
            states[folder] = None if order is None else order.state
    opened = [folder for folder, state in states.items() if state == "open"]
    if opened:
        return opened[-1]
    if not any(states.values()) and not is_in_use(directory):
        made = _begun(directory, trust=trust, wait=wait)
        if made is not None or wait:
            return made
    if wait or not first or (owned and is_in_use(directory)):
        return None
    said = ", ".join(f"{folder.name} is {state}" for folder, state in states.items() if state)
    raise RunError(
        f"{directory}: no trials to train now ({said or 'another mixopt process is running'});"
        " start mixopt run, or add --wait to wait for it"
    )


def _begun(directory: Path, *, trust: bool, wait: bool) -> Path | None:
    """Order the trials of a designed sweep that have no result; None where there is no design."""
    from mixopt.pipeline.rounds import noted_trials
    from mixopt.pipeline.step_actions import job_of, means_of

    if wait and not (directory / "config.yaml").exists():
        return None
    run = load_run(directory, trust=trust)
    if not run.is_done(DESIGN.name):
        if wait:
            return None
        run.require(DESIGN.name)
    folder = SWEEP.trial_folder(directory)
    trials, job = noted_trials(run), job_of(run, SWEEP)
    finished = TrialFolder(folder, job.made_by).results(trials)
    left = [trial for trial in trials if trial.name not in finished]
    if run.is_done(SWEEP.name) or not left:
        raise RunError(f"{directory}: all trials are trained; next: {run.command('run')}")
    site = means_of(run).site(folder, SWEEP.name, silent)
    job = replace(job, training=replace(job.training, files=str(folder / FILES)))
    order = WorkOrder.of(job, site, left)
    WorkFolder(folder).begin_order(order)
    return folder

"""The ranks of a torch.distributed job as processes, for the tests of what runs on several."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import psutil

# Importing torch and, for any optimizer, its compiler takes a process seconds.
PRELOADED = [
    "mixopt.pretraining.pretraining_run",
    "mixopt_proxies.decoder.causal_lm",
    "torch._dynamo",
]


def forked():
    """Return the context of processes that have torch already when they are forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Rank:
    """A process, and what went wrong in it."""

    process: BaseProcess
    said: Connection


def start_ranks(count, script, *arguments) -> list[Rank]:
    """Start a script of this folder, which finds its rank in the environment."""
    job = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
    }
    return [_started(list(map(str, (script, *arguments))), job, rank) for rank in range(count)]


def _started(command, job, rank) -> Rank:
    context = forked()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(command, job | {"RANK": str(rank)}, theirs))
    process.start()
    theirs.close()
    return Rank(process, ours)


def _run(command, environment, said) -> None:
    """Run a script as a process of its own would."""
    import torch

    os.environ |= environment
    multiprocessing.set_start_method(None, force=True)  # else its workers import all again
    torch.set_num_threads(1)
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name="__main__")
    except BaseException:
        said.send(traceback.format_exc())
        raise


def finish(ranks) -> None:
    """Wait until all have ended well; none is left where one has not."""
    try:
        for rank in ranks:
            rank.process.join(300)
            errors = rank.said.recv() if rank.process.exitcode == 1 else ""
            assert rank.process.exitcode == 0, errors[-2000:]
    finally:
        kill(ranks)


def kill(ranks) -> None:
    """Kill all and what they have started, as a machine that goes away.

    Not by a group of their own: what interrupts the tests would not reach that.
    """
    for rank in ranks:
        if rank.process.is_alive():
            top = psutil.Process(rank.process.pid)
            top.suspend()  # so that it starts no more
            for process in [*top.children(recursive=True), top]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        rank.process.join()

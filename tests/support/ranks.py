"""The ranks of a torch.distributed job as processes, for the tests of what runs on several."""

import multiprocessing
import os
import runpy
import socket
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Rank(NamedTuple):
    """A process, and what it returns, or what went wrong in it."""

    process: BaseProcess
    said: Connection


def start_ranks(count, file, job, *arguments, group="gloo"):
    """Start a function of a file on so many ranks; what it returns can be pickled."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    place |= {"WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    return [_started((str(file), job, arguments, group), place, rank) for rank in range(count)]


def on_ranks(count, file, job, *arguments):
    """Return what a function of a file returns on each of so many ranks."""
    return finish(start_ranks(count, file, job, *arguments))


def _started(call, place, rank):
    context = forked()
    ours, theirs = context.Pipe(duplex=False)
    environment = place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    process = context.Process(target=_run, args=(*call, environment, theirs))
    process.start()
    theirs.close()
    return Rank(process, ours)


def _run(file, job, arguments, group, environment, said):
    import torch
    import torch.distributed as dist

    os.environ |= environment
    multiprocessing.set_start_method(None, force=True)  # else its workers import all again
    torch.set_num_threads(1)
    try:
        if group is not None:
            dist.init_process_group(group)
        said.send(runpy.run_path(file, run_name="job")[job](*arguments))
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
    except BaseException:
        said.send(traceback.format_exc())
        raise
    os._exit(0)


def finish(ranks):
    """Wait until all have ended well, and return what each returned; none is left otherwise."""
    try:
        found = [rank.said.recv() for rank in ranks if rank.said.poll(300)]
        for rank, text in zip(ranks, found, strict=True):
            rank.process.join(60)
            assert rank.process.exitcode == 0, str(text)[-2000:]
        return found
    finally:
        kill(ranks)


def kill(ranks):
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

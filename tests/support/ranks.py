"""The ranks of a torch.distributed job as processes, for the tests of what runs on several."""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_ranks(count, script, *arguments) -> list[subprocess.Popen]:
    """Start a script of this folder, which finds its rank in the environment."""
    job = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, *map(str, (script, *arguments))],
            env=os.environ | job | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(count)
    ]


def finish(ranks) -> None:
    """Wait until all have ended well."""
    for rank in ranks:
        errors = rank.communicate(timeout=300)[1].decode()
        assert rank.returncode == 0, errors[-2000:]


def kill(ranks) -> None:
    """Kill all, as a machine that goes away."""
    for rank in ranks:
        rank.kill()
        rank.communicate()

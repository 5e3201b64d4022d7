"""Two ranks count together what one counts alone, wrapped by DDP and by FSDP2."""

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mixopt.routing import RouterStats
from mixopt.routing.reduction import ranks

SCRIPT = Path(__file__).with_name("routing_job.py")
JOB = runpy.run_path(str(SCRIPT))


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    address = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port())}
    jobs = [
        subprocess.Popen(
            [sys.executable, SCRIPT, out],
            env=address | {"RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [job.wait(timeout=900) for job in jobs] == [0, 0]
    return out


@pytest.fixture(scope="module")
def alone():
    model, data = JOB["tiny"](), JOB["batches"]()
    stats = RouterStats.attach(model, JOB["DOMAINS"])
    for tokens, ids, mask in [*data, data[-1]]:
        with stats.domains(ids, mask):
            model(tokens)
    return stats.total()


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_together_count_what_one_counts(kind, folder, alone):
    first, second = (
        torch.load(folder / f"{kind}.{rank}.pt", weights_only=True) for rank in range(2)
    )
    assert all(np.array_equal(first[key], second[key]) for key in first)
    together = RouterStats.attach(JOB["tiny"](), JOB["DOMAINS"])
    together.load_state_dict(first)
    for one, two in zip(alone.layers, together.total().layers, strict=True):
        assert np.array_equal(one.counts_DE, two.counts_DE)
        np.testing.assert_allclose(one.probability_DE, two.probability_DE, rtol=1e-5)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_rank_does_not_tell_its_own_counts_for_those_of_all(kind, folder):
    message = (folder / f"{kind}.0.txt").read_text()
    assert message.startswith("1 batches of this rank are not reduced: call stats.reduce()")


def test_without_a_process_group_there_is_one_rank():
    assert ranks() == 1

"""Two ranks count together what one counts alone, wrapped by DDP and by FSDP2."""

import os
import runpy
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
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run(kind, folder):
    address = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port())}
    jobs = [
        subprocess.Popen(
            [sys.executable, SCRIPT, kind, folder],
            env=address | {"RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [job.wait(timeout=600) for job in jobs] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_together_count_what_one_counts(kind, tmp_path):
    model = JOB["tiny"]()
    alone = RouterStats.attach(model, JOB["DOMAINS"])
    for tokens, ids, mask in JOB["batches"]():
        with alone.domains(ids, mask):
            model(tokens)
    first, second = run(kind, tmp_path)
    assert all(np.array_equal(first[key], second[key]) for key in first)
    together = RouterStats.attach(JOB["tiny"](), JOB["DOMAINS"])
    together.load_state_dict(first)
    for ours, theirs in zip(alone.total().layers, together.total().layers, strict=True):
        assert np.array_equal(ours.counts_DE, theirs.counts_DE)
        np.testing.assert_allclose(ours.probability_DE, theirs.probability_DE, rtol=1e-5)


def test_without_a_process_group_there_is_one_rank():
    assert ranks() == 1

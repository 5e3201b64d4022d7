"""Processes of Megatron's parallel state, 2 x 2, for test_megatron.

python megatron_job.py OUT    with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch.distributed as dist

from mixopt import MixtureSampler
from mixopt.errors import MixoptError
from mixopt.sampling import check_ranks
from mixopt.system import write_json

SIZES = {"web": 90, "code": 41, "books": 17}


def main(out):
    warnings.simplefilter("ignore")
    from megatron.core import parallel_state

    dist.init_process_group("gloo")
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=2, create_gloo_process_groups=False
    )
    said = {"refused": None}
    try:
        MixtureSampler(SIZES, [0.5, 0.3, 0.2], batch_size=8)
    except MixoptError as error:
        said["refused"] = str(error)
    order = MixtureSampler(
        SIZES,
        [0.5, 0.3, 0.2],
        batch_size=8,
        rank=parallel_state.get_data_parallel_rank(),
        world_size=parallel_state.get_data_parallel_world_size(),
    )
    check_ranks(order)
    said |= {"part": [order.rank, order.world_size], "rows": next(iter(order))}
    write_json(out / f"said.{dist.get_rank()}", said)
    dist.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)

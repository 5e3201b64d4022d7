"""A rank that follows a schedule's file, for test_schedule_watch.

python watch_job.py FOLDER FILE STOP RESUME    with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT

When 12 batches have come, rank 0 puts another schedule there. Rows go to FOLDER/rows.RANK, the log
of weights to FOLDER/log.RANK, the state at the end to FOLDER/state.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch.distributed as dist
from torch import ones

from mixopt import Mixture, MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.loading.schedule_watch import ScheduleWatch
from mixopt.sampling import Schedule, Stage

SIZES = {"web": 500, "code": 500}
WEB, CODE = Mixture({"web": 0.75, "code": 0.25}), Mixture({"web": 0.25, "code": 0.75})
HALF = Mixture.uniform(("web", "code"))


def schedule(*parts):
    stages = tuple(Stage(mixture, steps=steps) for mixture, steps in parts)
    return Schedule(stages, batch=8, sequence_length=16)


def main(folder: Path, file: Path, stop: int, resume: bool) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    ScheduleWatch.__init__.__kwdefaults__["seconds"] = 0.0
    sampler = MixtureSampler(SIZES, schedule=schedule((WEB, 40), (CODE, 20)))
    data = {name: [{"x": k} for k in range(size)] for name, size in SIZES.items()}
    loader = MixtureLoader(MixtureDataset(data), sampler, output="numpy", watch=file)
    if resume:
        loader.load_state_dict(json.loads((folder / "state").read_text()))
    rows = []
    for batch in loader:
        dist.all_reduce(ones(1))  # as training does
        offset = [0, SIZES["web"]]
        pairs = zip(batch["domain"].tolist(), batch["row"].tolist(), strict=True)
        rows.append([offset[d] + r for d, r in pairs])
        if sampler.batch == 12 and rank == 0:
            schedule((WEB, 5), (HALF, 45), (CODE, 10)).to_file(file)
        if sampler.batch == stop:
            break
    (folder / f"rows.{rank}").write_text(json.dumps(rows))
    log = [(entry.batch, dict(entry.mixture)) for entry in sampler.log]
    (folder / f"log.{rank}").write_text(json.dumps(log))
    if rank == 0:
        (folder / "state").write_text(json.dumps(loader.state_dict()))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1")

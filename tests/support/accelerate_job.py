"""What accelerate's prepare() makes of batches on two ranks, for test_accelerate.

python accelerate_job.py OUT    with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
"""

from __future__ import annotations

import json
import os
import sys
from itertools import islice
from pathlib import Path

from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader
from trainer_parts import random_rows

from mixopt import MixtureLoader, MixtureSampler, MixtureStream, SamplerError

WEIGHTS = [0.5, 0.3, 0.2]
BATCHES = 7


def loader(dataset):
    """Ours."""
    return MixtureLoader(dataset, MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8))


def plain(dataset):
    """A DataLoader of torch's over our sampler."""
    order = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8, batches=20)
    return DataLoader(dataset, batch_sampler=order)


def whole(dataset):
    """One over a sampler that gives all ranks' rows, for accelerate to split."""
    order = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8, batches=20, rank=0, world_size=1)
    return DataLoader(dataset, batch_sampler=order)


def stream(_):
    """One over our stream."""
    rows = {name: [{"row": k} for k in range(99)] for name in ("web", "code", "books")}
    return DataLoader(MixtureStream(rows, WEIGHTS, batch_size=8, batches=20), batch_size=None)


def outcome(accelerator, make):
    """Rows of the first batches of this rank, or what was said."""
    made = make(random_rows())
    try:
        prepared = accelerator.prepare(made)
        rows = [
            list(zip(b["domain"].tolist(), b["row"].tolist(), strict=True))
            for b in islice(prepared, BATCHES)
        ]
    except SamplerError as error:
        return str(error)
    return {"same": prepared is made, "rows": rows}


def main(out):
    """Try each, dispatched by rank 0 and not."""
    found = {}
    for dispatches in (False, True):
        for make in (loader, plain, whole, stream):
            setting = DataLoaderConfiguration(
                dispatch_batches=dispatches, split_batches=make is whole
            )
            accelerator = Accelerator(cpu=True, dataloader_config=setting)
            found[f"{make.__name__} {dispatches}"] = outcome(accelerator, make)
    (out / f"found.{os.environ['RANK']}").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)

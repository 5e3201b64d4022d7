"""What a schedule would draw is what its samplers draw, stage by stage."""

from __future__ import annotations

from mixopt import Mixture, MixtureSampler
from mixopt.sampling import Schedule, Stage, simulate_schedule

WEB, CODE = Mixture({"web": 0.75, "code": 0.25}), Mixture({"web": 0.25, "code": 0.75})
SIZES = {"web": 100_000, "code": 4_000}
SCHEDULE = Schedule(
    (Stage(WEB, steps=30, name="main"), Stage(CODE, steps=20), Stage(CODE, steps=20, name="long")),
    batch=8,
    sequence_length=16,
)


def test_it_counts_what_the_samplers_draw():
    done = simulate_schedule(SCHEDULE, SIZES)
    rows = {name: size // 16 for name, size in SIZES.items()}
    sampler = MixtureSampler(rows, WEB, batch_size=8, batches=50, schedule=[(30, CODE)])
    drawn = [list(next(batches)) for batches in [iter(sampler)] for _ in range(50)]
    code = [sum(row >= rows["web"] for batch in part for row in batch)
            for part in (drawn[:30], drawn[30:])]  # fmt: skip
    assert [stage.drawn["code"] for stage in done.stages[:2]] == [16 * n for n in code]
    assert done.drawn["code"] == sum(stage.drawn["code"] for stage in done.stages)

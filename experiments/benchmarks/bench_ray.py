"""What Ray adds to a group of trials, and whether two nodes give the table that this machine gives.

    OMP_NUM_THREADS=1 nice -n 10 python experiments/benchmarks/bench_ray.py

Two nodes of Ray with one CPU each run on this machine. The overhead of a group is what a group of
10 s takes longer on one node of Ray than its training, once its worker is warm; the control is the
same groups with the local executor, which differ in nothing else. Then 200 trials of the n-gram
proxy are trained here and there with two workers each, and their tables compared, seconds aside.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parents[2] / "tests" / "support"
sys.path[:0] = [str(SUPPORT), str(SUPPORT.parent)]
os.environ["PYTHONPATH"] = str(SUPPORT)

from ray_nodes import RayNodes, ended, started  # noqa: E402

from mixopt.config import CorpusConfig  # noqa: E402
from mixopt.corpus import corpus_hash, prepare_corpus  # noqa: E402
from mixopt.mixture import Mixture  # noqa: E402
from mixopt.sweeps import Job, Means, Site, make_executor, run_trials  # noqa: E402
from mixopt.trials import Training, Trial  # noqa: E402


def corpus(folder: Path) -> Path:
    """Prepare two domains: source code and documentation of Python's library."""
    from conftest import docstrings, python_sources, write_jsonl

    texts = {"code": python_sources(), "prose": docstrings()}
    domains = {n: {"path": str(write_jsonl(folder / f"{n}.jsonl", t))} for n, t in texts.items()}
    config = CorpusConfig.model_validate({"domains": domains})
    prepare_corpus(config, {}, folder / "corpus", fingerprint="bench", seed=0, min_tokens=2)
    return folder / "corpus"


def trials_of(count: int) -> list[Trial]:
    """Return trials at even steps between two domains."""
    shares = [place / count for place in range(count)]
    return [
        Trial(f"t{n:03}", Mixture({"code": w, "prose": 1 - w}), seed=n)
        for n, w in enumerate(shares)
    ]


def seconds_of_groups(
    name: str, options: dict[str, Any], job: Job, folder: Path, count: int
) -> list[float]:
    """Return the seconds between the ends of groups, those of a warm worker."""
    folder.mkdir()
    groups = {n: [trial] for n, trial in enumerate(trials_of(count + 1))}
    ends, begun = [], time.monotonic()
    with make_executor(name, options, job, Site(folder, workers=1)) as executor:
        executor.group_size()
        for outcome in executor.run(groups, lambda *_: None):
            assert outcome.reason is None, outcome.reason
            ends.append(time.monotonic())
    print(
        f"{name:5}  a warm worker is there, and has trained a group, after {ends[0] - begun:.1f} s"
    )
    return [after - before for before, after in pairwise(ends)]


def overhead(nodes: RayNodes, path: Path, folder: Path, seconds: float, count: int) -> None:
    """Print what a group takes beyond its training."""
    notes = folder / "notes"
    notes.mkdir()
    options = {"notes": str(notes), "seconds": seconds}
    training = Training(1000, device="cpu")
    job = Job("seeing_proxy:Seeing", options, path, training, corpus_hash(path))
    for name, told in (("local", {}), ("ray", {"address": nodes.address})):
        took = seconds_of_groups(name, told, job, folder / f"overhead-{name}", count)
        more = [one - seconds for one in took]
        print(
            f"{name:5}  {count} groups of {seconds:g} s: {statistics.mean(more) * 1000:.0f} ms more"
            f" each (largest {max(more) * 1000:.0f} ms), {statistics.mean(more) / seconds:.2%}"
        )


def tables(nodes: RayNodes, path: Path, folder: Path, count: int) -> None:
    """Print how long a sweep takes here and there, and compare the results."""
    training = Training(20_000, device="cpu", eval_tokens=4096)
    job = Job("ngram", {}, path, training, corpus_hash(path))
    found = {}
    for name, told in (("local", {}), ("ray", {"address": nodes.address})):
        begun = time.monotonic()
        means = Means(name, told, workers=2)
        results = run_trials(trials_of(count), job, folder / f"tables-{name}", means=means)
        print(f"{name:5}  {count} n-gram trials on two workers: {time.monotonic() - begun:.1f} s")
        found[name] = [(r.trial, r.status, r.tokens, r.losses, r.curve) for r in results]
    same = found["local"] == found["ray"]
    print("tables of trials, seconds aside:", "equal" if same else "DIFFERENT")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--trials", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = corpus(folder)
        nodes = started(folder)
        try:
            print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
            overhead(nodes, path, folder, asked.seconds, asked.groups)
            tables(nodes, path, folder, asked.trials)
            print(f"load after: {os.getloadavg()[0]:.1f}")
        finally:
            ended(nodes)


if __name__ == "__main__":
    main()

"""What a record in MLflow costs: `python experiments/benchmarks/bench_tracking.py`.

Writing is what a training process does for each step; sending happens in a process of its own.
Ratios are to the same calls by MLflow's client in the same run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mixopt import Mixture
from mixopt.config import TrackingConfig
from mixopt.sweeps import TrialFolder
from mixopt.tracking import Tracker, sync
from mixopt.tracking.record import append_line
from mixopt.trials import Losses, Trial, TrialResult


def main() -> None:
    """Print the costs of writing and of sending."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="lines of metrics (2000)")
    parser.add_argument("--trials", type=int, default=200, help="trials of a sweep (200)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        written = writing(Path(folder) / "lines", options.steps)
        logged = client_logging(Path(folder) / "client.db", options.steps // 10)
        print(f"a line of 20 metrics: {written * 1e6:.0f} us; MLflow's client {logged * 1e3:.1f}")
        print(f"ms: {logged / written:.0f} times")
        seconds = sending(Path(folder) / "sweep", options.trials)
        print(f"{options.trials} trials sent beside training: {seconds:.1f} s")


def writing(path: Path, steps: int) -> float:
    """Return the seconds that writing a line takes."""
    start = time.perf_counter()
    for step in range(steps):
        append_line(
            path / "metrics.jsonl",
            {"step": step, "time": start, **{f"loss/d{n}": step / (n + 1) for n in range(20)}},
        )
    return (time.perf_counter() - start) / steps


def client_logging(database: Path, steps: int) -> float:
    """Return the seconds that MLflow's client takes for the same, in a process of its own."""
    code = (
        "import sys, time; from mlflow import MlflowClient; from mlflow.entities import Metric\n"
        "client = MlflowClient(tracking_uri='sqlite:///' + sys.argv[1])\n"
        "run = client.create_run(client.create_experiment('bench')).info.run_id\n"
        "start = time.perf_counter()\n"
        "for step in range(int(sys.argv[2])):\n"
        "    client.log_batch(run, [Metric(f'loss/d{n}', step / (n + 1), 0, step)"
        " for n in range(20)])\n"
        "print(time.perf_counter() - start)\n"
    )
    command = [sys.executable, "-c", code, str(database), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1]) / steps


def sending(path: Path, count: int) -> float:
    """Return the seconds that `sync` takes for a sweep, the import of MLflow included."""
    each = {f"d{n}": 2.0 for n in range(6)}
    mixture = Mixture.uniform(list(each))
    trials = [Trial(f"t{n:05}", mixture, seed=n) for n in range(count)]
    losses = Losses(1000, each, each)
    results = [TrialResult(t.name, "finished", 1000, 42, 1.0, losses) for t in trials]
    TrialFolder(path / "trials").write(trials, results)
    tracker = Tracker(TrackingConfig(), "bench", path, sends=False)
    tracker.start("sweep", {}, folder="trials")
    tracker.end("sweep")
    tracker.close()
    start = time.perf_counter()
    result = sync(path)
    assert result.trouble is None, result.trouble
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

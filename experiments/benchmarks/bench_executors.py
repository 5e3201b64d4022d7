"""What Slurm adds to the time of a sweep of quick trials.

    python experiments/benchmarks/bench_executors.py [--trials 200] [--tokens 200000]

One design of n-gram trials is trained on this machine with two workers, and by two nodes of a Slurm
that runs on this machine (tests/support/slurm_cluster; it needs root, slurm-wlm and munge, and is
left out elsewhere). A line for each: seconds, the part of them that the first line has not, CPU
seconds of the owner and of all that it started, and whether the table of trials is that of the
first line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

HOUSE = Path(__file__).parents[2]
sys.path[:0] = [str(HOUSE / "tests" / "support")]
CONFIG = """\
name: executors
corpus:
  domains:
    code: {{path: {folder}/code.jsonl}}
    prose: {{path: {folder}/prose.jsonl}}
design: {{trials: {trials}, replicates: 0, anchors: [], max_usage: null}}
proxy: {{name: ngram, tokens: {tokens}, eval_tokens: 8192}}
sweep: {{workers: 2}}
fit: {{regressors: [linear], folds: 3}}
objective: {{target: prose}}
tracking: {{enabled: false}}
"""


def main() -> None:
    """Print a line for each executor."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=200_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="executors-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        config = _design(folder, asked.trials, asked.tokens)
        local = _sweep(config, folder / "local", "local")
        _show("local", local, local)
        with _slurm(folder) as environment:
            if environment is not None:
                slurm = _sweep(config, folder / "slurm", "slurm", environment)
                _show("slurm", slurm, local)


def _design(folder: Path, trials: int, tokens: int) -> Path:
    """Write text and configuration, and a designed run for each executor."""
    sources = sorted(Path(json.__file__).parents[1].glob("*.py"))[:60]
    for name, kept in (("code", sources[::2]), ("prose", sources[1::2])):
        text = [{"text": path.read_text(encoding="utf-8")} for path in kept]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in text))
    config = folder / "executors.yaml"
    config.write_text(CONFIG.format(folder=folder, trials=trials, tokens=tokens))
    for run in ("local", "slurm"):
        _mixopt("run", config, "--out", folder / run, "--until", "design").wait()
    return config


class _Swept:
    """What one executor took, and came to."""

    def __init__(self, run: Path, seconds: float, cpu: float) -> None:
        self.seconds, self.cpu = seconds, cpu
        self.table = pl.read_parquet(run / "trials.parquet").drop("seconds")


def _sweep(
    config: Path,
    run: Path,
    executor: str,
    environment: dict[str, str] | None = None,
) -> _Swept:
    begun, before = time.monotonic(), os.times()
    owner = _mixopt(
        "run",
        config,
        "--out",
        run,
        "--executor",
        executor,
        "--until",
        "sweep",
        environment=environment,
    )
    if owner.wait():
        raise SystemExit(f"{executor}: the sweep failed; see {run}")
    seconds = time.monotonic() - begun
    after = os.times()
    cpu = after.children_user + after.children_system
    return _Swept(run, seconds, cpu - before.children_user - before.children_system)


def _show(name: str, swept: _Swept, local: _Swept) -> None:
    line = {
        "executor": name,
        "trials": len(swept.table),
        "seconds": round(swept.seconds, 1),
        "overhead": f"{swept.seconds / local.seconds - 1:+.0%}",
        "cpu_seconds": round(swept.cpu, 1),
        "same_table": swept.table.equals(local.table),
    }
    print(json.dumps(line), flush=True)


@contextmanager
def _slurm(folder: Path) -> Iterator[dict[str, str] | None]:
    from slurm_cluster import SlurmCluster, why_not

    reason = why_not()
    if reason is not None:
        print(f"slurm is left out: {reason}", file=sys.stderr)
        yield None
        return
    cluster_folder = folder / "cluster"
    cluster_folder.mkdir()
    cluster = SlurmCluster(cluster_folder)
    try:
        yield cluster.environment
    finally:
        cluster.end()


def _mixopt(
    *arguments: object, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "mixopt", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()

"""What verifying costs when somebody looks at a run.

    python experiments/benchmarks/bench_verify.py DIR [--times 7]

DIR is a run directory, such as `make quickstart` leaves. A process of `mixopt status DIR` is timed
as a whole; beside it, in fresh objects, what it does of hashing and comparing (the manifest of
every step, the record of the configuration, the seals of the trials), and a `mixopt verify --deep`.
Each is the median of several.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mixopt.run_directory import STEPS, load_run, verify_run
from mixopt.system import check_seal, read_json


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--times", type=int, default=7)
    asked = parser.parse_args()
    directory: Path = asked.directory
    run = load_run(directory)
    files = [file for step in STEPS for file in step.trial_files(directory)]

    def status() -> None:
        command = [sys.executable, "-m", "mixopt", "status", str(directory)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def manifest() -> None:
        fresh = load_run(directory)
        for step in STEPS:
            assert fresh.fault(step.name) is None

    def open_alone() -> None:
        load_run(directory)

    def seals() -> None:
        for file in files:
            check_seal(read_json(file), str(file), mend="")

    def read_alone() -> None:
        for file in files:
            read_json(file)

    whole = _median(status, asked.times)
    added = _median(manifest, asked.times) - _median(open_alone, asked.times)
    added += _median(seals, asked.times) - _median(read_alone, asked.times)
    everything = _median(lambda: verify_run(run, deep=True), asked.times)
    print(f"{len(files)} files of trials")
    print("| | seconds |")
    print("|---|---|")
    print(f"| mixopt status, the whole process | {whole:.3f} |")
    print(f"| of it, verifying | {added:.3f} |")
    print(f"| verify --deep, without starting Python | {everything:.3f} |")


def _median(do: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        do()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


if __name__ == "__main__":
    main()

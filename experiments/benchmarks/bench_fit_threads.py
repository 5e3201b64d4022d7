"""CPU seconds of a fit and of a proposal, with BLAS as it is and with one thread for few trials.

    python experiments/benchmarks/bench_fit_threads.py [--cases 1]

Synthetic tables, trials x domains x losses (bench_auto): `auto` with its five folds, then the
proposal for the mean of all losses with its 20 refits, each in a process of its own whose
environment says nothing of threads. "as it is" is what OpenBLAS does on all cores; "one" is what
mixopt does (mixopt.system.blas_threads). The clock's seconds are beside, since other work on the
machine is in them. The last column is the largest difference of a weight between both proposals.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench_auto import fitted, proposed, table

CASES = ((32, 6, 7), (64, 17, 13), (128, 17, 13))  # the first as in the quickstart
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """Print the table, or in a child process one case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=len(CASES), help="how many, from the first")
    parser.add_argument("--child", nargs=4, type=int, help="one case, and whether it is bound")
    options = parser.parse_args()
    if options.child:
        *case, bound = options.child
        print(json.dumps(measured(case, bound=bool(bound))))
        return
    print("| trials x domains x losses | CPU s | one | ratio | clock s | one | weights differ by |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for case in CASES[: options.cases]:
        wide, one = (in_child(case, bound) for bound in (0, 1))
        cells = (
            " x ".join(map(str, case)),
            f"{wide['cpu']:.1f}",
            f"{one['cpu']:.1f}",
            f"{wide['cpu'] / one['cpu']:.2f}",
            f"{wide['clock']:.1f}",
            f"{one['clock']:.1f}",
            f"{largest_difference(wide['weights'], one['weights']):.1g}",
        )
        print("| " + " | ".join(cells) + " |", flush=True)


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest difference of two mixtures' weights."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def in_child(case: Sequence[int], bound: int) -> dict[str, Any]:
    """Measure one case in a process of its own."""
    command = [sys.executable, __file__, "--child", *map(str, (*case, bound))]
    environment = {name: value for name, value in os.environ.items() if name not in THREADS}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(case: Sequence[int], *, bound: bool) -> dict[str, Any]:
    """Return the seconds of a fit and a proposal, and what was proposed."""
    fitted(table(16, 4, 2), "auto")  # imports
    if not bound:
        sys.modules["threadpoolctl"] = None  # type: ignore[assignment]  # then nothing is bound
    rows = table(*case)
    cpu, clock = time.process_time(), time.monotonic()
    proposal = proposed(fitted(rows, "auto"))
    seconds = {"cpu": time.process_time() - cpu, "clock": time.monotonic() - clock}
    return seconds | {"weights": list(proposal.mixture.values())}


if __name__ == "__main__":
    main()

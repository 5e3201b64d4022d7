"""What the sampler costs, beside its limit and its peers; CPU time of a sample, medians.

    python experiments/benchmarks/bench_sampler.py CORPUS \
        --out experiments/benchmarks/results_sampler.md

CORPUS is a folder of `<domain>/train.parquet` with a column `text`. Its eight largest domains
become token shards of UTF-8 bytes as uint16 (26 MB each). A peer that is not installed is left
out and said so; they pull older packages along, so they have an environment of their own, a copy of
ours with:

    uv pip install grain torchdata brotli python-snappy xxhash zstd cramjam
    uv pip install --no-deps mosaicml-streaming

Each system runs in a process of its own, pinned to one core, all of them in turn, `--reps` times.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
from sampler_systems import SYSTEMS, sampler

from mixopt.corpus import TokenWriter
from mixopt.loading import MixtureLoader
from mixopt.mixture import Mixture
from mixopt.sampling import MixtureSampler

# Peers: the module that they need, and how many samples are drawn.
NEEDS = {
    "torchdata": ("torchdata", 40_000), "HF map": ("datasets", 20_000),
    "HF iterable": ("datasets", 3000), "grain": ("grain", 10_000), "mosaicml": ("streaming", 2000),
}  # fmt: skip
SYSTEM_FILE = Path(__file__).with_name("sampler_systems.py")


def prepare(corpus: Path, data: Path) -> None:
    """Write token shards of bytes for the eight largest domains, and all of them in one file."""
    import pyarrow.parquet as pq

    files = sorted(corpus.glob("*/train.parquet"), key=lambda f: -f.stat().st_size)
    texts = {}
    for file in files:
        text = "".join(pq.read_table(file, columns=["text"])["text"].to_pylist())
        texts[file.parent.name] = np.frombuffer(text.encode(), np.uint8)
    largest = sorted(texts, key=lambda name: -len(texts[name]))[:8]
    with (data / "all.bin").open("wb") as everything:
        for k, name in enumerate(largest):
            tokens = texts[name].astype("<u2")
            with TokenWriter(
                data / "domains" / f"{k}-{name}", dtype="uint16", tokenizer="bytes"
            ) as out:
                out.write(tokens, documents=1, bytes=len(tokens))
            everything.write(tokens.tobytes())


def timed(name: str, data: Path, length: int, batch: int, samples: int) -> float | None:
    """Run one system in a process of its own; return CPU microseconds of a sample."""
    command = [sys.executable, *map(str, (SYSTEM_FILE, name, data, length, batch, samples))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=environment, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        output = error.stderr.decode() if isinstance(error.stderr, bytes) else error.stderr or ""
        last = output.strip().splitlines()[-1:] or [type(error).__name__]
        print(f"{name}: failed: {last[0]}", file=sys.stderr)
        return None
    return float(json.loads(done.stdout.strip().splitlines()[-1])["us"])


def throughput(
    data: Path, length: int, batch: int, reps: int
) -> tuple[dict[str, float], list[str]]:
    """Time all systems in turn; return medians and what was left out."""
    runs: dict[str, list[float]] = {}
    absent = [n for n, (module, _) in NEEDS.items() if importlib.util.find_spec(module) is None]
    for _ in range(reps):
        for name in SYSTEMS:
            if name in absent:
                continue
            _, samples = NEEDS.get(name, ("", 64_000 if "workers" in name else 200_000))
            value = timed(name, data, length, batch, samples)
            if value is None:
                absent.append(name)
            else:
                runs.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in runs.items()}, absent


def cpu(function: Any, reps: int = 7) -> float:
    """Return the median CPU seconds of a call."""
    spent = []
    for _ in range(reps):
        before = time.process_time()
        function()
        spent.append(time.process_time() - before)
    return statistics.median(spent)


def costs(data: Path) -> list[tuple[str, str, str]]:
    """Measure single operations: construction, resume, changes, state, memory, many domains."""
    dataset, drawn = sampler(data, 512, 32)
    rows: list[tuple[str, str, str]] = []

    def first() -> None:
        next(iter(MixtureLoader(*sampler(data, 512, 32), prefetch=0, output="numpy")))

    rows.append(("construct and first batch", f"{cpu(first) * 1e3:.1f} ms", "< 30 ms"))
    state = drawn.state_at(31_250)

    def resume() -> None:
        fresh = sampler(data, 512, 32)[1]
        fresh.load_state_dict(state)
        next(iter(MixtureLoader(dataset, fresh, prefetch=0, output="numpy")))

    rows.append(("resume at 1e6 samples", f"{cpu(resume) * 1e3:.1f} ms", "< 10 ms"))
    rows += changes()
    rows.append(("growth over 1e6 samples", f"{growth(data):.1f} MB", "0 MB"))
    return rows


def changes() -> list[tuple[str, str, str]]:
    """Measure changes of weights at 32 and 1,000 domains."""
    rng = np.random.default_rng(0)
    rows = []
    for domains, target in ((32, "< 100 us"), (1000, "< 5 ms")):
        weights = rng.dirichlet(np.ones(domains), size=64)
        changed = MixtureSampler([10**6] * domains, weights[0], batch_size=256)
        turn = iter([Mixture.from_array(changed.domains, w) for w in weights[1:]])
        next(iter(changed))

        def change(changed: Any = changed, turn: Any = turn) -> None:
            changed.set_weights(next(turn))

        def change_and_draw(changed: Any = changed, turn: Any = turn) -> None:
            changed.set_weights(next(turn))
            changed.order.rows(changed.batch)

        rows.append((f"set_weights, {domains} domains", f"{cpu(change, 15) * 1e6:.0f} us", target))
        both = cpu(change_and_draw, 15) * 1e6
        rows.append((f"set_weights and the next batch, {domains} domains", f"{both:.0f} us", "-"))
    return rows


def growth(data: Path) -> float:
    """Return how many MB of anonymous memory a million samples add."""
    iterator = iter(MixtureLoader(*sampler(data, 512, 32), prefetch=0, output="numpy"))
    for _ in range(5000):
        next(iterator)
    before = anonymous()
    for _ in range(10**6 // 32):
        next(iterator)
    return anonymous() - before


def anonymous() -> float:
    """Return this process's anonymous memory in MB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def table(length: int, batch: int, us: dict[str, float], absent: list[str]) -> list[str]:
    """Return a table of CPU time by sample."""
    ours = us["mixopt plain"]
    lines = [
        f"## Rows of {length} tokens ({length * 2 // 1024} KB), batches of {batch}",
        "",
        "| system | CPU us a sample | of the limit | mixopt plain is |",
        "|---|---|---|---|",
    ]
    for name, value in us.items():
        ratio = f"{value / ours:.1f}x quicker" if name in NEEDS else ""
        if name.startswith("mixopt") and "workers" in name:
            ratio = f"{value / us['raw map in a DataLoader, 2 workers']:.2f}x the raw map's"
        lines.append(f"| {name} | {value:.2f} | {value / us['limit']:.1f}x | {ratio} |")
    if absent:
        lines += ["", f"Left out, not installed or failed: {', '.join(sorted(set(absent)))}."]
    return [*lines, ""]


def machine() -> str:
    """Return the machine, its load, and versions."""
    info = Path("/proc/cpuinfo")
    model = platform.processor()
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, load {load:.1f}; Python {platform.python_version()},"
        f" numpy {np.__version__}"
    )


def header(reps: int) -> list[str]:
    """Return the command, the machine and the versions."""
    packages = ("torch", "torchdata", "datasets", "grain", "mosaicml-streaming")
    versions = [f"{d.name} {d.version}" for d in distributions() if d.name in packages]
    command = f"`python experiments/benchmarks/bench_sampler.py CORPUS --reps {reps}`"
    data = (
        "Rows are real text as UTF-8 bytes in uint16, 212 MB in eight domains, in the page cache."
        " The limit is np.take of the same rows from one map."
    )
    return [
        f"{command}: CPU time, worker processes included, medians.",
        "",
        f"{machine()}; {', '.join(versions)}. {data}",
    ]


def main() -> None:
    """Time all systems and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data", type=Path, help="where to keep the prepared data")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048])
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as temporary:
        data = options.data or Path(temporary)
        data.mkdir(parents=True, exist_ok=True)
        if not (data / "all.bin").exists():
            prepare(options.corpus, data)
        lines = ["# What the sampler costs", "", *header(options.reps), ""]
        for length in options.lengths:
            batch = 32 * 512 // length
            lines += table(length, batch, *throughput(data, length, batch, options.reps))
        lines += ["## Once", "", "| what | CPU | target |", "|---|---|---|"]
        lines += [f"| {what} | {value} | {target} |" for what, value, target in costs(data)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()

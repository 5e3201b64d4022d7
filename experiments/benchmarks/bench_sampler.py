"""What the sampler costs, beside its limit and its peers; CPU time of a sample, medians.

    python experiments/benchmarks/bench_sampler.py CORPUS \
        --out experiments/benchmarks/results_sampler.md

CORPUS is a folder of `<domain>/train.parquet` with a column `text`. Its eight largest domains
become token shards of UTF-8 bytes as uint16 (26 MB each). A peer that is not installed is left
out and said so; they pull older packages along, so they have an environment of their own, a copy of
ours with:

    uv pip install grain litdata torchdata brotli python-snappy xxhash zstd cramjam
    uv pip install --no-deps mosaicml-streaming megatron-core==0.16.1

Very many shards and a store are bench_storage's, streams bench_stream_systems'. Each system
runs in a process of its own, pinned to one core, all of them in turn, `--reps` times.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from sampler_systems import SYSTEMS, sampler
from sampler_units import change_rows, packed_rows, unit_rows

from mixopt.corpus import TokenWriter
from mixopt.loading import MixtureLoader
from mixopt.mixture import Mixture
from mixopt.sampling import MixtureSampler

NEEDS = {
    "torchdata": "torchdata",
    "HF map": "datasets",
    "HF iterable": "datasets",
    "litdata": "litdata",
    "grain": "grain",
    "mosaicml": "streaming",
    "Megatron BlendedDataset": "megatron",
}
TARGETS = {
    512: {
        "torchdata": 3.5,
        "HF map": 10,
        "litdata": 15,
        "grain": 20,
        "HF iterable": 60,
        "mosaicml": 200,
    },
    2048: {
        "torchdata": 2,
        "HF map": 10,
        "litdata": 8,
        "grain": 10,
        "HF iterable": 60,
        "mosaicml": 200,
    },
}
SAMPLES = {
    "torchdata": 40_000,
    "HF map": 20_000,
    "HF iterable": 3000,
    "litdata": 20_000,
    "grain": 10_000,
    "mosaicml": 2000,
    "Megatron BlendedDataset": 10_000,
}
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
    command = [
        sys.executable,
        str(SYSTEM_FILE),
        name,
        str(data),
        str(length),
        str(batch),
        str(samples),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=environment, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = error.stderr.decode() if isinstance(error.stderr, bytes) else error.stderr or ""
        last = said.strip().splitlines()[-1:] or [type(error).__name__]
        print(f"{name}: failed: {last[0]}", file=sys.stderr)
        return None
    return float(json.loads(done.stdout.strip().splitlines()[-1])["us"])


def throughput(
    data: Path, length: int, batch: int, reps: int
) -> tuple[dict[str, float], list[str]]:
    """Time all systems in turn; return medians and what was left out."""
    runs: dict[str, list[float]] = {}
    absent = [n for n, module in NEEDS.items() if importlib.util.find_spec(module) is None]
    for _ in range(reps):
        for name in SYSTEMS:
            if name in absent:
                continue
            samples = SAMPLES.get(name, 64_000 if "workers" in name else 200_000)
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
    """Measure what happens once: construction, resume, changes, state, memory, many domains."""
    dataset, one = sampler(data, 512, 32)
    rows: list[tuple[str, str, str]] = []

    def first() -> None:
        next(iter(MixtureLoader(*sampler(data, 512, 32), prefetch=0, output="numpy")))

    rows.append(("construct and first batch", f"{cpu(first) * 1e3:.1f} ms", "< 30 ms"))
    state = one.state_at(31_250)

    def resume() -> None:
        fresh = sampler(data, 512, 32)[1]
        fresh.load_state_dict(state)
        next(iter(MixtureLoader(dataset, fresh, prefetch=0, output="numpy")))

    rows.append(("resume at 1e6 samples", f"{cpu(resume) * 1e3:.1f} ms", "< 10 ms"))
    rows += changes()
    rows.append(("growth over 1e6 samples", f"{growth(data):.1f} MB", "0 MB"))
    return rows


def changes() -> list[tuple[str, str, str]]:
    """Measure states and changes of weights at 8, 32 and 1,000 domains."""
    rng = np.random.default_rng(0)
    rows = []
    for domains in (8, 32, 1000):
        weights = rng.dirichlet(np.ones(domains), size=64)
        one = MixtureSampler([10**6] * domains, weights[0], batch_size=256)
        mixtures = [Mixture.from_array(one.domains, w) for w in weights]
        next(iter(one))
        before = len(json.dumps(one.state_dict()))
        turn = iter(mixtures[1:])
        if domains == 8:
            for k, mixture in enumerate(mixtures[1:51]):
                one.set_weights(mixture, batch=k + 1)
            each = (len(json.dumps(one.state_dict())) - before) / 50
            rows += [
                ("state, 8 domains", f"{before} B", "< 1000 B"),
                ("state, each change, 8 domains", f"{each:.0f} B", "< 300 B"),
            ]
            continue

        def change(one: Any = one, turn: Any = turn) -> None:
            one.set_weights(next(turn))

        def change_and_draw(one: Any = one, turn: Any = turn) -> None:
            one.set_weights(next(turn))
            one.order.rows(one.batch)

        target = "< 100 us" if domains == 32 else "< 5 ms"
        rows.append((f"set_weights, {domains} domains", f"{cpu(change, 15) * 1e6:.0f} us", target))
        both = cpu(change_and_draw, 15) * 1e6
        rows.append((f"set_weights and the next batch, {domains} domains", f"{both:.0f} us", "-"))
    order = MixtureSampler([10**6] * 1000, weights[0], batch_size=256).order
    each = cpu(lambda: order.rows(0, 256)) / (256 * 256) * 1e6
    rows.append(("order with rows and shuffle, 1,000 domains", f"{each:.3f} us a sample", "-"))
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
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(lines["RssAnon"].split()[0]) / 1024


def table(length: int, batch: int, us: dict[str, float], absent: list[str]) -> list[str]:
    """Return a table of CPU time by sample."""
    ours = us["mixopt plain"]
    lines = [
        f"## Rows of {length} tokens ({length * 2 // 1024} KB), batches of {batch}",
        "",
        "| system | CPU us a sample | of the limit | mixopt plain is | target |",
        "|---|---|---|---|---|",
    ]
    for name, value in us.items():
        target, ratio = "", f"{value / ours:.1f}x quicker" if name in NEEDS else ""
        if name in TARGETS[length]:
            target = f">= {TARGETS[length][name]}x"
        elif name == "mixopt plain":
            target = "<= 3x the limit" if length == 512 else "<= 2x the limit"
        elif name == "mixopt thread":
            target = "<= 2 us" if length == 512 else "<= 4 us"
        elif name.startswith("mixopt") and "workers" in name:
            ratio = f"{value / us['raw map in a DataLoader, 2 workers']:.2f}x the raw map's"
            target = "" if "default" in name else "<= 1.2x the raw map's"
        lines.append(f"| {name} | {value:.2f} | {value / us['limit']:.1f}x | {ratio} | {target} |")
    if absent:
        lines += ["", f"Left out, not installed or failed: {', '.join(sorted(set(absent)))}."]
    return [*lines, ""]


def machine() -> str:
    """Return what this ran on."""
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
    packages = (
        "torch",
        "torchdata",
        "datasets",
        "litdata",
        "grain",
        "mosaicml-streaming",
        "megatron-core",
    )
    found = [f"{name} {version(name)}" for name in packages if is_installed(name)]
    command = f"`python experiments/benchmarks/bench_sampler.py CORPUS --reps {reps}`"
    data = (
        "Rows are real text as UTF-8 bytes in uint16, 212 MB in eight domains, in the page cache."
        " The limit is np.take of the same rows from one map."
    )
    return [
        f"{command}: CPU time, worker processes included, medians.",
        "",
        f"{machine()}; {', '.join(found)}. {data}",
    ]


def is_installed(name: str) -> bool:
    """Whether a distribution is installed."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def main() -> None:
    """Run it all and write the results."""
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
        for title, rows in (
            ("Units, batches of 256", unit_rows()),
            ("Changes of weights, 8 domains, batches of 256", change_rows()),
            ("Packing, batches of 8", packed_rows(data)),
        ):
            lines += ["", f"## {title}", "", "| what | CPU | target |", "|---|---|---|"]
            lines += [f"| {what} | {value} | {target} |" for what, value, target in rows]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
